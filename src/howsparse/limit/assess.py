"""The whole answer for one network: the limit, what pruning really reaches, and accuracy before and after."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from howsparse.limit.compute import Progress, PruningLimit, pruning_limit
from howsparse.limit.measure import Measured, Point, measure
from howsparse.pruning.masks import Mask, magnitude_mask
from howsparse.pruning.prune import pruned
from howsparse.risk.evaluate import evaluate
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.risk.weights import select_weights

__all__ = ["Assessment", "assess", "check_pruned"]


@dataclass(frozen=True)
class Assessment:
    """A network's limit beside the measured truth.

    Attributes:
        limit: what the geometry predicts.
        on_train: the measured curve on the training batches; its threshold is the loss's.
        on_test: the measured curve on the test batches; its threshold is the accuracy's.
        seconds: time all of it took.
    """

    limit: PruningLimit
    on_train: Measured
    on_test: Measured
    seconds: float

    def summary(self, after: Point) -> dict[str, object]:
        """The answer as one JSON object; ``after`` is the network pruned in the end, on the test batches."""
        limit, unbounded = self.limit, self.limit.at(negative="unbounded")
        return {
            "num_weights": limit.num_weights,
            "tolerance": limit.tolerance,
            "curvature": limit.curvature,
            "negative": limit.negative,
            "limit": limit.sparsity,
            "limit_low": limit.bracket[0],
            "limit_high": limit.bracket[1],
            "error_quadrature": limit.errors.quadrature,
            "error_probe": limit.errors.probe,
            "error_data": limit.errors.data,
            "limit_unbounded": unbounded.sparsity,
            "limit_unbounded_low": unbounded.bracket[0],
            "limit_unbounded_high": unbounded.bracket[1],
            "stopped": limit.stopped,
            "rank_bound": limit.rank_bound,
            "larsen_interval": limit.larsen_interval,
            "upper_bound": limit.upper_bound,
            "certified": limit.certified,
            "measured": self.on_train.sparsity,
            "measured_by_accuracy": self.on_test.sparsity_by_accuracy,
            "dense_accuracy": self.on_test.dense.accuracy,
            "pruned_sparsity": after.sparsity,
            "pruned_accuracy": after.accuracy,
            "radius": limit.radius,
            "scale": limit.scale,
            "effective_dimension": limit.effective_dimension,
            "products": limit.num_products,
            "seconds": round(self.seconds, 3),
        }


def assess(
    model: nn.Module,
    train: Iterable[Any],
    test: Iterable[Any],
    *,
    loss: Loss = cross_entropy,
    progress: Progress = lambda stage, done, total: None,
    **options: Any,
) -> Assessment:
    """Compute the limit on ``train``, measure loss on ``train`` and accuracy on ``test``.

    Args:
        model: restored afterwards.
        train, test: re-iterable batches.
        loss: as for `pruning_limit`.
        progress: called as ``progress(stage, done, total)``.
        **options: further arguments of `pruning_limit`.
    """
    began = time.perf_counter()
    limit = pruning_limit(model, train, loss=loss, progress=progress, **options)

    def counted(stage: str, batches: Iterable[Any]) -> Measured:
        points: list[Point] = []

        def show(point: Point) -> None:
            points.append(point)
            progress(stage, len(points), 35)

        return measure(model, batches, tolerance=limit.tolerance, loss=loss, on_point=show)

    on_train = counted("measuring the loss", train)
    on_test = counted("measuring the accuracy", test) if test is not train else on_train
    return Assessment(limit, on_train, on_test, time.perf_counter() - began)


def check_pruned(
    model: nn.Module, sparsity: float, batches: Iterable[Any], loss: Loss = cross_entropy
) -> tuple[Mask, Point]:
    """The magnitude mask at ``sparsity``, with one weight left if that is 1, and how the network does under it."""
    size = sum(w.numel() for w in select_weights(model, None).values())
    mask = magnitude_mask(model, min(sparsity, 1 - 1 / size))
    with pruned(model, mask):
        return mask, Point(mask.sparsity, *evaluate(model, batches, loss))
