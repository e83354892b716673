"""`measure`: evaluate pruned networks to find the largest sparsity that meets a goal."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.files import load_document, save_document
from howsparse.limit.curve import STEP, Curve
from howsparse.limit.goal import Goal, Point, goal_of
from howsparse.limit.views import Drawn
from howsparse.progress import Progress, reporting
from howsparse.pruning.orders import Order, OrderFunction, rank
from howsparse.risk.alone import alone
from howsparse.risk.batches import EveryNth, Pieces, batch_length
from howsparse.risk.fast import fast_convolutions
from howsparse.risk.guard import guarded_with_values
from howsparse.risk.losses import Loss, as_loss, cross_entropy
from howsparse.risk.metrics import Metric, as_metric
from howsparse.shown import Card

__all__ = ["FINE", "Measured", "Point", "measure", "measure_goals"]

_VERSION = 2
COARSE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
FINE = (
    *(0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85),
    *(0.9, 0.92, 0.94, 0.96, 0.97, 0.98, 0.99, 0.995, 0.998),
)
_PART, _PIECE = 8, 32  # the search begins on one piece of 32 examples in 8 ...
_LEAST_EXAMPLES = 1600  # ... if there are at least this many examples
_PASSES = 9  # evaluations of all data for one goal, for most networks


@dataclass(frozen=True)
class Measured(Drawn):
    """The largest sparsity that meets a goal, found by evaluating pruned networks, and all evaluated networks.

    Attributes:
        curve: the evaluated networks in order of sparsity; the first is the dense network.
        goal: what the pruned network must keep.
        order: name of the order in which weights were removed.
        metric: name of the metric; None if there is none.
        glance: networks that were evaluated on a part of the data only, to find where to look; the first is dense.

    >>> dense, half, most = Point(0.0, 0.30, 0.92), Point(0.5, 0.31, 0.92), Point(0.9, 0.60, 0.80)
    >>> found = Measured((dense, half, most), Goal(max_drop=0.01))
    >>> found.sparsity, found.within(Goal(tolerance=0.5))
    (0.5, 0.9)
    """

    curve: tuple[Point, ...]
    goal: Goal
    order: str = "magnitude"
    metric: str | None = "accuracy"
    glance: tuple[Point, ...] = ()

    def __repr__(self) -> str:
        return f"Measured(sparsity={self.sparsity:.4g}, goal='{self.goal.describe(self.metric)}', order='{self.order}')"

    def card(self) -> Card:
        """The measured sparsity, what it keeps, and how many networks were evaluated.

        Returns:
            The table. It prints as text, and a notebook shows it as HTML.
        """
        dense, pruned = self.dense, self.pruned
        rows = [("measured", f"{100 * self.sparsity:.1f} %"), ("while", self.goal.describe(self.metric))]
        if dense.accuracy is not None and pruned.accuracy is not None:
            rows.append((str(self.metric), f"{100 * dense.accuracy:.2f} % -> {100 * pruned.accuracy:.2f} %"))
        rows += [("loss", f"{dense.loss:.4g} -> {pruned.loss:.4g}"), ("order", self.order)]
        return Card("Measured sparsity", (*rows, ("evaluated", f"{len(self.curve)} networks")))

    @property
    def dense(self) -> Point:
        """The point of the network before pruning."""
        return self.curve[0]

    @property
    def sparsity(self) -> float:
        """The largest evaluated sparsity that meets the goal."""
        return self.within(self.goal)

    @property
    def sparsity_by_accuracy(self) -> float | None:
        """The largest evaluated sparsity whose metric is at least the dense network's; None without a metric."""
        return None if self.dense.accuracy is None else self.within(Goal(max_drop=0.0))

    @property
    def pruned(self) -> Point:
        """The point of the network at `sparsity`."""
        return next(point for point in self.curve if point.sparsity == self.sparsity)

    def within(self, goal: Goal) -> float:
        """The largest evaluated sparsity that meets another goal. It is coarse if the search was for a different goal.

        Args:
            goal: what the pruned network must keep.

        Returns:
            A fraction in [0, 1]; 0 if only the dense network meets the goal.
        """
        return max(point.sparsity for point in self.curve if goal.keeps(self.dense, point))

    def save(self, path: str | Path) -> None:
        """Write the curve to one safetensors file with a JSON header. An interrupted call leaves no partial file.

        Args:
            path: path of the file; an existing file is replaced.
        """
        fields = {
            "goal": asdict(self.goal),
            "order": self.order,
            "metric": self.metric,
            "curve": [asdict(point) for point in self.curve],
            "glance": [asdict(point) for point in self.glance],
        }
        save_document(path, "measured", _VERSION, fields, {})

    @classmethod
    def load(cls, path: str | Path) -> "Measured":
        """Read a file that `save` wrote.

        Args:
            path: path of the file that `save` wrote.

        Returns:
            The measurement that was saved.

        Raises:
            InputError: the file does not exist, has other contents, or is damaged.
        """
        fields, _ = load_document(path, "measured", _VERSION)
        curve, glance = (tuple(Point(**point) for point in fields.get(name, [])) for name in ("curve", "glance"))
        if "tolerance" in fields:  # written by version 1
            return cls(curve, Goal(tolerance=fields["tolerance"]))
        return cls(curve, Goal(**fields["goal"]), fields["order"], fields["metric"], glance)


