"""The loss of a model on data, and its accuracy or another metric."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.matmul import fast_matmul
from howsparse.parallel import OwnBatches, summed
from howsparse.risk.alone import alone
from howsparse.risk.batches import move
from howsparse.risk.counting import weight_of
from howsparse.risk.losses import Loss, SplitLoss, as_loss, cross_entropy
from howsparse.risk.metrics import Metric, as_metric
from howsparse.risk.modes import device_of, evaluation_mode

__all__ = ["evaluate"]


@alone
def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss = cross_entropy,
    metric: "str | Metric | Callable[[Tensor, Any], Tensor] | None" = None,
) -> tuple[float, float | None]:
    """Mean loss and mean of a metric in evaluation mode. The model's mode is restored.

    Float32 matrix products use `howsparse.matmul.fast_matmul`.

    Args:
        model: any module.
        batches: batches to read once. With several processes, each reads its own batches, and all return the same.
        loss: ``loss(model, batch)``, mean over the batch.
        metric: as for `as_metric`; by default the accuracy, if the loss has ``correct`` or ``score``.

    Returns:
        Mean loss, and mean of the metric over all predictions (for the accuracy, the fraction of correct predictions);
        None if there is no metric.

    Raises:
        InputError: there are no batches, or no label counts.

    >>> evaluate(nn.PReLU(), [(torch.eye(2), torch.tensor([0, 0]))])[1]
    0.5
    """
    device, loss = device_of(model), as_loss(loss, model)
    score = _scorer(loss, metric)
    total, reached, scored, count = 0.0, 0.0, 0, 0
    with evaluation_mode(model), fast_matmul(device), torch.no_grad():
        for batch in OwnBatches(batches):
            batch, weight = move(batch, device), weight_of(loss, batch)
            if score is not None and isinstance(loss, SplitLoss):
                output = loss.output(model, batch)
                total += float(loss.of_output(output, batch)) * weight if weight else 0.0
                sum_, of_these = score(output, batch)
                reached, scored = reached + sum_, scored + of_these
            elif weight:
                total += float(loss(model, batch)) * weight
            count += weight
    total, reached, of, weights = summed([total, reached, scored, count], device)
    if not weights:
        raise InputError(
            "the data have no predictions to evaluate: no batch, or every label is -100 (ignored); give others"
        )
    return total / weights, reached / of if of else None


def _scorer(loss: Loss, metric: Any) -> Callable[[Tensor, Any], tuple[float, int]] | None:
    """A function of output and batch that returns the sum of the metric's values, and the number of these."""
    if metric is None and hasattr(loss, "score"):
        return loss.score  # type: ignore[no-any-return]
    chosen = as_metric(metric, loss)
    if chosen is None:
        return None

    def score(output: Tensor, batch: Any) -> tuple[float, int]:
        values = chosen.values(output, batch).double()
        counted = values[~values.isnan()]
        return float(counted.sum()), counted.numel()

    return score
