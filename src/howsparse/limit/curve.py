"""`Curve`: the evaluated points of one order, and the search for the largest sparsity that meets a goal."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn

from howsparse.errors import InputError
from howsparse.limit.goal import Goal, Point
from howsparse.pruning.orders import Order
from howsparse.pruning.prune import pruned
from howsparse.risk.evaluate import evaluate
from howsparse.risk.losses import Loss
from howsparse.risk.metrics import Metric

__all__ = ["STEP", "Curve"]

STEP = 0.01  # first step away from the sparsity that the search on a part of the data found


class Curve:
    """The points of one order on some batches. Each sparsity is evaluated once."""

    def __init__(
        self,
        model: nn.Module,
        order: Order,
        batches: Iterable[Any],
        loss: Loss,
        metric: Metric | None,
        on_point: Callable[[Point], None] = lambda point: None,
    ) -> None:
        self._model, self._order, self._batches = model, order, batches
        self._loss, self._metric, self._on_point = loss, metric, on_point
        self._points: dict[float, Point] = {}

    def scan(self, sparsities: Sequence[float]) -> None:
        """Evaluate fixed sparsities."""
        for sparsity in (0.0, *sparsities):
            self._at(sparsity)

    def step_from(self, start: float, goal: Goal) -> None:
        """Evaluate ``start``, then go up while the goal is met, or down until it is met, with growing steps."""
        upwards = self.keeps(start, goal)
        for k in range(20):
            distance = STEP * 2**k
            next_ = self._snap(start + distance if upwards else start - distance)
            if next_ in (0.0, self._snap(1.0)) or self.keeps(next_, goal) != upwards:
                return

    def narrow(self, goal: Goal, precision: float) -> float:
        """Bisect between the largest sparsity that meets the goal and the next one evaluated; return the former."""
        low = max(s for s in self._points if self.keeps(s, goal))
        high = min((s for s in self._points if s > low), default=1.0)
        while high - low > precision:
            middle = self._snap((low + high) / 2)
            if middle in (low, high):
                break
            low, high = (middle, high) if self.keeps(middle, goal) else (low, middle)
        return low

    def sorted(self) -> tuple[Point, ...]:
        """All points in order of sparsity."""
        return tuple(self._points[s] for s in sorted(self._points))

    def keeps(self, sparsity: float, goal: Goal) -> bool:
        """Whether the network meets a goal at a sparsity."""
        return goal.keeps(self._at(0.0), self._at(sparsity))

    def _snap(self, sparsity: float) -> float:
        """The nearest sparsity of a whole number of weights; at least one weight stays."""
        weights = self._order.num_weights
        return 1 - min(max(round((1 - sparsity) * weights), 1), weights) / weights

    def _at(self, sparsity: float) -> Point:
        sparsity = self._snap(sparsity)
        if sparsity not in self._points:
            with pruned(self._model, self._order.mask(sparsity)):
                point = Point(sparsity, *evaluate(self._model, self._batches, self._loss, self._metric))
            if sparsity == 0 and not math.isfinite(point.loss):
                raise InputError(f"the loss of the dense network is {point.loss}; use a model that did not diverge")
            self._points[sparsity] = point
            self._on_point(point)
        return self._points[sparsity]
