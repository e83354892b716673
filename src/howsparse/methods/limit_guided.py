"""Iterative magnitude pruning that removes, each round, what the limit of the network at hand allows."""

from howsparse.masks import magnitude_mask
from howsparse.methods.stages import Run, Sparsity, Stages, Ticket, dense_mask
from howsparse.tasks import Task

__all__ = ["limit_guided"]

_LEAST = 0.1  # share a round removes at least, so that a network at its limit does not stand still


def limit_guided(task: Task, sparsity: Sparsity, seed: int = 0, run: Run = Run()) -> Ticket:
    """As `lottery_ticket`, but the share that a round removes is the pruning limit of the weights that are left.

    Args:
        task: trained without l1.
        sparsity: fraction to remove in the end; a word is the limit of the recipe's dense network.
        seed: of initialisation and batches.
        run: folder, callbacks, and how many images and products a limit may take.
    """
    stages = Stages(task, seed, run)
    density, target = 1.0, 1 - stages.target(sparsity)
    model = task.network(seed)
    mask = dense_mask(model)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rounds = 0
    while density > target:
        stages.train(f"round {rounds + 1}", model, mask)
        allowed = stages.limits(model, mask).limit
        density = max(density * (1 - max(allowed, _LEAST)), target)
        mask = magnitude_mask(model, 1 - density)
        model.load_state_dict(start)
        mask.apply_(model)
        rounds += 1
    stages.train("final training", model, mask)
    return stages.ticket(model, mask)
