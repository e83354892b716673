"""`Bench`: makes pruned and repaired networks of one network, and scores them on its data."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from howsparse.errors import InputError
from howsparse.limit.goal import Goal, Point
from howsparse.progress import Progress
from howsparse.pruning.masks import Mask
from howsparse.pruning.network import PrunedNetwork
from howsparse.pruning.orders import Order, OrderFunction, rank
from howsparse.pruning.repair import REPAIRS, continue_repair, prune_and_repair, start_of
from howsparse.risk.evaluate import evaluate
from howsparse.risk.fast import fast_convolutions
from howsparse.risk.losses import Loss, as_loss
from howsparse.risk.metrics import Metric, as_metric
from howsparse.risk.spread import spread
from howsparse.risk.weights import select_weights
from howsparse.store import digest

__all__ = ["Bench", "bench_of"]

_STARTS = {start for start in map(start_of, REPAIRS) if start is not None}
_CLEARLY = 2.0  # a combination that is worse than the best by so many times what may be lost is clearly worse


@dataclass
class Bench:
    """A network, and the data of a contest.

    Attributes:
        model: the network; it is not changed.
        batches: batches to evaluate on.
        calibration: examples for repairs and orders.
        loss: ``loss(model, batch)``.
        metric: what is scored; None if there is none.
        names: names of the weights to prune.
        seed: seed of orders that draw at random.
        goal: what a pruned network must keep; None if the best at one sparsity is wanted.
        on_point: called with order, repair and point.
        on_follow: called before a combination is followed, with order, repair, time of one of its networks, and the
            usual number of networks.
        progress: called with the stage, and the done and the expected number of its networks.
        refused: why a combination cannot be used, by "order, repair".
        prices: time of one network by repair, in seconds, with its evaluation.
        best: sparsity and score of the best network that was made by a repair.
        kept: networks of the same order and repair as the best one that meet the goal, by their sparsity.
    """

    model: nn.Module
    batches: Iterable[Any]
    calibration: list[Any]
    loss: Loss
    metric: Metric | None
    names: list[str]
    seed: int
    goal: Goal | None
    on_point: Callable[[str, str, Point], None]
    progress: Progress
    on_follow: Callable[[str, str, float, int], None] = lambda order, repair, seconds, networks: None
    refused: dict[str, str] = field(default_factory=dict)
    prices: dict[str, float] = field(default_factory=dict)
    best: tuple[float, float] = (0.0, -math.inf)
    kept: dict[float, PrunedNetwork] = field(default_factory=dict)
    _stage: tuple[str, int] = ("measuring", 1)
    _done: int = 0
    _starts: dict[str, PrunedNetwork] = field(default_factory=dict)
    _orders: dict[str, OrderFunction] = field(default_factory=dict)
    _dense: Point | None = None

    @property
    def dense(self) -> Point:
        """The point of the network before pruning."""
        if self._dense is None:
            self._dense = self._point(self.model, 0.0)
        return self._dense

    def order(self, name: str) -> OrderFunction:
        """The order of this name. It is made once for the weights of the dense network."""
        return self._orders.setdefault(name, _made_once(name))

    def make(self, order: str, repair: str, sparsity: float) -> PrunedNetwork:
        """The network of an order and a repair at the nearest possible sparsity. The same call gives the same network.

        Raises:
            InputError: the order or the repair does not fit the network.
        """
        return self.made(order, repair, sparsity)[0]

    def made(self, order: str, repair: str, sparsity: float) -> tuple[PrunedNetwork, Point]:
        """`make`, and the network's point on the batches."""
        changed, began, going_on = copy.deepcopy(self.model), time.perf_counter(), self._start(order, repair, sparsity)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            mask = self._repair(changed, order, repair, self.snap(sparsity))
            network, point = PrunedNetwork.of(changed, mask, order, repair), self._point(changed, mask.sparsity)
        if repair in _STARTS:
            self._starts[repair] = network
        seconds = time.perf_counter() - began
        self.prices[repair] = seconds + (0.0 if going_on is None else self.prices[going_on.repair])
        return network, point

    def _start(self, order: str, repair: str, sparsity: float) -> PrunedNetwork | None:
        """The network from which a repair can continue, if its start made this network last."""
        start = self._starts.get(start_of(repair) or "")
        same = start is not None and (start.order, start.sparsity) == (order, self.snap(sparsity))
        return start if same else None

    def _repair(self, changed: nn.Module, order: str, repair: str, sparsity: float) -> Mask:
        """Prune and repair a copy of the model."""
        start = self._start(order, repair, sparsity)
        if start is not None:
            start.apply_(changed)
            continue_repair(changed, start.mask, self.calibration, repair=repair, dense=self.model, loss=self.loss)
            return start.mask
        options: dict[str, Any] = {"order": self.order(order), "names": self.names, "loss": self.loss}
        return prune_and_repair(changed, sparsity, self.calibration, repair=repair, seed=self.seed, **options)

    def keep(self, network: PrunedNetwork, rank: tuple[float, float]) -> None:
        """Keep a network that meets the goal, if its order and repair are the best so far. Few networks stay in memory.

        Args:
            network: a new network.
            rank: sparsity and score of its order and repair, now.
        """
        same = any((each.order, each.repair) == (network.order, network.repair) for each in self.kept.values())
        if not same and rank <= self.best:
            return
        self.best = max(self.best, rank)
        self.kept = (self.kept if same else {}) | {network.sparsity: network}

    def begin(self, stage: str, networks: int) -> None:
        """Begin a stage of the progress that makes about this number of networks."""
        self._stage, self._done = (f"measuring {stage}", networks), 0

    def tell(self, order: str, repair: str, point: Point) -> None:
        """Report a point."""
        self._done += 1
        stage, expected = self._stage
        self.progress(stage, self._done, max(expected, self._done))
        self.on_point(order, repair, point)

    @contextmanager
    def refusing(self, order: str, repair: str) -> Iterator[None]:
        """In this context, an `InputError` is noted as the reason why a combination cannot be used."""
        try:
            yield
        except InputError as error:
            self.refused[f"{order}, {repair}"] = str(error)

    def keeps(self, point: Point) -> bool:
        """Whether a point meets the goal; True if there is no goal."""
        return self.goal is None or self.goal.keeps(self.dense, point)

    def spent(self, point: Point) -> float:
        """The lost part of the allowed loss: at most 1 if the goal is met; infinite if nothing may be lost."""
        assert self.goal is not None
        if self.goal.max_drop is not None:
            assert self.dense.accuracy is not None
            assert point.accuracy is not None
            lost = self.dense.accuracy - point.accuracy
        else:
            lost = point.loss - self.dense.loss
        lost, allowed = math.inf if math.isnan(lost) else lost, self._allowed()
        return lost / allowed if allowed > 0 else (math.inf if lost > 0 else 0.0)

    def score(self, point: Point) -> float:
        """The number that the contest compares: the metric, or minus the loss for a goal of the loss."""
        by_metric = point.accuracy is not None and (self.goal is None or self.goal.max_drop is not None)
        score = point.accuracy if by_metric and point.accuracy is not None else -point.loss
        return -math.inf if math.isnan(score) else score

    def margin(self) -> float:
        """A combination is clearly worse if its score is below the best one by more than this."""
        return _CLEARLY * self._allowed()

    def _allowed(self) -> float:
        """The allowed drop of the metric, or the allowed rise of the loss."""
        assert self.goal is not None
        if self.goal.max_rise is not None:
            return self.goal.max_rise * self.dense.loss
        return self.goal.max_drop or self.goal.tolerance or 0.0

    def snap(self, sparsity: float) -> float:
        """The nearest sparsity of a whole number of weights; at least one weight stays."""
        weights = select_weights(self.model, self.names).values()
        count = sum(weight.numel() for weight in weights)
        return 1 - min(max(round((1 - sparsity) * count), 1), count) / count

    def _point(self, model: nn.Module, sparsity: float) -> Point:
        with fast_convolutions(model, self.batches, self.loss) as pieces:
            return Point(sparsity, *evaluate(model, pieces, self.loss, self.metric))


