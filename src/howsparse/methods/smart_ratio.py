"""Smart-Ratio: random masks with smaller densities in later layers, trained from initialisation."""

from torch import nn

from howsparse.errors import UnsuitableNetwork
from howsparse.methods.stages import Run, Sparsity, Stages
from howsparse.methods.ticket import Ticket
from howsparse.problem import Problem
from howsparse.pruning.random_layers import random_layer_mask
from howsparse.risk.weights import select_weights

__all__ = ["smart_ratio", "smart_ratio_densities"]

_LINEAR = 0.3  # density of linear layers


def smart_ratio(problem: Problem, sparsity: Sparsity, seed: int = 0, run: Run = Run()) -> Ticket:
    """Draw a random mask with the densities of `smart_ratio_densities`, then train.

    Args:
        problem: network, data and loss; its l1 term is not used, and its network must have convolutions.
        sparsity: fraction to remove, or "limit" or "predicted" of the dense network trained with l1.
        seed: seed of initialisation, mask and batches.
        run: folder and callbacks.

    Returns:
        The pruned and trained network.

    Raises:
        UnsuitableNetwork: the network has no convolution.

    Source: Su et al. (2020).

    >>> import torch
    >>> batches = [(torch.randn(64, 1, 4, 4), torch.randint(0, 3, (64,)))]
    >>> network = lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    >>> smart_ratio(Problem(network, train=batches, test=batches, epochs=1), 0.5).mask.num_kept
    42
    """
    stages = Stages(problem, seed, run)
    model = problem.initial(seed)
    smart_ratio_densities(model, 0.5)  # raises the error before any training
    mask = random_layer_mask(model, smart_ratio_densities(model, stages.target(sparsity)), seed)
    mask.apply_(model)
    stages.train("training", model, mask)
    return stages.ticket(model, mask)


def smart_ratio_densities(model: nn.Module, sparsity: float) -> dict[str, float]:
    """Layer densities by Su et al.'s rule.

    The density of convolution l of L is proportional to (L-l+1)^2 + (L-l+1). The density of linear layers is 0.3. The
    densities of the convolutions are scaled so that the network has the requested sparsity. If a density is above 1,
    the excess weights go to the next layer. If the linear layers alone would have too many weights, all densities are
    scaled by the same factor.

    Raises:
        UnsuitableNetwork: the network has no convolution.

    Source: Su et al. (2020), Sanity-checking pruning methods: random tickets can win the jackpot.

    >>> model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 10))
    >>> {name: round(density, 3) for name, density in smart_ratio_densities(model, 0.8).items()}
    {'0.weight': 0.279, '1.weight': 0.093, '2.weight': 0.3}
    """
    weights = select_weights(model, None)
    convolutions = [name for name, w in weights.items() if w.ndim > 2]
    if not convolutions:
        raise UnsuitableNetwork(
            "smart_ratio is for networks with convolutions, and this one has none; use another method"
        )
    left = range(len(convolutions), 0, -1)
    shares = {name: float(k * k + k) for name, k in zip(convolutions, left, strict=True)}
    shares = {name: shares.get(name, _LINEAR) for name in weights}
    sizes = {name: w.numel() for name, w in weights.items()}
    wanted = (1 - sparsity) * sum(sizes.values())
    for_linear = sum(_LINEAR * sizes[name] for name in weights if name not in convolutions)
    scaled = convolutions if for_linear < wanted else list(weights)
    scale = (wanted - for_linear * (scaled is convolutions)) / sum(shares[name] * sizes[name] for name in scaled)
    densities = {name: share * (scale if name in scaled else 1.0) for name, share in shares.items()}
    return _spill(densities, sizes, convolutions)


def _spill(densities: dict[str, float], sizes: dict[str, int], convolutions: list[str]) -> dict[str, float]:
    """Limit densities to 1. Excess weights go to the next convolution, and from the last one to the linear layers."""
    excess = 0.0
    for name in [*convolutions, *(name for name in densities if name not in convolutions)]:
        count = densities[name] * sizes[name] + excess
        excess = max(0.0, count - sizes[name])
        densities[name] = (count - excess) / sizes[name]
    return densities
