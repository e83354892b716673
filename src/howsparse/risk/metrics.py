"""Metrics: the quality that pruning must keep, as one number for each prediction. Larger is better."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from howsparse.errors import InputError
from howsparse.risk.losses import CrossEntropy, Loss

__all__ = ["Metric", "as_metric"]


@dataclass(frozen=True)
class Metric:
    """A metric whose value for data is a mean over predictions, such as the accuracy.

    Attributes:
        name: its name in tables and records.
        values: ``values(output, batch)``, one number for each prediction, ``(predictions,)``, or for each example,
            ``(examples, ...)``; ``output`` is what ``loss.output(model, batch)`` returned. NaN: not counted.
    """

    name: str
    values: Callable[[Tensor, Any], Tensor]


def as_metric(metric: "str | Metric | Callable[[Tensor, Any], Tensor] | None", loss: Loss) -> Metric | None:
    """A metric by its name, or a function as a `Metric`.

    Args:
        metric: "accuracy", "top5" (or another number), a function ``values(output, batch)``, or None for the accuracy,
            if the loss can tell which predictions are correct.
        loss: the loss of the model, as `as_loss` returns it.

    Returns:
        The metric; None if none was asked for and the loss has no ``correct``.

    Raises:
        InputError: the name is unknown, or the loss cannot tell which predictions are correct.

    >>> from howsparse.risk.losses import cross_entropy
    >>> as_metric("top5", cross_entropy).name
    'top5'
    """
    if isinstance(metric, Metric):
        return metric
    if metric is None or metric == "accuracy":
        correct = getattr(loss, "correct", None)
        if correct is not None:
            return Metric("accuracy", correct)
        if metric is None:
            return None
        raise InputError("the loss cannot tell which predictions are correct; give it correct(output, batch)")
    if not isinstance(metric, str):
        return Metric(getattr(metric, "__name__", type(metric).__name__), metric)
    found = re.fullmatch(r"top([1-9]\d*)", metric)
    if found is None:
        raise InputError(f"metric '{metric}' is not known; use accuracy, top5, or a function of output and batch")
    if not isinstance(loss, CrossEntropy):
        raise InputError(
            f"metric '{metric}' needs the cross-entropy; pass the metric as a function of output and batch"
        )
    k = int(found[1])
    return Metric(metric, lambda output, batch: loss.in_top(k, output, batch))