def bench_of(
    model: nn.Module,
    batches: Iterable[Any],
    calibration: Iterable[Any],
    examples: int,
    loss: Loss,
    metric: Any,
    names: Iterable[str] | None,
    seed: int,
    on_point: Callable[[str, str, Point], None],
    progress: Progress,
) -> Bench:
    """A bench without a goal.

    Args:
        model, batches, loss, metric, names, seed: as for `measure`.
        calibration: batches that can be read several times.
        examples: number of calibration examples to use, at equal distances.
        on_point, progress: as in `Bench`.

    Raises:
        InputError: there are no calibration examples, or an argument is not valid.
    """
    if examples < 1:
        raise InputError(f"examples {examples} is not positive; give the number of calibration examples")
    loss = as_loss(loss, model)
    chosen, given = list(select_weights(model, names)), spread(calibration, examples)
    if not given:
        raise InputError("there are no calibration examples; pass batches, of a few hundred to a few thousand examples")
    return Bench(model, batches, given, loss, as_metric(metric, loss), chosen, seed, None, on_point, progress)


def _made_once(name: str) -> OrderFunction:
    """An order that is made once for the weights of the first call. For other weights, as in rounds, it is new."""
    known: dict[str, Order] = {}

    def order(
        model: nn.Module, batches: Iterable[Any] | None, *, loss: Loss, names: Iterable[str] | None, seed: int
    ) -> Order:
        chosen = None if names is None else list(names)
        key = digest(dict(select_weights(model, chosen)))
        if key in known:
            return known[key]
        made = rank(model, name, batches, loss=loss, names=chosen, seed=seed)
        if not known:
            known[key] = made
        return made

    return order
