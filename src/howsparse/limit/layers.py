r"""The predicted loss increase from each layer's removed weights, and the layers whose next weights cost most.

The local model of a step d is :math:`g'd + \tfrac12 d'Hd`, with the gradient g and the curvature H. It is a sum over
the weights, so layer l has the share :math:`d_l'\bigl(g + \tfrac12 Hd\bigr)_l`. The shares add up to the whole
prediction, because :math:`(Hd)_l` has the terms between layer l and all other layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from howsparse.errors import InputError
from howsparse.linalg.operators import Operator
from howsparse.risk.empirical import EmpiricalRisk

__all__ = ["LayerCost", "binding_layers", "inner_by_layer", "layer_costs", "layer_sizes"]

_BAND = 0.01  # the next weights of a layer: this fraction of its weights


@dataclass(frozen=True)
class LayerCost:
    """One layer of a mask that removes weights of the whole network in one order.

    Attributes:
        name: name of the weight.
        num_weights: number of its weights under study.
        sparsity: fraction of them that the mask removes.
        cost: loss that this layer is predicted to add, :math:`d_l'(g + \\tfrac12 Hd)_l`. The costs of all layers add
            up to the predicted loss increase of the mask.
        marginal: predicted further loss per weight, if the layer's next weights are removed too; NaN if none is left.

    >>> LayerCost("fc.weight", 100, 0.9, 0.02, 1e-4).num_removed
    90
    """

    name: str
    num_weights: int
    sparsity: float
    cost: float
    marginal: float

    @property
    def num_removed(self) -> int:
        return round(self.sparsity * self.num_weights)


def layer_costs(
    operator: Operator,
    weights: Tensor,
    gradient: Tensor,
    sizes: Mapping[str, int],
    sparsity: float,
    order: Tensor | None = None,
) -> tuple[LayerCost, ...]:
    r"""The predicted cost of each layer in the mask of a sparsity, with two products.

    The first product is with the step d of the mask. The second is with the step p that removes the next 1 % of every
    layer, in the same order. Layer l's further loss is :math:`p_l'(g + Hd + \tfrac12 Hp)_l`. The second product is
    needed: where weights do not interact, the removal of a weight costs :math:`\tfrac12 w_i^2 H_{ii}`, which is in
    :math:`p'Hp` alone.

    Args:
        operator: Hessian or GGN, ``(n, n)``.
        weights: the weights under study, ``(n,)``.
        gradient: gradient of the risk, ``(n,)``.
        sizes: number of entries of each layer in the flat vectors, by name and in their order; see `layer_sizes`.
        sparsity: fraction of all weights that the mask removes.
        order: indices of the weights, ``(n,)``, the first to be removed first; by default the smallest magnitudes
            first.

    Returns:
        A cost for each layer, in the order of ``sizes``.

    Raises:
        InputError: the sizes do not add up to n, or the sparsity is outside [0, 1].

    >>> from torch import nn
    >>> from howsparse.risk import Hessian
    >>> risk = EmpiricalRisk(nn.Linear(4, 2), [(torch.eye(4), torch.tensor([0, 1, 0, 1]))])
    >>> costs = layer_costs(Hessian(risk), risk.flat_weights(), risk.gradient(), layer_sizes(risk), 0.5)
    >>> [(cost.name, cost.sparsity) for cost in costs]
    [('weight', 0.5)]
    """
    if sum(sizes.values()) != weights.numel():
        raise InputError(
            f"the layers have {sum(sizes.values())} weights, the vector {weights.numel()}; give all layers"
        )
    if not 0 <= sparsity <= 1:
        raise InputError(f"sparsity {sparsity:g} is outside [0, 1]; give the fraction of weights to remove")
    order = weights.abs().argsort(stable=True) if order is None else order
    rank = torch.empty_like(order)
    rank[order] = torch.arange(order.numel(), device=order.device)
    removed = rank < round(sparsity * weights.numel())
    following = _next_in_each_layer(rank, removed, list(sizes.values()))
    step, further = torch.where(removed, -weights, 0), torch.where(following, -weights, 0)
    curved = operator @ step
    costs = inner_by_layer(step, gradient + curved / 2, sizes)
    rises = inner_by_layer(further, gradient + curved + (operator @ further) / 2, sizes)
    gone, coming = (inner_by_layer(which, which, sizes) for which in (removed, following))
    return tuple(
        LayerCost(name, size, gone[i] / max(size, 1), costs[i], rises[i] / coming[i] if coming[i] else float("nan"))
        for i, (name, size) in enumerate(sizes.items())
    )


def binding_layers(costs: Sequence[LayerCost], count: int = 3) -> tuple[LayerCost, ...]:
    """The layers that limit the sparsity: those with the highest predicted cost per weight for their next weights.

    Args:
        costs: the layers, as `layer_costs` returns them.
        count: largest number of layers to return.

    >>> layers = [LayerCost("a", 10, 0.5, 0.1, 1e-3), LayerCost("b", 10, 0.9, 0.2, 5e-3)]
    >>> [layer.name for layer in binding_layers(layers, 1)]
    ['b']
    """
    left = [cost for cost in costs if cost.marginal == cost.marginal]
    return tuple(sorted(left, key=lambda cost: -cost.marginal)[:count])


def layer_sizes(risk: EmpiricalRisk) -> dict[str, int]:
    """Number of entries of each weight in the risk's flat vectors, by name and in their order.

    Entries that `torch.nn.utils.prune` holds at zero do not count.

    >>> from torch import nn
    >>> layer_sizes(EmpiricalRisk(nn.Linear(4, 2), [(torch.eye(4), torch.tensor([0, 1, 0, 1]))]))
    {'weight': 8}
    """
    parts = risk.unflatten(torch.ones(risk.num_weights, device=risk.device))
    return {name: int(part.count_nonzero()) for name, part in zip(risk.names, parts, strict=True)}


def inner_by_layer(left: Tensor, right: Tensor, sizes: Mapping[str, int]) -> list[float]:
    """Inner product of two flat vectors over each layer, in float64.

    Args:
        left: ``(n,)``.
        right: ``(n,)``.
        sizes: number of entries of each layer, by name and in their order.

    >>> inner_by_layer(torch.tensor([1.0, 2.0, 3.0]), torch.ones(3), {"a": 2, "b": 1})
    [3.0, 3.0]
    """
    pieces = zip(left.split(list(sizes.values())), right.split(list(sizes.values())), strict=True)
    return [float(torch.dot(a.double(), b.double())) for a, b in pieces]


def _next_in_each_layer(rank: Tensor, removed: Tensor, sizes: Sequence[int]) -> Tensor:
    """Boolean, ``(n,)``: the weights of each layer that follow those removed, in the same order."""
    following = torch.zeros_like(removed)
    start = 0
    for size in sizes:
        own = slice(start, start + size)
        left = int((~removed[own]).sum())
        count = min(left, max(1, round(_BAND * size)))
        by_rank = rank[own].argsort()
        following[own][by_rank[size - left : size - left + count]] = True
        start += size
    return following
