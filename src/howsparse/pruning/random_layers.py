"""Random masks with a given density for each layer."""

from collections.abc import Mapping

import torch
from torch import nn

from howsparse.errors import InputError
from howsparse.pruning.masks import Mask, largest
from howsparse.risk.weights import select_weights

__all__ = ["random_layer_mask"]


def random_layer_mask(model: nn.Module, densities: Mapping[str, float], seed: int = 0) -> Mask:
    """The mask of random pruning with a given density for each layer.

    The total number of weights that stay is exact to one weight: the numbers of the layers are rounded by the largest
    remainder method.

    Args:
        model: any module; it is not changed.
        densities: fraction of weights that stay, in [0, 1], by weight name; weights without a name are not pruned.
        seed: seed of the random draw.

    Returns:
        The mask: a boolean tensor of the weight's shape for each name.

    Raises:
        InputError: a density is outside [0, 1], or a name is unknown.

    >>> model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    >>> random_layer_mask(model, {"0.weight": 0.25, "1.weight": 0.05}).layer_densities()
    {'0.weight': 0.25, '1.weight': 0.05...}
    """
    chosen = select_weights(model, densities)
    for name, density in densities.items():
        if not 0 <= density <= 1:
            raise InputError(
                f"density {density:g} of '{name}' is outside [0, 1]; give the fraction of weights that stay"
            )
    counts = _whole_counts({name: densities[name] * w.numel() for name, w in chosen.items()})
    generator = torch.Generator().manual_seed(seed)
    draws = {name: torch.rand(w.numel(), generator=generator) for name, w in chosen.items()}
    return Mask({name: largest(draws[name], counts[name]).view(w.shape) for name, w in chosen.items()})


def _whole_counts(wanted: dict[str, float]) -> dict[str, int]:
    """Round each number to a whole number within 1 of it, so that the sum is the rounded sum of all numbers."""
    counts = {name: int(count) for name, count in wanted.items()}
    by_remainder = sorted(wanted, key=lambda name: counts[name] - wanted[name])
    for name in by_remainder[: round(sum(wanted.values())) - sum(counts.values())]:
        counts[name] += 1
    return counts
