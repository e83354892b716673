"""Iterative magnitude pruning with rewinding, the method of the lottery ticket hypothesis (LTH, IMP)."""

import itertools
from collections.abc import Callable

from torch import nn

from howsparse.errors import InputError
from howsparse.methods.stages import Run, Sparsity, Stages, dense_mask
from howsparse.methods.ticket import Ticket
from howsparse.problem import Problem
from howsparse.pruning.masks import Mask, magnitude_mask

__all__ = ["lottery_ticket", "prune_in_rounds"]

_LEAST = 0.001  # of the remaining weights; with less, the rounds would not end


def lottery_ticket(
    problem: Problem, sparsity: Sparsity, seed: int = 0, run: Run = Run(), *, fraction: float = 0.2, rewind: int = 0
) -> Ticket:
    """Repeat rounds: train, remove a fraction of the remaining weights, and rewind the others. Then train once more.

    Args:
        problem: network, data and loss; its l1 term is not used.
        sparsity: fraction to remove in the end, or "limit" or "predicted" of the dense network trained with l1.
        seed: seed of initialisation and batches.
        run: folder and callbacks.
        fraction: fraction of the remaining weights of the whole network that each round removes, in (0, 1).
        rewind: epoch to which weights and schedule are rewound; 0 is the initialisation.

    Returns:
        The pruned and trained network.

    Raises:
        InputError: the fraction is below 0.001 or not below 1, or ``rewind`` is not an epoch of the problem.

    Source: Frankle and Carbin (2019); Frankle et al. (2020) for rewinding to an early epoch.

    >>> import torch
    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> problem = Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=2)
    >>> lottery_ticket(problem, 0.5, fraction=0.4).mask.num_kept
    12
    """
    if not _LEAST <= fraction < 1:
        raise InputError(
            f"fraction {fraction:g} is outside [{_LEAST}, 1); give the fraction of weights that a round removes"
        )
    if not 0 <= rewind < problem.epochs:
        raise InputError(
            f"rewind {rewind} is outside the problem's {problem.epochs} epochs; give 0 to {problem.epochs - 1}"
        )
    return prune_in_rounds(Stages(problem, seed, run), sparsity, lambda model, mask: fraction, rewind)


def prune_in_rounds(
    stages: Stages, sparsity: Sparsity, fraction: Callable[[nn.Module, Mask], float], rewind: int = 0
) -> Ticket:
    """Repeat rounds of training, magnitude pruning and rewinding, then train once more.

    Args:
        stages: the stages of the method that calls this function.
        sparsity: fraction to remove in the end, or "limit" or "predicted".
        fraction: ``fraction(model, mask)`` returns the fraction of the remaining weights that a round removes. It is
            called after the training of the round.
        rewind: epoch to which weights and schedule are rewound; 0 is the initialisation.

    Returns:
        The pruned and trained network.
    """
    density, target = 1.0, 1 - stages.target(sparsity)
    model = stages.problem.initial(stages.seed)
    mask = dense_mask(model)
    if rewind:
        stages.train("early training", model, epochs=rewind)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for number in itertools.count(1):
        if density <= target:
            break
        stages.train(f"round {number}", model, mask, first=rewind)
        density = max(density * (1 - fraction(model, mask)), target)
        mask = magnitude_mask(model, 1 - density)
        model.load_state_dict(start)
        mask.apply_(model)
    stages.train("final training", model, mask, first=rewind)
    return stages.ticket(model, mask)
