"""`measure_repaired`: how many weights can go if the others are repaired, over several orders and repairs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.limit.bench import Bench, bench_of
from howsparse.limit.contest import Trial, choose, race, without_repair
from howsparse.limit.goal import Goal, Point, goal_of
from howsparse.progress import Progress, reporting
from howsparse.pruning.masks import check_sparsity
from howsparse.pruning.network import PrunedNetwork
from howsparse.pruning.orders import ORDERS
from howsparse.pruning.repair import REPAIRS
from howsparse.risk.alone import alone_with
from howsparse.risk.guard import guarded
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.risk.metrics import Metric

__all__ = ["AUTO_ORDERS", "EXAMPLES", "Combination", "Repaired", "compare_repairs", "measure_repaired", "repairs_named"]

AUTO_ORDERS = ("magnitude", "layerwise", "erk", "wanda", "wanda-row")  # they cost at most one pass over the examples
EXAMPLES = 1000  # calibration examples, by default
_FIRST = "layers"  # of the repairs that "auto" tries: much better than none, and quick
_NOT_AUTO = ("none", _FIRST, "global")  # after layers or rounds, the global step is always much better than alone


@dataclass(frozen=True)
class Combination:
    """What one order with one repair reaches.

    Attributes:
        order: name of the order.
        repair: name of the repair.
        sparsity: the largest evaluated sparsity that meets the goal; 0.0 if none does.
        points: the evaluated networks in order of sparsity; the first is the dense network.
        seconds: time of these repairs and evaluations.
    """

    order: str
    repair: str
    sparsity: float
    points: tuple[Point, ...]
    seconds: float

    @property
    def pruned(self) -> Point:
        """The point of the network at `sparsity`."""
        return next(point for point in self.points if point.sparsity == self.sparsity)

    def at(self, sparsity: float) -> Point | None:
        """The point at a sparsity; None if it was not evaluated."""
        return next((point for point in self.points if point.sparsity == sparsity), None)


@dataclass(frozen=True, eq=False)
class Repaired:
    """The best order and repair, the network that they give, and what all combinations reach.

    Attributes:
        combinations: what was tried, the best one first.
        refused: why a combination cannot be used for this network, by "order, repair".
        goal: what the pruned network must keep; None if the sparsity was given.
        metric: name of the metric; None if there is none.
        compared_at: sparsities at which orders, and then repairs, were compared; empty if only "none" was tried.
        network: the best network, after its repair.
        make: makes the network of the same order and repair at another sparsity; the same sparsity, the same bits.
        kept: networks of this order and repair that were made by the search and meet the goal, by their sparsity.

    >>> import torch
    >>> model, inputs = nn.Linear(8, 2), torch.randn(300, 8)
    >>> data = [(inputs, model(inputs).argmax(1))]
    >>> found = compare_repairs(model, data, 0.5, calibration=data, orders=["magnitude"], repairs=["layers"])
    >>> found.best.order, found.best.repair
    ('magnitude', 'layers')
    """

    combinations: tuple[Combination, ...]
    refused: dict[str, str]
    goal: Goal | None
    metric: str | None
    compared_at: tuple[float, ...]
    network: PrunedNetwork = field(repr=False)
    make: Callable[[float], PrunedNetwork] = field(repr=False)
    kept: dict[float, PrunedNetwork] = field(repr=False)

    @property
    def best(self) -> Combination:
        """The combination of `network`."""
        return self.combinations[0]

    @property
    def dense(self) -> Point:
        """The point of the network before pruning."""
        return self.best.points[0]

    @property
    def sparsity(self) -> float:
        """The sparsity of `network`."""
        return self.best.sparsity


@guarded
def measure_repaired(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    calibration: Iterable[Any],
    max_drop: float | None = None,
    tolerance: float | None = None,
    max_rise: float | None = None,
    orders: Sequence[str] = AUTO_ORDERS,
    repairs: str | Sequence[str] = "auto",
    examples: int = EXAMPLES,
    loss: Loss = cross_entropy,
    metric: "str | Metric | Callable[[Tensor, Any], Tensor] | None" = None,
    names: Iterable[str] | None = None,
    precision: float = 0.01,
    seed: int = 0,
    on_point: Callable[[str, str, Point], None] = lambda order, repair, point: None,
    on_follow: Callable[[str, str, float, int], None] = lambda order, repair, seconds, networks: None,
    progress: Progress | bool | None = None,
) -> Repaired:
    """Find the largest sparsity that meets a goal after a repair, and the order and repair that reach it.

    1. The first order that fits is measured without a repair, as `measure` does it.
    2. Halfway from this sparsity to 1, all orders are compared, each with the first repair that fits ("layers" for
       "auto"). The best order is followed to its largest sparsity. Every other order is tried once just above this
       sparsity, unless it was worse by more than twice the allowed loss. If it meets the goal there, it is followed.
    3. At the smallest sparsity at which the best order fails, each other repair is tried once, with this order only. A
       repair that continues another one ("rounds+global" continues "rounds") is tried only for the best of those.
    4. For each repair that meets the goal there, its largest sparsity is estimated from its loss there, and from the
       growth of the loss of the best combination so far. The repair with the highest estimate is followed. If several
       estimates are equal within the precision, it is the quickest repair by measured time. Another repair is tried
       just above the sparsity that was reached, if its estimate is above it.

    So most pairs of an order and a repair are never tried, and one of them could be better: another order with a slow
    repair, or a repair that is worse in step 3 and better above. Following interpolates between networks. If the score
    crosses the goal several times, it finds one crossing. "auto" leaves out "none" and "global" alone.
    `certify_repaired` corrects for the choice of the best.

    Args:
        model: any module; it is not changed.
        batches, loss, metric, names, seed, progress: as for `measure`.
        calibration: batches for the repairs, and for orders that need data; other data than ``batches``.
        max_drop, tolerance, max_rise: the goal, as for `measure`.
        orders: names of orders.
        repairs: names in `howsparse.pruning.repair.REPAIRS`, the quick ones first, or "auto".
        examples: number of calibration examples to use, at equal distances.
        precision: width at which the search stops, in sparsity; near 1 it is smaller.
        on_point: called with the names of order and repair, and each point.
        on_follow: called before a combination is followed, with the names of order and repair, the time of one of its
            networks in seconds, and the number of networks that it usually takes.

    Returns:
        The combinations with the largest sparsity first, and the network of the best one.

    Raises:
        InputError: as for `measure`; a name is unknown, there are no calibration examples, or nothing fits the network.

    >>> import torch
    >>> model, inputs = nn.Linear(8, 2), torch.randn(300, 8)
    >>> data = [(inputs, model(inputs).argmax(1))]
    >>> found = measure_repaired(model, data, calibration=data, max_drop=0.02, orders=["magnitude"], repairs=["layers"])
    >>> len(found.combinations), found.network.sparsity == found.sparsity
    (2, True)
    """
    tried = _named(orders, repairs)
    if not precision > 0:
        raise InputError(f"precision {precision:g} is not positive; give the width at which the search stops")
    goals = {"max_drop": max_drop, "tolerance": tolerance, "max_rise": max_rise}
    with alone_with(model), reporting(progress) as report:
        bench = bench_of(model, batches, calibration, examples, loss, metric, names, seed, on_point, report)
        bench.on_follow = on_follow
        bench.goal = goal_of(**goals, has_metric=bench.metric is not None)
        plain = without_repair(bench, orders, tried == ("none",), min(precision, 0.005))
        changing = [name for name in tried if name != "none"]
        measured, start = plain[0].sparsity, (1 + plain[0].sparsity) / 2
        trials, compared_at = race(bench, orders, changing, measured, start, precision) if changing else ([], ())
        return _result(bench, [*plain, *trials], compared_at)


@guarded
def compare_repairs(
    model: nn.Module,
    batches: Iterable[Any],
    sparsity: float,
    *,
    calibration: Iterable[Any],
    orders: Sequence[str] = AUTO_ORDERS,
    repairs: str | Sequence[str] = "auto",
    examples: int = EXAMPLES,
    loss: Loss = cross_entropy,
    metric: "str | Metric | Callable[[Tensor, Any], Tensor] | None" = None,
    names: Iterable[str] | None = None,
    seed: int = 0,
    on_point: Callable[[str, str, Point], None] = lambda order, repair, point: None,
    progress: Progress | bool | None = None,
) -> Repaired:
    """Prune to one sparsity with several orders and repairs, and take the network with the best metric (or loss).

    Every order is tried with the first repair that fits, and the other repairs with the order that was best. A repair
    that continues another one ("rounds+global" continues "rounds") is tried only for the best of those.

    Args:
        model, batches, calibration, orders, repairs, examples, loss, metric, names, seed, on_point, progress: as for
            `measure_repaired`.
        sparsity: fraction of the weights to remove, in [0, 1).

    Returns:
        The combinations with the best network first, and this network.

    Raises:
        InputError: as for `measure_repaired`, or the sparsity is outside [0, 1).

    >>> import torch
    >>> model, inputs = nn.Linear(8, 2), torch.randn(300, 8)
    >>> data = [(inputs, model(inputs).argmax(1))]
    >>> compare_repairs(model, data, 0.5, calibration=data, orders=["magnitude"], repairs=["layers"]).network.sparsity
    0.5
    """
    tried = _named(orders, repairs)
    sparsity = check_sparsity(sparsity)
    with alone_with(model), reporting(progress) as report:
        bench = bench_of(model, batches, calibration, examples, loss, metric, names, seed, on_point, report)
        trials = choose(bench, orders, tried, sparsity)
    return _result(bench, trials, (bench.snap(sparsity),))


def repairs_named(repairs: str | Sequence[str]) -> tuple[str, ...]:
    """The names of the repairs to try.

    Args:
        repairs: names, one name, or "auto".

    Raises:
        InputError: a name is unknown, or there is none.

    >>> repairs_named("layers"), repairs_named("auto")[0]
    (('layers',), 'layers')
    """
    if repairs == "auto":
        return _FIRST, *(name for name in REPAIRS if name not in _NOT_AUTO)
    names = (repairs,) if isinstance(repairs, str) else tuple(repairs)
    unknown = next((name for name in names if name not in REPAIRS), None)
    if unknown is not None or not names:
        raise InputError(f"repair '{unknown or ''}' is not known; use one of {', '.join(REPAIRS)}, or auto")
    return names


def _named(orders: Sequence[str], repairs: str | Sequence[str]) -> tuple[str, ...]:
    """The names of the repairs, after those of the orders were checked."""
    unknown = next((name for name in orders if name not in ORDERS), None)
    if unknown is not None or not orders:
        raise InputError(f"order '{unknown or ''}' is not known; use one of {', '.join(ORDERS)}")
    return repairs_named(repairs)


def _result(bench: Bench, trials: list[Trial], compared_at: tuple[float, ...]) -> Repaired:
    """The table of all trials, and the network of the best one."""
    ranked = sorted(trials, key=lambda trial: trial.rank, reverse=True)
    best = ranked[0]
    make = partial(bench.make, best.order, best.repair)
    kept = {s: each for s, each in bench.kept.items() if (each.order, each.repair) == (best.order, best.repair)}
    network = kept[best.sparsity] if best.sparsity in kept else make(best.sparsity)
    metric = bench.metric.name if bench.metric else None
    table = tuple(
        Combination(t.order, t.repair, t.sparsity, tuple(t.points[s] for s in sorted(t.points)), round(t.seconds, 3))
        for t in ranked
    )
    return Repaired(table, dict(bench.refused), bench.goal, metric, compared_at, network, make, kept)
