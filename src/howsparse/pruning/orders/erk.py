"""Magnitude within each layer, with layer densities by the Erdős-Rényi-kernel rule."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from howsparse.pruning.orders.order import Order, make_order
from howsparse.pruning.scores import magnitude_scores, rank_fractions
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.risk.weights import select_weights

__all__ = ["erdos_renyi_densities", "erk"]


def erk(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = cross_entropy,
    names: Iterable[str] | None = None,
    seed: int = 0,
) -> Order:
    r"""In each layer the smallest weights go first; layer densities are those of `erdos_renyi_densities`.

    A layer's density is ``min(1, scale * f)``, where ``f`` is the sum of its weight's dimensions divided by their
    product. Let r be the rank of a weight's magnitude, as a fraction of its layer. The weight stays if r is at most the
    density. This holds if ``r / f`` is at most the scale, which is the same for all layers. So the score is ``-r / f``.

    Args:
        model: any module; it is not changed.
        batches: not used.
        loss: not used.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        seed: not used.

    Returns:
        Scores are :math:`-r/f`. The number of weights of the whole network is exact; those of the layers follow by
        rounding.

    Raises:
        InputError: the model has no prunable weight, a name is unknown, or a weight is NaN.

    Source: Evci et al. (2020), Rigging the lottery: Erdős-Rényi-kernel.

    >>> order = erk(nn.Sequential(nn.Linear(30, 10), nn.Linear(10, 5)))
    >>> {name: round(density, 2) for name, density in order.mask(0.8).layer_densities().items()}
    {'0.weight': 0.17, '1.weight': 0.38}
    """
    scores = {
        name: rank_fractions(size.flatten()).view(size.shape) / _shape_factor(size)
        for name, size in magnitude_scores(model, names).items()
    }
    return make_order("erk", model, scores, "rank of magnitude within the layer, Erdős-Rényi-kernel layer densities")


def erdos_renyi_densities(model: nn.Module, sparsity: float) -> dict[str, float]:
    """Layer densities by the Erdős-Rényi-kernel rule.

    A layer's density is proportional to the sum of its weight's dimensions divided by their product. No density is
    above 1; the excess weights go to the other layers.

    Args:
        model: any module.
        sparsity: fraction of all weights to remove, in [0, 1).

    Returns:
        Fraction of weights that stay, by weight name.

    Source: Evci et al. (2020), Rigging the lottery: Erdős-Rényi-kernel.

    >>> model = nn.Sequential(nn.Linear(30, 10), nn.Linear(10, 5))
    >>> {name: round(density, 3) for name, density in erdos_renyi_densities(model, 0.8).items()}
    {'0.weight': 0.17, '1.weight': 0.382}
    """
    weights = select_weights(model, None)
    left = (1 - sparsity) * sum(w.numel() for w in weights.values())
    densities: dict[str, float] = {}
    while weights:
        scale = left / sum(_shape_factor(w) * w.numel() for w in weights.values())
        full = [name for name, w in weights.items() if scale * _shape_factor(w) > 1]
        if not full:
            return densities | {name: scale * _shape_factor(w) for name, w in weights.items()}
        for name in full:
            densities[name] = 1.0
            left -= weights.pop(name).numel()
    return densities


def _shape_factor(weight: Tensor) -> float:
    """Sum of the dimensions of a weight divided by their product."""
    return sum(weight.shape) / weight.numel()
