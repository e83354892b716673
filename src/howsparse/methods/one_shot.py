"""Global one-shot pruning after training with l1, the paper's method (GOP)."""

from howsparse.errors import InputError
from howsparse.methods.stages import Run, Sparsity, Stages
from howsparse.methods.ticket import Ticket
from howsparse.problem import Problem
from howsparse.pruning.masks import magnitude_mask

__all__ = ["one_shot"]


def one_shot(problem: Problem, sparsity: Sparsity, seed: int = 0, run: Run = Run(), *, fine_tune: int = 0) -> Ticket:
    """Train with l1, then remove the smallest weights of the whole network.

    Args:
        problem: network, data, loss and the strength of the l1 term.
        sparsity: fraction to remove, or "limit" or "predicted" of the trained network.
        seed: seed of initialisation and batches.
        run: folder and callbacks.
        fine_tune: number of epochs of training after pruning, without l1; 0 in the paper.

    Returns:
        The pruned network.

    Raises:
        InputError: ``fine_tune`` is negative.

    Source: Section 2 of the paper, Eq. 2.

    >>> import torch
    >>> from torch import nn
    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> one_shot(Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=2), 0.5).mask.num_kept
    12
    """
    if fine_tune < 0:
        raise InputError(f"fine_tune {fine_tune} is negative; give the number of epochs after pruning")
    stages = Stages(problem, seed, run)
    model = problem.initial(seed)
    stages.train("dense with l1", model, l1=problem.l1)
    mask = magnitude_mask(model, stages.target(sparsity, model))
    mask.apply_(model)
    if fine_tune:
        stages.train("fine-tuning", model, mask, epochs=fine_tune)
    return stages.ticket(model, mask)
