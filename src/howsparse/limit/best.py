"""`measure_orders`: measure every order of the weights, and return the best one first."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from howsparse.errors import InputError
from howsparse.limit.goal import Point
from howsparse.limit.measure import Measured, measure
from howsparse.pruning.orders import ORDERS, Order, OrderFunction
from howsparse.risk.alone import alone
from howsparse.risk.guard import guarded

__all__ = ["OrderComparison", "measure_orders"]


@dataclass(frozen=True)
class OrderComparison:
    """What each order reaches.

    Attributes:
        measured: one measurement for each order, the largest sparsity first.
        seconds: seconds of each measurement, by name of the order.
        refused: why an order cannot be used for this network, by its name.

    >>> from howsparse.limit.goal import Goal, Point
    >>> dense, half = Point(0.0, 0.30, 0.92), Point(0.5, 0.31, 0.92)
    >>> found = OrderComparison((Measured((dense, half), Goal(max_drop=0.01)),), {"magnitude": 0.1}, {})
    >>> found.best.order, found.best.sparsity
    ('magnitude', 0.5)
    """

    measured: tuple[Measured, ...]
    seconds: dict[str, float]
    refused: dict[str, str]

    @property
    def best(self) -> Measured:
        """The measurement with the largest sparsity."""
        return self.measured[0]


@alone
@guarded
def measure_orders(
    model: nn.Module,
    batches: Iterable[Any],
    orders: Sequence[str | Order | OrderFunction] = tuple(ORDERS),
    *,
    on_order: Callable[[str, Point], None] = lambda order, point: None,
    **options: Any,
) -> OrderComparison:
    """Measure several orders with the same goal, on the same data.

    The best of several orders is chosen on these data. So its score on other data is a little worse than measured here;
    `certify` on data that chose nothing.

    Args:
        model: any module; its weights are restored afterwards.
        batches: batches that can be read several times.
        orders: names, orders or functions; by default all of `ORDERS`.
        on_order: called with the name of an order and each point that is evaluated for it, for progress.
        **options: as for `measure`.

    Returns:
        The measurements with the largest sparsity first, and why orders were refused.

    Raises:
        InputError: as for `measure`; an order that does not fit the network is no error if another one does.

    >>> import torch
    >>> model = nn.Linear(2, 2, bias=False)
    >>> model.weight.data = torch.tensor([[4.0, 0.1], [0.1, 4.0]])
    >>> data = [(torch.eye(2), torch.tensor([0, 1]))]
    >>> measure_orders(model, data, ["magnitude", "layerwise"], max_drop=0.01).best.sparsity
    0.5
    """
    found: list[Measured] = []
    seconds: dict[str, float] = {}
    refused: dict[str, str] = {}
    for order in orders:
        name = order if isinstance(order, str) else getattr(order, "name", getattr(order, "__name__", "order"))
        began = time.perf_counter()
        try:
            found.append(measure(model, batches, order=order, on_point=partial(on_order, name), **options))
        except InputError as error:
            refused[name] = str(error)
            continue
        seconds[found[-1].order] = time.perf_counter() - began
    if not found:
        raise InputError(next(iter(refused.values()), "there is no order to measure; give at least one"))
    found.sort(key=lambda each: -each.sparsity)
    return OrderComparison(tuple(found), seconds, refused)