@alone
def measure(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    max_drop: float | None = None,
    tolerance: float | None = None,
    max_rise: float | None = None,
    order: str | Order | OrderFunction = "magnitude",
    calibration: Iterable[Any] | None = None,
    loss: Loss = cross_entropy,
    metric: "str | Metric | Callable[[Tensor, Any], Tensor] | None" = None,
    names: Iterable[str] | None = None,
    scan: Sequence[float] | None = None,
    precision: float = 0.005,
    seed: int = 0,
    on_point: Callable[[Point], None] = lambda point: None,
    progress: Progress | bool | None = None,
) -> Measured:
    """Find the largest sparsity at which pruning without retraining keeps the metric or the loss.

    The search begins on an eighth of the data. All data are then evaluated near the sparsity that it finds, so the
    answer is exact for these data, and takes about eight passes over them. With fewer than 1,600 examples, or with
    ``scan``, the search begins with fixed sparsities on all data. If the curve crosses the goal several times, the
    answer is one crossing; with ``scan``, it is the one with the largest sparsity among those.

    Args:
        model: any module; its weights are restored afterwards, also if the call is interrupted.
        batches: batches that can be read several times.
        max_drop, tolerance, max_rise: the goal, as in `Goal`; by default ``max_drop=0.01``, one point of accuracy.
        order: which weights are removed first: a name in `howsparse.pruning.orders.ORDERS`, an `Order`, or a function.
        calibration: batches for an order that needs data; by default ``batches``.
        loss: as for `pruning_limit`.
        metric: "accuracy" (default), "top5", or a function of output and batch, as for `as_metric`.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        scan: sparsities to evaluate on all data first, for example `FINE`.
        precision: width at which bisection stops, in sparsity.
        seed: seed of an order that draws at random.
        on_point: called with each point that is evaluated on all data.
        progress: called as ``progress(stage, done, total)``; by default bars in a terminal and a notebook.

    Returns:
        The measured sparsity with all evaluated points.

    Raises:
        InputError: the model has no prunable weight, a name is unknown, the goal or the order is not valid, or the
            order does not fit the model, or the loss of the dense network is not finite.

    >>> import torch
    >>> model = nn.Linear(2, 2, bias=False)
    >>> model.weight.data = torch.tensor([[4.0, 0.1], [0.1, 4.0]])
    >>> measure(model, [(torch.eye(2), torch.tensor([0, 1]))], max_drop=0.01).sparsity
    0.5
    """
    scored = as_metric(metric, as_loss(loss, model))
    goal = goal_of(max_drop, tolerance, max_rise, has_metric=scored is not None)
    options: dict[str, Any] = {"order": order, "calibration": calibration, "names": names, "seed": seed}
    options |= {"scan": scan, "precision": precision, "on_point": on_point, "progress": progress}
    return measure_goals(model, batches, [goal], loss=loss, metric=scored, **options)[0]


@alone
@guarded_with_values
def measure_goals(
    model: nn.Module,
    batches: Iterable[Any],
    goals: Sequence[Goal],
    *,
    order: str | Order | OrderFunction = "magnitude",
    calibration: Iterable[Any] | None = None,
    loss: Loss = cross_entropy,
    metric: "str | Metric | Callable[[Tensor, Any], Tensor] | None" = None,
    names: Iterable[str] | None = None,
    scan: Sequence[float] | None = None,
    precision: float = 0.005,
    seed: int = 0,
    on_point: Callable[[Point], None] = lambda point: None,
    progress: Progress | bool | None = None,
) -> tuple[Measured, ...]:
    """`measure` for several goals. A sparsity that several of them ask for is evaluated once.

    Args:
        model, batches: as for `measure`.
        goals: what the pruned network must keep.
        order, calibration, loss, metric, names, scan, precision, seed, on_point, progress: as for `measure`.

    Returns:
        One measurement for each goal; all have the same curve.

    Raises:
        InputError: as for `measure`.

    >>> import torch
    >>> model = nn.Linear(2, 2, bias=False)
    >>> model.weight.data = torch.tensor([[4.0, 0.1], [0.1, 4.0]])
    >>> data = [(torch.eye(2), torch.tensor([0, 1]))]
    >>> [found.sparsity for found in measure_goals(model, data, [Goal(max_drop=0.01), Goal(max_drop=0.6)])]
    [0.5, 0.75]
    """
    if not precision > 0:
        raise InputError(f"precision {precision:g} is not positive; give the width at which the search stops")
    loss = as_loss(loss, model)
    scored = as_metric(metric, loss)
    data = batches if calibration is None else calibration
    ranked = rank(model, order, data, loss=loss, names=names, seed=seed)
    with fast_convolutions(model, batches, loss) as pieces, reporting(progress) as report:
        done = count(1)

        def told(point: Point) -> None:
            made = next(done)
            report("measuring", made, max(_PASSES * len(goals), made))
            on_point(point)

        whole, part = Curve(model, ranked, pieces, loss, scored, told), None
        if scan is None and sum(map(batch_length, batches)) >= _LEAST_EXAMPLES:
            part = Curve(model, ranked, EveryNth(Pieces(pieces, _PIECE), _PART), loss, scored)
            part.scan(COARSE)
        else:
            whole.scan(COARSE if scan is None else scan)
        for goal in goals:
            if part is not None:
                whole.step_from(part.narrow(goal, STEP), goal)
            whole.narrow(goal, precision)
    name, glance = None if scored is None else scored.name, () if part is None else part.sorted()
    return tuple(Measured(whole.sorted(), goal, ranked.name, name, glance) for goal in goals)
