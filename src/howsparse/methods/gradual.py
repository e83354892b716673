"""Gradual magnitude pruning in one training, on a cubic schedule."""

from howsparse.errors import InputError
from howsparse.methods.stages import Run, Sparsity, Stages
from howsparse.methods.ticket import Ticket
from howsparse.problem import Problem
from howsparse.pruning.masks import Mask, magnitude_mask

__all__ = ["gradual"]


def gradual(
    problem: Problem, sparsity: Sparsity, seed: int = 0, run: Run = Run(), *, begin: float = 0.0, end: float = 0.75
) -> Ticket:
    r"""Remove the smallest weights at the start of every epoch, many at first and few towards the end.

    The sparsity at a share :math:`x` of the way from begin to end is :math:`s\,(1 - (1-x)^3)`.

    Args:
        problem: trained without l1.
        sparsity: fraction to remove in the end; a word takes it from the limit of the dense network trained with l1.
        seed: of initialisation and batches.
        run: folder and callbacks.
        begin, end: of the pruning, as shares of the problem's epochs; what is left trains under the final mask.

    Raises:
        InputError: begin and end not in order within [0, 1].

    Source: Zhu and Gupta (2017), Eq. 1.
    """
    if not 0 <= begin < end <= 1:
        raise InputError(f"begin {begin:g} and end {end:g} are not in order within [0, 1]")
    stages = Stages(problem, seed, run)
    target, epochs = stages.target(sparsity), problem.epochs
    model = problem.initial(seed)

    def grow(epoch: int) -> Mask:
        way = min(max((epoch / epochs - begin) / (end - begin), 0.0), 1.0)
        return magnitude_mask(model, target * (1 - (1 - way) ** 3))

    trained = stages.train(f"gradual to {target}, {begin:g} to {end:g}", model, grow=grow)
    return stages.ticket(model, trained.mask)
