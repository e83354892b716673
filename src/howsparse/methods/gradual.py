"""Gradual magnitude pruning during one training, with a cubic schedule."""

from howsparse.errors import InputError
from howsparse.methods.stages import Run, Sparsity, Stages
from howsparse.methods.ticket import Ticket
from howsparse.problem import Problem
from howsparse.pruning.masks import Mask, magnitude_mask

__all__ = ["gradual"]


def gradual(
    problem: Problem, sparsity: Sparsity, seed: int = 0, run: Run = Run(), *, begin: float = 0.0, end: float = 0.75
) -> Ticket:
    r"""Train, and remove the smallest weights at the start of every epoch.

    After the fraction :math:`x` of the epochs between begin and end, the sparsity is :math:`s\,(1 - (1-x)^3)`.

    Args:
        problem: network, data and loss; its l1 term is not used.
        sparsity: fraction to remove in the end, or "limit" or "predicted" of the dense network trained with l1.
        seed: seed of initialisation and batches.
        run: folder and callbacks.
        begin: start of the pruning, as a fraction of the problem's epochs.
        end: end of the pruning, as a fraction of the problem's epochs; afterwards the mask does not change.

    Returns:
        The pruned and trained network.

    Raises:
        InputError: ``0 <= begin < end <= 1`` does not hold.

    Source: Zhu and Gupta (2017), Eq. 1.

    >>> import torch
    >>> from torch import nn
    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> gradual(Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=4), 0.5).mask.num_kept
    12
    """
    if not 0 <= begin < end <= 1:
        raise InputError(f"begin {begin:g} and end {end:g} are wrong; give values with 0 <= begin < end <= 1")
    stages = Stages(problem, seed, run)
    target, epochs = stages.target(sparsity), problem.epochs
    model = problem.initial(seed)

    def grow(epoch: int) -> Mask:
        way = min(max((epoch / epochs - begin) / (end - begin), 0.0), 1.0)
        return magnitude_mask(model, target * (1 - (1 - way) ** 3))

    trained = stages.train(f"gradual to {target}, {begin:g} to {end:g}", model, grow=grow)
    return stages.ticket(model, trained.mask)
