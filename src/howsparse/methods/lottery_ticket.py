"""Iterative magnitude pruning with rewinding: the lottery ticket hypothesis' way (LTH, IMP)."""

from howsparse.errors import InputError
from howsparse.masks import magnitude_mask
from howsparse.methods.stages import Run, Sparsity, Stages, Ticket, dense_mask
from howsparse.tasks import Task

__all__ = ["lottery_ticket"]


def lottery_ticket(
    task: Task, sparsity: Sparsity, seed: int = 0, run: Run = Run(), *, rate: float = 0.2, rewind: int = 0
) -> Ticket:
    """Train, remove a share of the remaining weights, rewind the others, and again; train once more at the end.

    Args:
        task: trained without l1.
        sparsity: fraction to remove in the end; a word is the limit of the recipe's dense network.
        seed: of initialisation and batches.
        run: folder and callbacks.
        rate: share of the remaining weights that a round removes, of the whole network.
        rewind: epoch to rewind to, both weights and schedule; 0 is the initialisation.

    Raises:
        InputError: a rate outside (0, 1), or a rewinding epoch outside the recipe's.

    Source: Frankle and Carbin (2019); Frankle et al. (2020) for rewinding to an early epoch.
    """
    if not 0 < rate < 1:
        raise InputError(f"rate {rate:g} is outside (0, 1): it is the share of weights that a round removes")
    if not 0 <= rewind < task.recipe.epochs:
        raise InputError(f"rewind {rewind} is outside the recipe's {task.recipe.epochs} epochs")
    stages = Stages(task, seed, run)
    density, target = 1.0, 1 - stages.target(sparsity)
    model = task.network(seed)
    mask = dense_mask(model)
    if rewind:
        stages.train("early training", model, epochs=rewind)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rounds = 0
    while density > target:
        stages.train(f"round {rounds + 1}", model, mask, first=rewind)
        density = max(density * (1 - rate), target)
        mask = magnitude_mask(model, 1 - density)
        model.load_state_dict(start)
        mask.apply_(model)
        rounds += 1
    stages.train("final training", model, mask, first=rewind)
    return stages.ticket(model, mask)
