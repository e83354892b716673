"""Global magnitude: the weights with the smallest absolute values go first."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from howsparse.pruning.orders.order import Order
from howsparse.pruning.scores import magnitude_scores
from howsparse.risk.losses import Loss, cross_entropy

__all__ = ["magnitude"]


def magnitude(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = cross_entropy,
    names: Iterable[str] | None = None,
    seed: int = 0,
) -> Order:
    """The order of `magnitude_mask`. It needs no data.

    Args:
        model: any module; it is not changed.
        batches: not used.
        loss: not used.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        seed: not used.

    Returns:
        Scores are the absolute values of the weights.

    Raises:
        InputError: the model has no prunable weight, a name is unknown, or a weight is NaN.

    Source: Han et al. (2015), Learning both weights and connections for efficient neural networks.

    >>> magnitude(nn.Linear(100, 10)).mask(0.9).num_kept
    100
    """
    return Order("magnitude", magnitude_scores(model, names), "absolute values of the weights")
