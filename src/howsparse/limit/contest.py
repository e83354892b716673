"""A contest of orders and repairs: few pruned and repaired networks are made, to find the best combination."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from howsparse.errors import InputError
from howsparse.limit.bench import Bench
from howsparse.limit.goal import Point

__all__ = ["Trial", "choose", "race"]

_NEAR = 10  # near 1, the search stops at this part of the weights that stay


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
        """Bisect between a sparsity that meets the goal, or counts as if, and one that does not."""
        while failed - passed > _width(passed, precision):
            middle = self.bench.snap((passed + failed) / 2)
            if middle in (self.bench.snap(passed), self.bench.snap(failed)):
                return
            passed, failed = (middle, failed) if self.bench.keeps(self.at(middle)) else (passed, middle)

    def climb(self, passed: float, step: float, precision: float) -> None:
        """Go up in growing steps from a sparsity that meets the goal, until one does not; then bisect."""
        while True:
            above = self.bench.snap(min(passed + step, (1 + passed) / 2))
            if above == self.bench.snap(passed):
                return
            if not self.bench.keeps(self.at(above)):
                break
            passed, step = above, 2 * step
        self.follow(passed, above, precision)


def choose(bench: Bench, orders: Sequence[str], repairs: Sequence[str], sparsity: float) -> list[Trial]:
    """Try every order with the first repair that fits, and all repairs with the best order; the best trial is first.

    Args:
        bench: the contest.
        orders: names of orders.
        repairs: names of repairs.
        sparsity: where they are compared.

    Raises:
        InputError: nothing fits.
    """
    trials: list[Trial] = []

    def score(trial: Trial) -> float:
        return bench.score(trial.at(sparsity))

    for repair in repairs:
        for order in (max(trials, key=score).order,) if trials else orders:
            with bench.refusing(order, repair):
                trial = Trial(bench, order, repair, {0.0: bench.dense})
                trial.at(sparsity)
                trials.append(trial)
    if not trials:
        raise InputError(next(iter(bench.refused.values()), "there is nothing to try; give at least one order"))
    return sorted(trials, key=score, reverse=True)


def race(
    bench: Bench, orders: Sequence[str], repairs: Sequence[str], measured: float, start: float, precision: float
) -> list[Trial]:
    """Compare combinations at one sparsity, and follow those that may be the best to their largest sparsity.

    Args:
        bench: the contest, with a goal.
        orders: names of orders.
        repairs: names of repairs.
        measured: what is reached without a repair.
        start: the sparsity at which all are compared.
        precision: width at which the search stops.

    Returns:
        All trials.
    """
    trials = choose(bench, orders, repairs, start)
    leader = trials[0]
    with bench.refusing(leader.order, leader.repair):
        if bench.keeps(leader.at(start)):
            leader.climb(start, (1 - start) / 4, precision)
        else:
            leader.follow(measured, start, precision)
    reached = max(measured, leader.sparsity)
    for trial in trials[1:]:
        above = reached + _width(reached, precision)
        if bench.score(leader.at(start)) - bench.score(trial.at(start)) > bench.margin():
            continue
        with bench.refusing(trial.order, trial.repair):
            if above < 1 and bench.keeps(trial.at(above)):
                trial.climb(above, _width(above, precision), precision)
                reached = max(reached, trial.sparsity)
    return trials


def _width(sparsity: float, precision: float) -> float:
    return min(precision, (1 - sparsity) / _NEAR)
