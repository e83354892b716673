"""The loss and the accuracy of a model on data."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from howsparse.matmul import fast_matmul
from howsparse.parallel import OwnBatches, summed
from howsparse.risk.batches import batch_length, move
from howsparse.risk.losses import Loss, SplitLoss, as_loss, cross_entropy
from howsparse.risk.modes import device_of, evaluation_mode

__all__ = ["evaluate"]


def evaluate(model: nn.Module, batches: Iterable[Any], loss: Loss = cross_entropy) -> tuple[float, float | None]:
    """Mean loss and accuracy in evaluation mode. The model's mode is restored.

    Float32 matrix products use `howsparse.matmul.fast_matmul`.

    Args:
        model: any module.
        batches: batches to read once. With several processes, each reads its own batches, and all return the same.
        loss: ``loss(model, batch)``, mean over the batch; if it has a ``score``, the accuracy is computed too.

    Returns:
        Mean loss over all examples, and the fraction of correct predictions; None if the loss has no ``score``.

    >>> evaluate(nn.PReLU(), [(torch.eye(2), torch.tensor([0, 0]))])[1]
    0.5
    """
    device, loss = device_of(model), as_loss(loss)
    total, correct, scored, count = 0.0, 0, 0, 0
    score = getattr(loss, "score", None)
    with evaluation_mode(model), fast_matmul(device), torch.no_grad():
        for batch in OwnBatches(batches):
            batch, length = move(batch, device), batch_length(batch)
            if score is not None and isinstance(loss, SplitLoss):
                output = loss.output(model, batch)
                total += float(loss.of_output(output, batch)) * length
                hits, of_these = score(output, batch)
                correct, scored = correct + hits, scored + of_these
            else:
                total += float(loss(model, batch)) * length
            count += length
    total, right, of, examples = summed([total, correct, scored, count], device)
    return total / examples, right / of if of else None
