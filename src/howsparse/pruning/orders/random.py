"""Random order: a baseline that every other order should beat."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from howsparse.pruning.orders.order import Order
from howsparse.pruning.scores import random_scores
from howsparse.risk.losses import Loss, cross_entropy

__all__ = ["random"]


def random(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = cross_entropy,
    names: Iterable[str] | None = None,
    seed: int = 0,
) -> Order:
    """The order of `random_mask`: weights of the whole network go in a uniformly drawn order.

    Args:
        model: any module; it is not changed.
        batches: not used.
        loss: not used.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        seed: seed of the draw.

    Returns:
        Scores are independent uniform draws.

    Raises:
        InputError: the model has no prunable weight, or a name is unknown.

    >>> random(nn.Linear(100, 10), seed=1).mask(0.9).num_kept
    100
    """
    return Order("random", random_scores(model, names, seed), f"independent uniform draws, seed {seed}")
