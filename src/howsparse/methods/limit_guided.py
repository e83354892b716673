"""Iterative magnitude pruning in which each round prunes to the limit of its network."""

from torch import nn

from howsparse.methods.lottery_ticket import prune_in_rounds
from howsparse.methods.stages import Run, Sparsity, Stages
from howsparse.methods.ticket import Ticket
from howsparse.problem import Problem
from howsparse.pruning.masks import Mask

__all__ = ["limit_guided"]

_LEAST = 0.1  # smallest fraction that a round removes, so that the rounds come to an end at any limit


def limit_guided(problem: Problem, sparsity: Sparsity, seed: int = 0, run: Run = Run()) -> Ticket:
    """As `lottery_ticket`, but each round removes the fraction given by the limit of the remaining weights.

    If a limit is not resolved, the round removes the lower end of its bracket.

    Args:
        problem: network, data and loss; its l1 term is not used.
        sparsity: fraction to remove in the end, or "limit" or "predicted" of the dense network trained with l1.
        seed: seed of initialisation and batches.
        run: folder, callbacks, number of examples for limits, and options of limits.

    Returns:
        The pruned and trained network.

    Source: not in the paper, which compares the limit with the rounds of other methods (Figure 4).

    >>> import torch
    >>> batches = [(torch.randn(128, 8), torch.randint(0, 3, (128,))) for _ in range(3)]
    >>> problem = Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=2)
    >>> limit_guided(problem, 0.5).mask.num_kept
    12
    """
    stages = Stages(problem, seed, run)

    def allowed(model: nn.Module, mask: Mask) -> float:
        limit = stages.limit(model, mask)
        return max(limit.sparsity if limit.resolved else limit.bracket[0], _LEAST)

    return prune_in_rounds(stages, sparsity, allowed)
