"""Iterative magnitude pruning that removes, each round, what the limit of the network at hand allows."""

from torch import nn

from howsparse.methods.lottery_ticket import prune_in_rounds
from howsparse.methods.stages import Run, Sparsity, Stages, Ticket
from howsparse.pruning.masks import Mask
from howsparse.tasks import Task

__all__ = ["limit_guided"]

_LEAST = 0.1  # share a round removes at least, so that a network at its limit does not stand still


def limit_guided(task: Task, sparsity: Sparsity, seed: int = 0, run: Run = Run()) -> Ticket:
    """As `lottery_ticket`, but the share that a round removes is the pruning limit of the weights that are left.

    Args:
        task: trained without l1.
        sparsity: fraction to remove in the end; a word is the limit of the recipe's dense network.
        seed: of initialisation and batches.
        run: folder, callbacks, and how many images and products a limit may take.
    """
    stages = Stages(task, seed, run)

    def allowed(model: nn.Module, mask: Mask) -> float:
        return max(stages.limits(model, mask).limit, _LEAST)

    return prune_in_rounds(stages, sparsity, allowed)
