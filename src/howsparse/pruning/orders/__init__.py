"""Orders: which weights are removed first. An order is a score for every weight; a larger score stays longer.

- ``magnitude``, ``layerwise``, ``erk``, ``random`` need no data.
- ``wanda``, ``wanda-row`` need one forward pass over the batches.
- ``gradient`` needs one gradient; ``curvature`` needs one gradient for each output of each of 256 examples.
- ``marginal`` follows a path of growing sparsity, and needs a gradient at each of its steps.

The best order depends on the network and on the sparsity, so measure several. If a network fits its training data, its
gradient and its curvature on these data are small, and orders by them can be worse than magnitude.
"""

from collections.abc import Iterable
from typing import Any

from torch import nn

from howsparse.errors import InputError
from howsparse.pruning.orders.activations import wanda, wanda_row
from howsparse.pruning.orders.curvature import curvature
from howsparse.pruning.orders.erk import erk
from howsparse.pruning.orders.gradient import gradient
from howsparse.pruning.orders.layerwise import layerwise
from howsparse.pruning.orders.magnitude import magnitude
from howsparse.pruning.orders.marginal import marginal
from howsparse.pruning.orders.order import Order, OrderFunction, check_fits
from howsparse.pruning.orders.random import random
from howsparse.risk.alone import alone
from howsparse.risk.guard import guarded
from howsparse.risk.losses import Loss, cross_entropy

__all__ = ["ORDERS", "Order", "OrderFunction", "rank"]

ORDERS: dict[str, OrderFunction] = {
    "magnitude": magnitude,
    "layerwise": layerwise,
    "erk": erk,
    "curvature": curvature,
    "wanda": wanda,
    "wanda-row": wanda_row,
    "gradient": gradient,
    "marginal": marginal,
    "random": random,
}


@alone
@guarded
def rank(
    model: nn.Module,
    order: str | Order | OrderFunction,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = cross_entropy,
    names: Iterable[str] | None = None,
    seed: int = 0,
) -> Order:
    """Put the weights of a model in the order in which they are removed.

    Args:
        model: any module; it is not changed.
        order: a name in `ORDERS`, an order that was made before, or a function that makes one.
        batches: batches that can be read several times; the orders magnitude, layerwise, erk and random need none.
        loss: ``loss(model, batch)``, mean over the batch.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        seed: seed of random numbers, for orders that draw some.

    Returns:
        An order of this model's weights.

    Raises:
        InputError: the name is unknown, the order needs data and there are none, or it does not fit the model.

    >>> import torch
    >>> batches = [(torch.eye(2), torch.tensor([0, 1]))]
    >>> [rank(nn.Linear(2, 2), name, batches).mask(0.5).num_kept for name in ("magnitude", "wanda", "curvature")]
    [2, 2, 2]
    """
    chosen = None if names is None else list(names)
    if isinstance(order, Order):
        return check_fits(order, model, chosen)
    if isinstance(order, str):
        if order not in ORDERS:
            raise InputError(f"order '{order}' is not known; use one of {', '.join(ORDERS)}")
        order = ORDERS[order]
    made = order(model, batches, loss=loss, names=chosen, seed=seed)
    if not isinstance(made, Order):
        raise InputError(f"the function of an order returned {type(made).__name__}; return a howsparse Order")
    return check_fits(made, model, chosen)
