"""Marginal loss: the order in which the next weights of all layers have the same predicted cost."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from howsparse.pruning.masks import Mask
from howsparse.pruning.orders.diagonal import ggn_diagonal
from howsparse.pruning.orders.order import Order, make_order, risk_for
from howsparse.pruning.prune import pruned
from howsparse.pruning.scores import magnitude_scores
from howsparse.risk.batches import FirstExamples
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.guard import guarded_with_values
from howsparse.risk.losses import Loss, SplitLoss, as_loss, cross_entropy
from howsparse.risk.weights import select_weights

__all__ = ["marginal"]

_FASTEST = 2.0  # how much larger a share of a layer may go in a step than of the network
_BANDS = 32  # bands into which a step's weights of a layer are cut
_CURVATURE_EXAMPLES = 64  # their gradients are taken one by one


@guarded_with_values
def marginal(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = cross_entropy,
    names: Iterable[str] | None = None,
    seed: int = 0,
    steps: int = 20,
    examples: int = 512,
) -> Order:
    r"""The order in which the next weights of all layers have the same predicted cost.

    Within a layer the smallest weights go first, as in magnitude pruning. The number that goes from each layer is
    decided step by step along a path of growing sparsity. The density after step k of K is :math:`(1 - k/K)^2`. At each
    step:

    1. The weights that went before are set to zero. At this pruned network, the gradient g of the loss is computed, and
       the diagonal h of its GGN if the loss has one (a sampled estimate from the first 64 examples).
    2. The next weights of each layer are divided into bands. The bands cover at most twice the share that goes from the
       whole network in this step, because the prediction holds only for small changes. The cost of a band is
       :math:`\sum_i (-g_i w_i + \tfrac12 h_i w_i^2)`: the predicted rise of the loss if the band goes.
    3. The bands with the smallest cost per weight go, until the step has its number of weights. A band never goes
       before an earlier band of its layer: if costs decrease within a layer, they are averaged first (isotonic
       regression).

    The gradient of the pruned network contains the effect of all weights that went before, in all layers, so no
    quadratic model of the whole path is needed.

    Args:
        model: any module; it is not changed.
        batches: batches that can be read several times.
        loss: ``loss(model, batch)``, mean over the batch.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        seed: seed of the sampled diagonal.
        steps: number K of steps; each costs one gradient over the examples and 64 gradients of single examples.
        examples: number of examples that are used: the first ones.

    Returns:
        Scores are positions in the order, from 0.

    Raises:
        InputError: there are no batches, the model has no prunable weight, a name is unknown, or the loss is not
            usable.

    >>> batches = [(torch.eye(3), torch.tensor([0, 1, 0]))]
    >>> marginal(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), batches).mask(0.5).num_kept
    10
    """
    risk = risk_for("marginal", model, batches, loss, names, examples)
    queues = {
        name: size.flatten().cpu().argsort(descending=True, stable=True).flip(0)
        for name, size in magnitude_scores(model, risk.names).items()
    }
    places = _places(model, risk.all_batches, loss, queues, seed, steps)
    scores = {name: places[name].view(w.shape) for name, w in select_weights(model, risk.names).items()}
    return make_order("marginal", model, scores, _note(loss, model, steps, risk.num_examples))


def _note(loss: Loss, model: nn.Module, steps: int, examples: int) -> str:
    with_curvature = isinstance(as_loss(loss, model), SplitLoss)
    terms = "gradient and sampled curvature" if with_curvature else "gradient"
    return f"{terms} at {steps} pruned networks, {examples:,} examples"


def _places(
    model: nn.Module, batches: Iterable[Any], loss: Loss, queues: dict[str, Tensor], seed: int, steps: int
) -> dict[str, Tensor]:
    """The position of each weight in the order, by layer; within a layer weights go in the order of its queue."""
    places = {name: torch.zeros(len(queue), dtype=torch.float64) for name, queue in queues.items()}
    gone = dict.fromkeys(queues, 0)
    total = sum(map(len, queues.values()))
    for k in range(1, steps + 1):
        clock = sum(gone.values())
        count = total - round((1 - k / steps) ** 2 * total) - clock
        if not count:
            continue
        costs = _costs(model, batches, loss, queues, gone, seed + k)
        reach = min(1.0, _FASTEST * count / (total - clock))
        for name, band in _cheapest({name: c[: math.ceil(reach * len(c))] for name, c in costs.items()}, count):
            places[name][queues[name][gone[name] : gone[name] + band]] = clock + torch.arange(band).double()
            gone[name], clock = gone[name] + band, clock + band
    return places


def _costs(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    queues: dict[str, Tensor],
    gone: dict[str, int],
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Predicted rise of the loss for each remaining weight, by layer, in the order of the queues."""
    kept = {name: torch.ones(len(queue), dtype=torch.bool) for name, queue in queues.items()}
    for name, queue in queues.items():
        kept[name][queue[: gone[name]]] = False
    shapes = {name: w.shape for name, w in select_weights(model, queues).items()}
    with pruned(model, Mask({name: part.view(shapes[name]) for name, part in kept.items()})):
        risk = EmpiricalRisk(model, batches, loss, list(queues))
        weights = risk.flat_weights()
        rises = -risk.gradient() * weights
        if isinstance(risk.loss, SplitLoss):
            few = EmpiricalRisk(model, FirstExamples(batches, _CURVATURE_EXAMPLES), loss, list(queues))
            rises += ggn_diagonal(few, exact_up_to=0, seed=seed).values * weights.square() / 2
    parts = {name: part.flatten().cpu() for name, part in zip(queues, risk.unflatten(rises), strict=True)}
    return {name: parts[name][queue[gone[name] :]].double().numpy() for name, queue in queues.items()}


def _cheapest(costs: dict[str, NDArray[np.float64]], count: int) -> Iterator[tuple[str, int]]:
    """The bands with the smallest cost per weight, ``count`` weights in all: layers and numbers of weights."""
    width = max(1, math.ceil(count / _BANDS))
    bands: list[tuple[float, str, int]] = []
    for name, rises in costs.items():
        edges = np.arange(0, min(count, len(rises)), width)
        if len(edges):
            sizes = np.diff(edges, append=min(count, len(rises)))
            means = np.add.reduceat(rises[:count], edges) / sizes
            pace = scipy.optimize.isotonic_regression(means, weights=sizes).x
            bands += [(float(cost), name, int(size)) for cost, size in zip(pace, sizes, strict=True)]
    for _, name, size in sorted(bands, key=lambda band: band[0]):
        if count <= 0:
            return
        yield name, min(size, count)
        count -= size
