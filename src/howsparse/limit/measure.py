"""`measure`: evaluate pruned networks to find the sparsity that magnitude pruning reaches."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from howsparse.errors import InputError
from howsparse.files import load_document, save_document
from howsparse.pruning.masks import magnitude_masks
from howsparse.pruning.prune import pruned
from howsparse.risk.evaluate import evaluate
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.risk.weights import select_weights
from howsparse.shown import Card, Shown

__all__ = [
    "Measured",
    "Point",
    "measure",
]


_VERSION = 1
_FIRST_LOOK = (
    *(0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85),
    *(0.9, 0.92, 0.94, 0.96, 0.97, 0.98, 0.99, 0.995, 0.998),
)


@dataclass(frozen=True)
class Point:
    """Mean loss and accuracy of one pruned network.

    Attributes:
        sparsity: fraction of the weights removed.
        loss: mean loss over all examples.
        accuracy: fraction of correct predictions; None if the loss has no ``score``.
    """

    sparsity: float
    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Measured(Shown):
    """The measured curve and its thresholds.

    Attributes:
        curve: all evaluated networks in order of sparsity; the first is the dense network.
        tolerance: allowed loss increase.
        sparsity: largest evaluated sparsity whose loss is at most the dense network's loss plus the tolerance.
        sparsity_by_accuracy: largest evaluated sparsity whose accuracy is at least the dense network's; None if the
            loss has no ``score``.
    """

    curve: tuple[Point, ...]
    tolerance: float

    def __repr__(self) -> str:
        return f"Measured(sparsity={self.sparsity:.4g}, tolerance={self.tolerance:.4g}, points={len(self.curve)})"

    def card(self) -> Card:
        """The thresholds, and how many networks were evaluated."""
        rows = [("keeps the loss", f"{100 * self.sparsity:.1f} %")]
        if self.sparsity_by_accuracy is not None:
            rows.append(("keeps the accuracy", f"{100 * self.sparsity_by_accuracy:.1f} %"))
        rows += [("tolerance", f"{self.tolerance:.4g}"), ("evaluated", f"{len(self.curve)} networks")]
        return Card("Measured sparsity", tuple(rows))

    @property
    def dense(self) -> Point:
        """The point of the network before pruning."""
        return self.curve[0]

    @property
    def sparsity(self) -> float:
        return max(p.sparsity for p in self.curve if p.loss <= self.dense.loss + self.tolerance)

    @property
    def sparsity_by_accuracy(self) -> float | None:
        if self.dense.accuracy is None:
            return None
        return max(p.sparsity for p in self.curve if (p.accuracy or 0.0) >= (self.dense.accuracy or 0.0))

    def save(self, path: str | Path) -> None:
        """Write the curve to one safetensors file with a JSON header. An interrupted call leaves no partial file."""
        fields = {"tolerance": self.tolerance, "curve": [asdict(point) for point in self.curve]}
        save_document(path, "measured", _VERSION, fields, {})

    @classmethod
    def load(cls, path: str | Path) -> "Measured":
        """Read a file that `save` wrote.

        Raises:
            InputError: the file does not exist, has other contents, or is damaged.
        """
        fields, _ = load_document(path, "measured", _VERSION)
        return cls(tuple(Point(**point) for point in fields["curve"]), fields["tolerance"])


def measure(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    tolerance: float,
    loss: Loss = cross_entropy,
    names: Iterable[str] | None = None,
    precision: float = 0.001,
    on_point: Callable[[Point], None] = lambda point: None,
) -> Measured:
    """Prune by global magnitude without retraining, and find the largest sparsity that preserves loss or accuracy.

    The function first evaluates 21 fixed sparsities, which are closer together near 100 %. They give an interval for
    each threshold. Bisection then narrows each interval to ``precision``. If the curve crosses a threshold several
    times, the bisection uses the crossing with the largest sparsity among the fixed ones.

    Args:
        model: any module; its weights are restored afterwards, also if the call is interrupted.
        batches: batches that can be read several times: training batches for the loss threshold, test batches for the
            accuracy threshold.
        tolerance: allowed loss increase, at least 0, for example `PruningLimit.tolerance`.
        loss: as for `pruning_limit`; if it has a ``score``, accuracies are measured too.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        precision: width at which bisection stops, in sparsity.
        on_point: called with each evaluated point, for progress.

    Returns:
        All evaluated points; the thresholds are its properties.

    Raises:
        InputError: the model has no prunable weight, a name is unknown, or the tolerance is negative.

    >>> import torch
    >>> model = nn.Linear(2, 2, bias=False)
    >>> model.weight.data = torch.tensor([[4.0, 0.1], [0.1, 4.0]])
    >>> measure(model, [(torch.eye(2), torch.tensor([0, 1]))], tolerance=0.01).curve[0].accuracy
    1.0
    """
    if not tolerance >= 0:
        raise InputError(f"tolerance {tolerance:g} is negative; give the allowed loss increase, at least 0")
    names = list(select_weights(model, names))
    mask_at, points = magnitude_masks(model, names), dict[float, Point]()

    def look(sparsity: float) -> Point:
        if sparsity not in points:
            with pruned(model, mask_at(sparsity)):
                points[sparsity] = Point(sparsity, *evaluate(model, batches, loss))
            on_point(points[sparsity])
        return points[sparsity]

    dense = look(0.0)
    for sparsity in _FIRST_LOOK:
        look(sparsity)

    _narrow(points, look, precision, lambda point: point.loss <= dense.loss + tolerance)
    if dense.accuracy is not None:
        _narrow(points, look, precision, lambda point: (point.accuracy or 0.0) >= (dense.accuracy or 0.0))
    return Measured(tuple(points[s] for s in sorted(points)), tolerance)


def _narrow(
    points: dict[float, Point], look: Callable[[float], Point], precision: float, holds: Callable[[Point], bool]
) -> None:
    """Bisect between the largest sparsity that holds and the next one; ``look`` adds each evaluation to ``points``."""
    low = max(s for s, point in points.items() if holds(point))
    high = min((s for s in points if s > low), default=1.0)
    while high - low > precision:
        middle = round((low + high) / 2, 6)
        low, high = (middle, high) if holds(look(middle)) else (low, middle)
