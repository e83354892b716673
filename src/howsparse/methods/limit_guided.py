"""Iterative magnitude pruning that removes, each round, what the limit of the network at hand allows."""

from torch import nn

from howsparse.methods.lottery_ticket import prune_in_rounds
from howsparse.methods.stages import Run, Sparsity, Stages
from howsparse.methods.ticket import Ticket
from howsparse.problem import Problem
from howsparse.pruning.masks import Mask

__all__ = ["limit_guided"]

_LEAST = 0.1  # share a round removes at least, so that a network at its limit does not stand still


def limit_guided(problem: Problem, sparsity: Sparsity, seed: int = 0, run: Run = Run()) -> Ticket:
    """As `lottery_ticket`, but the share that a round removes is the pruning limit of the weights that are left.

    Args:
        problem: trained without l1.
        sparsity: fraction to remove in the end; a word takes it from the limit of the dense network trained with l1.
        seed: of initialisation and batches.
        run: folder, callbacks, and how many images and products a limit may take.
    """
    stages = Stages(problem, seed, run)

    def allowed(model: nn.Module, mask: Mask) -> float:
        return max(stages.limit(model, mask).sparsity, _LEAST)

    return prune_in_rounds(stages, sparsity, allowed)
