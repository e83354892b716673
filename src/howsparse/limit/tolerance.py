"""The default tolerance: the standard deviation of the loss over mini-batches of 128 examples, as in the paper."""

import math

import numpy as np
from numpy.typing import NDArray

from howsparse.errors import InputError
from howsparse.risk.batches import can_split
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.losses import CrossEntropy
from howsparse.risk.outcomes import outcomes

__all__ = ["MINI_BATCH", "default_tolerance"]

MINI_BATCH = 128  # the paper's epsilon is the standard deviation of the loss over mini-batches of this size
_MOST_PIECES = 4096  # a loss without per-example values is evaluated on at most about so many pieces of the data


def default_tolerance(risk: EmpiricalRisk) -> tuple[float, float]:
    r"""The default tolerance: the standard deviation of the mean loss of 128 independent examples.

    It is :math:`s / \sqrt{128}`, where s is the standard deviation of the loss over the examples. So it depends on the
    examples only, not on how a loader batches them. For a loss over several predictions of an example, such as the
    tokens of a sequence, the example is the sequence, and its loss is the mean over its predictions.

    A loss other than cross-entropy has no per-example values. It is evaluated on pieces of equal size m, and s is
    :math:`\sqrt m` times the standard deviation over the pieces.

    Args:
        risk: the empirical risk; its model is not changed.

    Returns:
        The tolerance, and its relative standard error :math:`\sqrt{(\kappa - 1) / 4n}`, for n losses of kurtosis
        :math:`\kappa`.

    Raises:
        InputError: the data are one example, or all examples have the same loss.

    Source: the paper's experiments, for the tolerance; the variance of a sample variance, for its error.

    >>> import torch
    >>> logits, targets = torch.tensor([[0.0, 0.0], [4.0, 0.0]]).repeat(50, 1), torch.zeros(100, dtype=torch.long)
    >>> model = torch.nn.Linear(2, 2)
    >>> _ = torch.nn.init.eye_(model.weight), torch.nn.init.zeros_(model.bias)
    >>> tolerance, error = default_tolerance(EmpiricalRisk(model, [(logits, targets)]))
    >>> round(tolerance, 4), round(error, 4)  # losses of log 2 and 0.018: half their difference over the root of 128
    (0.03, 0.0)
    """
    losses, size = _losses(risk)
    if losses.size < 2:
        raise InputError(
            "the data are one example, but the default tolerance needs two; give a tolerance, or more data"
        )
    deviation = float(losses.std(ddof=1))
    if not deviation > 0:
        raise InputError("the loss is the same on every example, so the default tolerance is 0; give a tolerance")
    kurtosis = float(np.mean(((losses - losses.mean()) / losses.std()) ** 4))
    return deviation * math.sqrt(size / MINI_BATCH), math.sqrt(max(0.0, kurtosis - 1) / (4 * losses.size))


def _losses(risk: EmpiricalRisk) -> tuple[NDArray[np.float64], int]:
    """Losses of the examples, or of pieces of the data, and the number of examples of each."""
    if isinstance(risk.loss, CrossEntropy):
        found = outcomes(risk.model, risk.all_batches, risk.loss)
        return found.losses[found.counts > 0], 1
    longest = max(risk.lengths)
    few = min(longest, math.ceil(risk.num_examples / _MOST_PIECES))
    size = few if can_split(next(iter(risk.all_batches))) else longest
    return risk.batch_losses(size).numpy(), size
