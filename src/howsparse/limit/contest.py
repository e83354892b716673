"""A contest of orders and repairs: few pruned and repaired networks are made, to find the best combination."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

from howsparse.errors import InputError
from howsparse.limit.bench import Bench
from howsparse.limit.goal import Point
from howsparse.limit.measure import measure
from howsparse.pruning.repair import start_of

__all__ = ["Trial", "choose", "race", "without_repair"]

_EVALUATIONS = 15  # of one order without a repair
_NEAR = 10  # near 1, the search stops at this part of the weights that stay
_SHORT = 0.9  # of the width at which the search stops: a step that ends it, also after rounding to whole weights
_FOLLOWED = 5  # networks that it usually takes to follow a combination
# Of what may be lost. A smaller or larger part that is lost says little about where all of it is lost.
_LITTLE, _MUCH = 1 / 8, 8.0


@dataclass
class Trial:
    """One order with one repair.

    Attributes:
        bench: the contest.
        order: name of the order.
        repair: name of the repair.
        points: the evaluated networks by their sparsity, with the dense one.
        seconds: time of these repairs and evaluations.
    """

    bench: Bench
    order: str
    repair: str
    points: dict[float, Point]
    seconds: float = 0.0

    @property
    def sparsity(self) -> float:
        """The largest evaluated sparsity that meets the goal."""
        return max(s for s, point in self.points.items() if s == 0 or self.bench.keeps(point))

    @property
    def rank(self) -> tuple[float, float]:
        """Sparsity, and score there: the larger, the better."""
        return self.sparsity, self.bench.score(self.points[self.sparsity])

    def at(self, sparsity: float) -> Point:
        """The point at a sparsity. Each network is made once; the best one of the contest is kept."""
        sparsity = self.bench.snap(sparsity)
        if sparsity not in self.points:
            began = time.perf_counter()
            network, point = self.bench.made(self.order, self.repair, sparsity)
            self.points[sparsity] = point
            self.seconds += time.perf_counter() - began
            if self.bench.keeps(point):
                self.bench.keep(network, self.rank)
            self.bench.tell(self.order, self.repair, point)
        return self.points[sparsity]

    def follow(self, passed: float, failed: float, precision: float) -> None:
        """Narrow the range between a sparsity that meets the goal, or is taken to meet it, and one that does not.

        The logarithm of the lost part grows nearly linearly with the sparsity, so the goal's edge is interpolated. In
        case it does not, every third network is in the middle of the range.
        """
        for turn in count(1):
            width = _width(passed, precision)
            if failed - passed <= width:
                return
            middle, ends = self.bench.snap((passed + failed) / 2), {self.bench.snap(passed), self.bench.snap(failed)}
            at = middle if turn % 3 == 0 else self.bench.snap(self._beside_edge(passed, failed, width))
            at = middle if at in ends else at
            if at in ends:
                return
            passed, failed = (at, failed) if self.bench.keeps(self.at(at)) else (passed, at)

    def climb(self, passed: float, step: float, precision: float) -> None:
        """Go up from a sparsity that meets the goal until one does not, with growing steps; then narrow the range."""
        while True:
            step = max(step, _SHORT * _width(passed, precision))
            above = self.bench.snap(min(passed + step, (1 + passed) / 2))
            if above == self.bench.snap(passed):
                return
            if not self.bench.keeps(self.at(above)):
                break
            passed, step = above, min(2 * step, self.step_to_edge(above, self.slope(), precision) or 2 * step)
        self.follow(passed, above, precision)

    def step_to_edge(self, passed: float, slope: float | None, precision: float) -> float | None:
        """The step from a sparsity that meets the goal to a little above the goal's edge; None without a slope."""
        return None if slope is None else _width(passed, precision) / 2 - self._spent(passed) / slope

    def slope(self) -> float | None:
        """Growth of the logarithm of the lost part with the sparsity; None if there are too few points."""
        near = [s for s in sorted(self.points) if _LITTLE < self.bench.spent(self.points[s]) < _MUCH]
        rise = self._spent(near[-1]) - self._spent(near[0]) if near else 0.0
        return rise / (near[-1] - near[0]) if rise > 0 else None

    def _beside_edge(self, passed: float, failed: float, width: float) -> float:
        """The next sparsity: beside the interpolated edge of the goal, on the side that can end the search."""
        low, high = self._spent(passed), self._spent(failed)
        edge = passed + (failed - passed) * (-low / (high - low) if high > low else 0.5)
        if edge - passed < width:
            return passed + _SHORT * width
        return failed - _SHORT * width if failed - edge < width else edge - width / 2

    def _spent(self, sparsity: float) -> float:
        """The logarithm of the lost part of the allowed loss: 0 at the goal's edge."""
        point = self.points.get(self.bench.snap(sparsity))
        return math.log(_LITTLE if point is None else min(max(self.bench.spent(point), _LITTLE), _MUCH))


