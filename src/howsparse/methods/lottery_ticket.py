"""Iterative magnitude pruning with rewinding: the lottery ticket hypothesis' way (LTH, IMP)."""

import itertools
from collections.abc import Callable

from torch import nn

from howsparse.errors import InputError
from howsparse.methods.stages import Run, Sparsity, Stages, dense_mask
from howsparse.methods.ticket import Ticket
from howsparse.problem import Problem
from howsparse.pruning.masks import Mask, magnitude_mask

__all__ = ["lottery_ticket", "prune_in_rounds"]


def lottery_ticket(
    problem: Problem, sparsity: Sparsity, seed: int = 0, run: Run = Run(), *, fraction: float = 0.2, rewind: int = 0
) -> Ticket:
    """Train, remove a share of the remaining weights, rewind the others, and again; train once more at the end.

    Args:
        problem: trained without l1.
        sparsity: fraction to remove in the end; a word takes it from the limit of the dense network trained with l1.
        seed: of initialisation and batches.
        run: folder and callbacks.
        fraction: of the remaining weights that a round removes, over the whole network.
        rewind: epoch to rewind to, both weights and schedule; 0 is the initialisation.

    Raises:
        InputError: a fraction outside (0, 1), or a rewinding epoch outside the problem's.

    Source: Frankle and Carbin (2019); Frankle et al. (2020) for rewinding to an early epoch.
    """
    if not 0 < fraction < 1:
        raise InputError(f"fraction {fraction:g} is outside (0, 1): it is the part of the weights that a round removes")
    if not 0 <= rewind < problem.epochs:
        raise InputError(f"rewind {rewind} is outside the problem's {problem.epochs} epochs")
    return prune_in_rounds(Stages(problem, seed, run), sparsity, lambda model, mask: fraction, rewind)


def prune_in_rounds(
    stages: Stages, sparsity: Sparsity, fraction: Callable[[nn.Module, Mask], float], rewind: int = 0
) -> Ticket:
    """Rounds of training, pruning by magnitude and rewinding, then a last training.

    Args:
        stages: of the method whose rounds these are.
        sparsity: fraction to remove in the end, or a word.
        fraction: ``fraction(model, mask)`` of the remaining weights that a round removes, asked after its training.
        rewind: epoch to rewind to; 0 is the initialisation.
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
