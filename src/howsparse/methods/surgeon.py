"""Pruning in rounds of order and repair after a dense training, without retraining."""

from howsparse.errors import InputError
from howsparse.methods.stages import Run, Sparsity, Stages
from howsparse.methods.ticket import Ticket
from howsparse.problem import Problem
from howsparse.pruning.orders import ORDERS
from howsparse.pruning.repair import as_repair, prune_and_repair

__all__ = ["surgeon"]


def surgeon(
    problem: Problem,
    sparsity: Sparsity,
    seed: int = 0,
    run: Run = Run(),
    *,
    repair: str = "rounds",
    order: str = "magnitude",
    examples: int = 1000,
) -> Ticket:
    """Train without l1, then remove weights by an order and repair the weights that stay.

    There is no training after pruning. The repairs need a few passes over some training examples.

    Args:
        problem: network, data and loss; its l1 term is not used.
        sparsity: fraction to remove, or "limit" or "predicted" of the dense network trained with l1.
        seed: seed of initialisation, batches and of an order that draws at random.
        run: folder and callbacks.
        repair: a name in `howsparse.pruning.repair.REPAIRS`.
        order: a name in `howsparse.pruning.orders.ORDERS`.
        examples: number of training examples for order and repair, from the first on.

    Returns:
        The pruned and repaired network.

    Raises:
        InputError: there are no examples, the repair or the order is unknown, or the repair refuses the network.

    Source: Hassibi and Stork (1993), Optimal brain surgeon; layer by layer, Frantar and Alistarh (2023).

    >>> import torch
    >>> from torch import nn
    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> surgeon(Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=2), 0.5).mask.num_kept
    12
    """
    if examples < 1:
        raise InputError(f"{examples} examples are not enough for a repair; use a few hundred to a few thousand")
    repairing = as_repair(repair)
    if order not in ORDERS:
        raise InputError(f"order '{order}' is not known; use one of {', '.join(ORDERS)}")
    stages = Stages(problem, seed, run)
    target = stages.target(sparsity)
    model = problem.initial(seed)
    stages.train("dense", model)
    batches = list(problem.study_batches(examples))
    mask = prune_and_repair(model, target, batches, repair=repairing, order=order, loss=problem.loss, seed=seed)
    return stages.ticket(model, mask)