def choose(bench: Bench, orders: Sequence[str], repairs: Sequence[str], sparsity: float) -> list[Trial]:
    """Try every order with the first repair that fits, and the other repairs with the best order.

    Args:
        bench: the contest.
        orders: names of orders.
        repairs: names of repairs.
        sparsity: the sparsity at which they are compared.

    Returns:
        All trials, the best one first.

    Raises:
        InputError: nothing fits.
    """
    trials, others = _try_orders(bench, orders, repairs, sparsity)
    return sorted([*trials, *_try_repairs(trials[0], others, sparsity)], key=_by_score(bench, sparsity), reverse=True)


def race(
    bench: Bench, orders: Sequence[str], repairs: Sequence[str], measured: float, start: float, precision: float
) -> tuple[list[Trial], tuple[float, ...]]:
    """Find the order and repair that meet the goal up to the largest sparsity, as `measure_repaired` describes it.

    Args:
        bench: the contest, with a goal.
        orders: names of orders.
        repairs: names of repairs, the quick ones first.
        measured: what is reached without a repair.
        start: the sparsity at which the orders are compared.
        precision: width at which the search stops.

    Returns:
        All trials, and the sparsities at which they were compared.
    """
    trials, others = _try_orders(bench, orders, repairs, start)
    leader = trials[0]
    _announce(leader)
    with bench.refusing(leader.order, leader.repair):
        if bench.keeps(leader.at(start)):
            leader.climb(start, (1 - start) / 4, precision)
        else:
            leader.follow(measured, start, precision)
    reached = max(measured, leader.sparsity)
    for trial in trials[1:]:
        reached = _challenge(trial, leader, start, reached, precision)
    best = max(trials, key=lambda trial: trial.rank)
    at = min((s for s in best.points if s > reached), default=None)
    if at is None or not others:
        return trials, (bench.snap(start),)
    found = _try_repairs(best, others, at)
    _follow_best([trial for trial in found if bench.keeps(trial.at(at))], at, best.slope(), precision)
    return [*trials, *found], (bench.snap(start), at)


def _follow_best(better: list[Trial], at: float, slope: float | None, precision: float) -> None:
    """Follow the trial with the highest expected end, or the quickest of those whose ends are within one width of it.

    Args:
        better: trials that meet the goal at one sparsity, which is above all that was reached.
        at: this sparsity.
        slope: slope of the best trial so far, from which the ends are estimated.
        precision: width at which the search stops.
    """
    ends = [at + (trial.step_to_edge(at, slope, precision) or 0.0) for trial in better]
    if not better:
        return
    price, width = better[0].bench.prices, _width(at, precision)
    near = [(trial, end) for trial, end in zip(better, ends, strict=True) if end >= max(ends) - width]
    first, end = min(near, key=lambda each: price[each[0].repair])
    if any(trial.bench.spent(trial.at(at)) < _LITTLE for trial, _ in near):  # then their ends are not known so well
        first, end = max(near, key=lambda each: each[0].bench.score(each[0].at(at)))
    _announce(first)
    with first.bench.refusing(first.order, first.repair):
        first.climb(at, end - at, precision)
    reached = first.sparsity
    for trial, end in zip(better, ends, strict=True):
        above = reached + _width(reached, precision)
        if trial is not first and end >= above and above < 1:
            reached = _try_above(trial, above, reached, precision)


