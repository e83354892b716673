"""Training without pruning, for comparison with the other methods."""

from howsparse.methods.stages import Run, Sparsity, Stages
from howsparse.methods.ticket import Ticket
from howsparse.problem import Problem

__all__ = ["dense"]


def dense(problem: Problem, sparsity: Sparsity = 0.0, seed: int = 0, run: Run = Run()) -> Ticket:
    """Train all weights without l1 and without pruning.

    Args:
        problem: network, data and loss; its l1 term is not used.
        sparsity: not used; every method has this parameter.
        seed: seed of initialisation and batches.
        run: folder and callbacks.

    Returns:
        The trained network, with a mask under which all weights stay.

    >>> import torch
    >>> from torch import nn
    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> dense(Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=2)).mask.sparsity
    0.0
    """
    stages = Stages(problem, seed, run)
    model = problem.initial(seed)
    trained = stages.train("dense", model)
    return stages.ticket(model, trained.mask)
