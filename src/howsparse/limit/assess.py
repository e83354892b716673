"""All answers for one network: the limit, the measured sparsity, and the accuracy before and after pruning."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from torch import nn

from howsparse.limit.compute import pruning_limit
from howsparse.limit.directional import DirectionalLimit, check_directional, directional_limit
from howsparse.limit.goal import Goal, Point
from howsparse.limit.measure import FINE, Measured, measure
from howsparse.limit.options import Answer, LimitOptions
from howsparse.limit.result import PruningLimit
from howsparse.progress import Progress, reporting
from howsparse.pruning.masks import Mask
from howsparse.pruning.prune import pruned
from howsparse.risk.alone import alone
from howsparse.risk.evaluate import evaluate
from howsparse.risk.guard import guarded_with_values
from howsparse.risk.losses import Loss, as_loss, cross_entropy
from howsparse.risk.metrics import as_metric

__all__ = ["Assessment", "assess", "check_mask"]


@dataclass(frozen=True)
class Assessment:
    """The computed limit and the measured curves of one network.

    Attributes:
        limit: the computed limit.
        on_train: the measured curve on the training batches; use its threshold for the loss.
        on_test: the measured curve on the test batches; use its threshold for the accuracy.
        seconds: time for the limits and both curves, in seconds.
        directional: the directional limit on the training batches; None if it was not asked for.
    """

    limit: PruningLimit
    on_train: Measured
    on_test: Measured
    seconds: float
    directional: DirectionalLimit | None = None

    def sparsity(self, answer: Answer) -> float:
        """The sparsity of one answer.

        Raises:
            InputError: the prediction was asked for and failed, or the limit was asked for and is not resolved.
        """
        if answer is Answer.MEASURED:
            return self.on_train.sparsity
        return self.limit.resolved_sparsity() if answer is Answer.LIMIT else self.limit.checked_prediction()

    def summary(self, after: Point) -> dict[str, object]:
        """All answers as one JSON object. ``after`` is the pruned network's loss and accuracy on the test batches."""
        unbounded, outlook = self.limit.at(negative="unbounded"), self.limit.outlook()
        return asdict(self.limit.summary()) | {
            "outlook": None if outlook is None else str(outlook),
            "limit_unbounded": unbounded.sparsity if unbounded.resolved else None,
            "limit_unbounded_low": unbounded.bracket[0],
            "limit_unbounded_high": unbounded.bracket[1],
            "directional_low": None if self.directional is None else self.directional.low,
            "directional_high": None if self.directional is None else self.directional.high,
            "directional_products": None if self.directional is None else self.directional.num_products,
            "larsen_interval": self.limit.larsen_interval if self.limit.resolved else None,
            "measured": self.on_train.sparsity,
            "measured_by_accuracy": self.on_test.sparsity_by_accuracy,
            "dense_accuracy": self.on_test.dense.accuracy,
            "pruned_sparsity": after.sparsity,
            "pruned_accuracy": after.accuracy,
            "seconds": round(self.seconds, 3),
        }


@alone
def assess(
    model: nn.Module,
    train: Iterable[Any],
    test: Iterable[Any],
    *,
    loss: Loss = cross_entropy,
    options: LimitOptions | None = None,
    directional: bool = False,
    keep: Path | None = None,
    progress: Progress | bool | None = None,
) -> Assessment:
    """Compute the limit on ``train``, measure the loss on ``train`` and the accuracy on ``test``.

    All three use the same weights.

    Args:
        model: any module; its weights are restored afterwards.
        train: training batches, which can be read several times.
        test: test batches, which can be read several times.
        loss: ``loss(model, batch)``, as for `pruning_limit`.
        options: options of the limit.
        directional: whether to compute the directional limit too, with the tolerance of the limit and at most as many
            products again.
        keep: folder in which `pruning_limit` stores its products and the limit.
        progress: as for `pruning_limit`.

    Returns:
        The limit and both measured curves.

    Raises:
        InputError: as for `pruning_limit` and `directional_limit`.
    """
    began, chosen, along = time.perf_counter(), options or LimitOptions(), None
    if directional:
        check_directional(model, loss, chosen.max_products)
    with reporting(progress) as report:
        limit = pruning_limit(model, train, loss=loss, options=chosen, keep=keep, progress=report)
        if directional:
            same: dict[str, Any] = {"tolerance": limit.tolerance, "names": limit.names, "seed": chosen.seed}
            same |= {"loss": loss, "max_products": chosen.max_products, "progress": report}
            along = directional_limit(model, train, **same)
        on_train, on_test = measure_both(model, limit, train, test, loss, report)
    return Assessment(limit, on_train, on_test, time.perf_counter() - began, along)


@alone
def measure_both(
    model: nn.Module,
    limit: PruningLimit,
    train: Iterable[Any],
    test: Iterable[Any],
    loss: Loss = cross_entropy,
    progress: Progress = lambda stage, done, total: None,
    *,
    fine: bool = False,
) -> tuple[Measured, Measured]:
    """Measure magnitude masks of the limit's weights on ``train`` and on ``test``.

    Args:
        model, limit, train, test, loss, progress: as for `assess`.
        fine: whether to evaluate the 21 sparsities of `FINE`, as the paper's figures show them.
    """
    options: dict[str, Any] = {"scan": FINE, "precision": 0.001} if fine else {"precision": 0.002}
    options |= {"loss": loss, "names": limit.names, "progress": False}

    def counted(stage: str, batches: Iterable[Any], goal: Goal) -> Measured:
        done = count(1)

        def show(point: Point) -> None:
            made = next(done)
            progress(stage, made, max(35 if fine else 20, made))

        return measure(model, batches, **vars(goal), on_point=show, **options)

    scored = as_metric(None, as_loss(loss, model)) is not None
    by_loss = Goal(tolerance=limit.tolerance)
    on_train = counted("measuring the loss", train, by_loss)
    if test is train:
        return on_train, on_train
    return on_train, counted("measuring the accuracy", test, Goal(max_drop=0.0) if scored else by_loss)


@alone
@guarded_with_values
def check_mask(model: nn.Module, mask: Mask, batches: Iterable[Any], loss: Loss = cross_entropy) -> Point:
    """Loss and accuracy of the network under ``mask``. The weights are restored afterwards.

    Args:
        model: any module.
        mask: mask over weights of the model.
        batches: batches to evaluate on.
        loss: ``loss(model, batch)``, mean over the batch; if it has a ``score``, the accuracy is measured too.

    Returns:
        The mask's sparsity, the mean loss and the accuracy.

    Raises:
        InputError: the mask does not fit the model.
    """
    with pruned(model, mask):
        return Point(mask.sparsity, *evaluate(model, batches, loss))
