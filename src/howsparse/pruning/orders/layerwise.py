"""Magnitude with the same sparsity in every layer."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from howsparse.pruning.orders.order import Order, make_order
from howsparse.pruning.scores import magnitude_scores, rank_fractions
from howsparse.risk.losses import Loss, cross_entropy

__all__ = ["layerwise"]


def layerwise(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = cross_entropy,
    names: Iterable[str] | None = None,
    seed: int = 0,
) -> Order:
    """The order of `layerwise_mask`: in each layer the smallest weights go first; all layers have the same sparsity.

    The number of weights of the whole network is exact; those of the layers follow by rounding.

    Args:
        model: any module; it is not changed.
        batches: not used.
        loss: not used.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        seed: not used.

    Returns:
        Scores are ranks of magnitude within the layer, as fractions of the layer's size.

    Raises:
        InputError: the model has no prunable weight, a name is unknown, or a weight is NaN.

    Source: Han et al. (2015), Learning both weights and connections for efficient neural networks.

    >>> layerwise(nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 20))).mask(0.9).layer_densities()
    {'0.weight': 0.1..., '1.weight': 0.1...}
    """
    scores = {
        name: rank_fractions(size.flatten()).view(size.shape) for name, size in magnitude_scores(model, names).items()
    }
    return make_order("layerwise", model, scores, "rank of magnitude within the layer")
