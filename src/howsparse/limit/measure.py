"""What magnitude pruning really reaches, by evaluating pruned networks."""

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
    """One pruned network: mean loss, and accuracy where the loss can score."""

    sparsity: float
    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Measured:
    """The measured curve and its thresholds.

    Attributes:
        curve: every network evaluated, by sparsity; the first is the dense one.
        tolerance: loss increase allowed.
        sparsity: largest sparsity evaluated whose loss is within the tolerance of the dense one's.
        sparsity_by_accuracy: largest whose accuracy is at least the dense one's; None where the loss cannot score.
    """

    curve: tuple[Point, ...]
    tolerance: float

    @property
    def dense(self) -> Point:
        """The network as it is."""
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
        """Write the curve to one file (safetensors with a JSON header), whole or not at all; `load` reads it back."""
        fields = {"tolerance": self.tolerance, "curve": [asdict(point) for point in self.curve]}
        save_document(path, "measured", _VERSION, fields, {})

    @classmethod
    def load(cls, path: str | Path) -> "Measured":
        """Read what `save` wrote.

        Raises:
            InputError: no such file, it holds something else, or it is damaged.
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
    """Prune by global magnitude, without retraining, and find how far loss and accuracy hold.

    A first look at some twenty sparsities, closer together near 100 %, brackets both thresholds; bisection narrows each
    to ``precision``. Of several crossings the sparsest that the first look sees is the one narrowed.

    Args:
        model: restored to its weights afterwards, also when stopped.
        batches: re-iterable; training batches for the loss threshold, test batches for the accuracy.
        tolerance: loss increase allowed, at least 0; `PruningLimit.tolerance` fits.
        loss: as for `pruning_limit`; with a ``score``, accuracies are measured too.
        names: of the weights to prune; all prunable ones that are not frozen unless given.
        precision: of the thresholds, in sparsity.
        on_point: called with every network evaluated, for progress.

    Raises:
        InputError: no prunable weight, or a negative tolerance.
    """
    if not tolerance >= 0:
        raise InputError(f"tolerance {tolerance:g} is negative: it is the loss increase that is allowed")
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

    def narrow(holds: Callable[[Point], bool]) -> None:
        low = max(s for s, point in points.items() if holds(point))
        high = min((s for s in points if s > low), default=1.0)
        while high - low > precision:
            middle = round((low + high) / 2, 6)
            low, high = (middle, high) if holds(look(middle)) else (low, middle)

    narrow(lambda point: point.loss <= dense.loss + tolerance)
    if dense.accuracy is not None:
        narrow(lambda point: (point.accuracy or 0.0) >= (dense.accuracy or 0.0))
    return Measured(tuple(points[s] for s in sorted(points)), tolerance)