def _try_orders(
    bench: Bench, orders: Sequence[str], repairs: Sequence[str], sparsity: float
) -> tuple[list[Trial], Sequence[str]]:
    """Every order with the first repair that fits, the best one first, and the repairs that were not tried."""
    for tried, repair in enumerate(repairs, 1):
        bench.begin(f"orders with {repair}", len(orders))
        trials = [trial for order in orders if (trial := _tried(bench, order, repair, sparsity)) is not None]
        if trials:
            return sorted(trials, key=_by_score(bench, sparsity), reverse=True), repairs[tried:]
    raise InputError(next(iter(bench.refused.values()), "there is nothing to try; give at least one order"))


def _try_repairs(known: Trial, repairs: Sequence[str], sparsity: float) -> list[Trial]:
    """Other repairs with the order of a known trial. A repair that continues others is tried for the best one."""
    bench, named = known.bench, {known.repair, *repairs}
    alone = [repair for repair in repairs if start_of(repair) not in named]
    bench.begin("repairs", len(alone) + (len(alone) < len(repairs)))
    found = [known, *(_tried(bench, known.order, repair, sparsity) for repair in alone)]
    begun = {start_of(repair) for repair in repairs}
    starts = [trial for trial in found if trial is not None and trial.repair in begun]
    best = max(starts, key=_by_score(bench, sparsity)).repair if starts else None
    longer = [repair for repair in repairs if repair not in alone and start_of(repair) == best]
    found += [_tried(bench, known.order, repair, sparsity) for repair in longer]
    return [trial for trial in found[1:] if trial is not None]


def _tried(bench: Bench, order: str, repair: str, sparsity: float) -> Trial | None:
    """A trial with one network; None if the order or the repair does not fit."""
    trial = Trial(bench, order, repair, {0.0: bench.dense})
    with bench.refusing(order, repair):
        trial.at(sparsity)
        return trial
    return None


def _challenge(trial: Trial, best: Trial, at: float, reached: float, precision: float) -> float:
    """Try a trial above what was reached, unless it was clearly worse than the best; return what is reached then."""
    bench, above = trial.bench, reached + _width(reached, precision)
    behind = bench.score(best.at(at)) - bench.score(trial.at(at))
    return _try_above(trial, above, reached, precision) if above < 1 and behind <= bench.margin() else reached


def _try_above(trial: Trial, above: float, reached: float, precision: float) -> float:
    """Try a trial above what was reached, and follow it if it meets the goal there; return what is reached then."""
    with trial.bench.refusing(trial.order, trial.repair):
        if trial.bench.keeps(trial.at(above)):
            trial.climb(above, 0.0, precision)
    return max(reached, trial.sparsity)


def _announce(trial: Trial) -> None:
    """Say that a combination will be followed."""
    bench = trial.bench
    bench.begin(f"{trial.order}, {trial.repair}", _FOLLOWED)
    bench.on_follow(trial.order, trial.repair, bench.prices[trial.repair], _FOLLOWED)


def _by_score(bench: Bench, sparsity: float) -> Callable[[Trial], float]:
    return lambda trial: bench.score(trial.at(sparsity))


def _width(sparsity: float, precision: float) -> float:
    return min(precision, (1 - sparsity) / _NEAR)


def without_repair(bench: Bench, orders: Sequence[str], every: bool, precision: float) -> list[Trial]:
    """Every order, or the first one that fits, measured without a repair.

    Raises:
        InputError: none fits.
    """
    assert bench.goal is not None
    found: list[Trial] = []
    for order in orders:
        began = time.perf_counter()
        bench.begin("without a repair", _EVALUATIONS)
        with bench.refusing(order, "none"):
            measured = measure(
                bench.model,
                bench.batches,
                **vars(bench.goal),
                order=bench.order(order),
                calibration=bench.calibration,
                loss=bench.loss,
                metric=bench.metric,
                names=bench.names,
                precision=precision,
                seed=bench.seed,
                on_point=partial(bench.tell, order, "none"),
                progress=False,
            )
            points = {point.sparsity: point for point in measured.curve}
            found.append(Trial(bench, order, "none", points, time.perf_counter() - began))
        if found and not every:
            break
    if not found:
        raise InputError(next(iter(bench.refused.values()), "there is no order to try; give at least one"))
    return found
