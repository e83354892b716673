"""The losses and the scores of a model on each example of some data."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.matmul import fast_matmul
from howsparse.parallel import OwnBatches, gathered
from howsparse.risk.alone import alone
from howsparse.risk.batches import batch_length, can_split, examples, move
from howsparse.risk.counting import weight_of
from howsparse.risk.guard import guarded
from howsparse.risk.losses import CrossEntropy, Loss, SplitLoss, as_loss, cross_entropy
from howsparse.risk.metrics import Metric, as_metric
from howsparse.risk.modes import device_of, evaluation_mode

__all__ = ["Outcomes", "outcomes"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """Loss and score of each example.

    Attributes:
        losses: ``(N,)``, mean loss of each example over its predictions; NaN if it has none.
        scores: ``(N,)``, mean of the metric over the example's predictions; None if there is no metric.
        counts: ``(N,)``, number of predictions of each example: 1 for a classifier, the number of tokens whose labels
            count for a language model.

    >>> found = Outcomes(torch.tensor([0.1, 2.3]), torch.tensor([1.0, 0.0]), torch.tensor([1, 1]))
    >>> float(found.scores.mean())
    0.5
    """

    losses: Array
    scores: Array | None
    counts: NDArray[np.int64]

    @property
    def loss(self) -> float:
        """Mean loss over all predictions."""
        return _mean(self.losses, self.counts)

    @property
    def score(self) -> float | None:
        """Mean of the metric over all predictions."""
        return None if self.scores is None else _mean(self.scores, self.counts)


@alone
@guarded
def outcomes(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss = cross_entropy,
    metric: "str | Metric | Callable[[Tensor, Any], Tensor] | None" = None,
) -> Outcomes:
    """Evaluate a model on each example, in evaluation mode. The model's mode is restored.

    With `CrossEntropy`, one forward pass gives the losses of all examples of a batch. With any other loss, the examples
    are evaluated one by one.

    Args:
        model: any module.
        batches: batches to read once. With several processes, each reads its own batches, and all return the same.
        loss: ``loss(model, batch)``, mean over the batch.
        metric: as for `as_metric`.

    Returns:
        Loss, score and number of predictions of each example, in the order of the batches.

    Raises:
        InputError: no label counts, the loss is not `CrossEntropy` and a batch cannot be split into examples, or the
            metric does not return one number for each prediction or example.

    >>> found = outcomes(nn.PReLU(), [(torch.eye(2), torch.tensor([0, 0]))])
    >>> found.scores.tolist(), found.counts.tolist()
    ([1.0, 0.0], [1, 1])
    """
    device, loss = device_of(model), as_loss(loss, model)
    scored = as_metric(metric, loss)
    found_rows: list[list[list[float]]] = []
    with evaluation_mode(model), fast_matmul(device), torch.no_grad():
        for batch in OwnBatches(batches):
            batch = move(batch, device)
            if isinstance(loss, CrossEntropy):
                found = _together(model, batch, loss, scored)
            else:
                found = _one_by_one(model, batch, loss, scored)
            found_rows.append(found.double().cpu().tolist())
    table = np.array(_in_order(found_rows), dtype=np.float64).reshape(-1, 3)
    counts = table[:, 2].astype(np.int64)
    if not counts.sum():
        raise InputError(
            "no label of the data counts: there are none, or all are -100 (ignored); pass data with labels"
        )
    return Outcomes(table[:, 0], None if scored is None else table[:, 1], counts)


def _together(model: nn.Module, batch: Any, loss: CrossEntropy, metric: Metric | None) -> Tensor:
    """Loss, score and count of each example, ``(examples, 3)``, from one forward pass."""
    output = loss.output(model, batch)
    owners, length = loss.examples(batch), batch_length(batch)
    counts = torch.bincount(owners, minlength=length).double()
    losses = torch.bincount(owners, loss.each(output, batch).double(), length) / counts
    scores = torch.full_like(losses, torch.nan)
    if metric is not None:
        scores = _example_means(metric, metric.values(output, batch), owners, length)
    return torch.stack([losses, scores, counts], dim=1)


def _one_by_one(model: nn.Module, batch: Any, loss: Loss, metric: Metric | None) -> Tensor:
    """Loss, score and count of each example, ``(examples, 3)``, from one forward pass for each example."""
    if not can_split(batch):
        raise InputError(
            "a batch cannot be split into examples: its tensors differ in length; pass tensors of equal length"
        )
    rows = []
    for i in range(batch_length(batch)):
        one = examples(batch, slice(i, i + 1))
        score = torch.nan
        if metric is not None and isinstance(loss, SplitLoss):
            output = loss.output(model, one)
            value = loss.of_output(output, one)
            score = float(metric.values(output, one).double().nanmean())
        else:
            value = loss(model, one)
        rows.append([float(value), score, float(weight_of(loss, one))])
    return torch.tensor(rows, dtype=torch.float64)


def _example_means(metric: Metric, values: Tensor, owners: Tensor, length: int) -> Tensor:
    """Mean of a metric over the predictions of each example, ``(examples,)``."""
    values = values.double()
    if values.shape == owners.shape:
        return torch.bincount(owners, values, length) / torch.bincount(owners, minlength=length)
    if values.shape[:1] == (length,):
        return values.flatten(1).nanmean(1) if values.ndim > 1 else values
    raise InputError(
        f"metric '{metric.name}' returns shape {tuple(values.shape)}; return one number for each of the"
        f" {len(owners)} predictions or {length} examples of the batch"
    )


def _in_order(batches: list[list[list[float]]]) -> list[list[float]]:
    """The rows of all batches of all processes, in the order of the batches."""
    parts: Any = gathered(batches)
    return [row for turn in zip_longest(*parts, fillvalue=()) for batch in turn for row in batch]


def _mean(values: Array, counts: NDArray[np.int64]) -> float:
    counted = counts > 0
    return float(np.average(values[counted], weights=counts[counted]))
