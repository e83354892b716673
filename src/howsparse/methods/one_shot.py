"""l1-regularised global one-shot pruning, the paper's method (GOP)."""

from howsparse.errors import InputError
from howsparse.methods.stages import Run, Sparsity, Stages
from howsparse.methods.ticket import Ticket
from howsparse.problem import Problem
from howsparse.pruning.masks import magnitude_mask

__all__ = ["one_shot"]


def one_shot(problem: Problem, sparsity: Sparsity, seed: int = 0, run: Run = Run(), *, fine_tune: int = 0) -> Ticket:
    """Train with l1, remove the smallest weights of the whole network, and that is all.

    Args:
        problem: its l1 strength is used.
        sparsity: fraction to remove, or "limit" or "predicted" of the network that was trained.
        seed: of initialisation and batches.
        run: folder and callbacks.
        fine_tune: epochs of training after pruning, without l1; the paper has none.

    Raises:
        InputError: fewer than no epochs of fine-tuning.

    Source: Section 2 of the paper, Eq. 2.
    """
    if fine_tune < 0:
        raise InputError(f"fine_tune {fine_tune} is negative: it is the number of epochs after pruning")
    stages = Stages(problem, seed, run)
    model = problem.initial(seed)
    stages.train("dense with l1", model, l1=problem.l1)
    mask = magnitude_mask(model, stages.target(sparsity, model))
    mask.apply_(model)
    if fine_tune:
        stages.train("fine-tuning", model, mask, epochs=fine_tune)
    return stages.ticket(model, mask)
