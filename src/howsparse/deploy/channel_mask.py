"""Masks that remove whole channels, so that compaction makes a network smaller and faster."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.deploy.channels import ChannelGroup, inner_groups
from howsparse.deploy.constants import LAYERS
from howsparse.deploy.copies import plain_copy
from howsparse.deploy.timing import OF_NETWORKS, called, of_batch
from howsparse.errors import InputError, first_line
from howsparse.pruning.masks import Mask
from howsparse.pruning.orders.order import Order, check_fits
from howsparse.risk.alone import alone
from howsparse.risk.weights import select_weights

__all__ = ["channel_mask"]


@alone
def channel_mask(
    model: nn.Module,
    example: Any,
    saved: float,
    order: Order | None = None,
    *,
    multiple: int = 8,
    names: Iterable[str] | None = None,
) -> Mask:
    """The mask that removes whole channels until a fraction of the multiplications is saved.

    A channel is an output of a linear layer or a convolution: the weights that make it, and the weights of the layers
    that read it. All of them are removed, so that `howsparse.compact` takes the channel out of the network. Channels
    that a residual sum couples go together. The dependency graph of Torch-Pruning says which weights belong to one.

    The worth of a channel is the sum of its weights' scores. Channels with the least worth for each multiplication go
    first. So scores of different layers must be comparable: those of the order "curvature" are, because they predict
    rises of the loss. Without an order, the score of a weight is its share of the squared norm of its layer.

    Processors multiply in blocks of channels, and other numbers of channels save less time. So channels go ``multiple``
    at a time, and layers that lose channels keep a multiple of this number.

    Args:
        model: any module; it is not changed.
        example: an input: a tensor, a tuple of arguments, or a dict of keyword arguments.
        saved: fraction of the multiplications in linear layers and convolutions to save, in (0, 1).
        order: scores of the weights, which must not be negative; by default shares of squared norms.
        multiple: number of channels that go at a time.
        names: names of the weights to prune; by default those of the order, or all that are not frozen. A channel stays
            if one of its weights is not among them.

    Returns:
        The mask. It saves the fraction, or up to ``multiple`` channels more.

    Raises:
        InputError: ``saved`` or ``multiple`` is out of range, or less can be saved; the order does not fit the model or
            has negative scores; the network does not take the example, or cannot be traced; or torch-pruning is not
            installed.

    Source: Theis et al. (2018), Faster gaze prediction with dense networks and Fisher pruning, for worth by cost; Fang
    et al. (2023), DepGraph: Towards Any Structural Pruning, for the channels that belong together.

    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> mask = channel_mask(model, torch.zeros(1, 4), saved=0.5)
    >>> [tuple(kept.shape) for kept in mask.values()], mask.sparsity
    ([(16, 4), (2, 16)], 0.5)
    >>> mask.apply_(model)
    >>> from howsparse.deploy.compact import compact
    >>> compact(model, torch.zeros(1, 4))[0].out_features
    8
    """
    if not 0 < saved < 1:
        raise InputError(f"saved is {saved:g}; give a fraction of the multiplications, between 0 and 1")
    if multiple < 1:
        raise InputError(f"multiple is {multiple}; give a number of channels of at least 1")
    scores = _shares(model, names) if order is None else _summable(check_fits(order, model, names))
    costs, groups = _traced(model, example)
    steps = [step for group in groups for step in _steps(group, scores, costs, multiple)]
    mask = Mask({name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()})
    goal = saved * sum(costs.values())
    for step in sorted(steps, key=lambda step: step.price):
        if goal <= 0:
            return mask
        goal -= sum(_remove(mask[part.name], part) * costs[part.name] / mask[part.name].numel() for part in step.parts)
    if goal > 0:
        most = saved - goal / sum(costs.values())
        raise InputError(
            f"channels of this network can save at most {most:.3g} of its multiplications, and saved is {saved:g};"
            " save less, or use a smaller multiple"
        )
    return mask


@dataclass(frozen=True)
class _Part:
    """Channels of a weight that belong to channels of a group.

    Attributes:
        name: the weight's name.
        dim: 0 if the weight makes the channels, 1 if it reads them.
        channels: their numbers along this dimension.
        roots: for each of them, its number in the group.
    """

    name: str
    dim: int
    channels: Tensor
    roots: Tensor


@dataclass(frozen=True)
class _Step:
    """Channels that go at a time, and their worth for each multiplication."""

    price: float
    parts: list[_Part]


def _shares(model: nn.Module, names: Iterable[str] | None) -> dict[str, Tensor]:
    """Each weight's share of the squared norm of its layer."""
    squares = {name: w.detach().square() for name, w in select_weights(model, names).items()}
    return {name: each / each.sum().clamp(min=torch.finfo(each.dtype).tiny) for name, each in squares.items()}


def _summable(order: Order) -> dict[str, Tensor]:
    """The scores of an order. Weights that were removed before have none, and count as 0."""
    if any(bool(((score < 0) & score.isfinite()).any()) for score in order.scores.values()):
        raise InputError(
            f"order '{order.name}' has negative scores, so that their sums over channels say nothing; use curvature"
        )
    return {name: score.clamp(min=0) for name, score in order.scores.items()}


def _traced(model: nn.Module, example: Any) -> tuple[dict[str, float], list[list[_Part]]]:
    """Multiplications of each layer for one example, by the weight's name; and the groups of channels."""
    plain = plain_copy(model).eval()
    for parameter in plain.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    names = {module: f"{name}.weight".lstrip(".") for name, module in plain.named_modules()}
    inputs = of_batch(example, 2)
    try:
        costs = {names[layer]: cost / 2 for layer, cost in _multiplications(plain, inputs).items()}
    except OF_NETWORKS as error:
        raise InputError(
            f"the network does not take the example ({type(error).__name__}: {first_line(error)}); give an input as its"
            " forward takes it, without labels"
        ) from error
    try:
        return costs, [_parts(group, names) for group in inner_groups(plain, inputs)]
    except InputError:
        raise
    except OF_NETWORKS as error:
        raise InputError(
            f"the network cannot be traced ({type(error).__name__}: {first_line(error)}), so its channels are not"
            " known; remove single weights instead"
        ) from error


def _multiplications(model: nn.Module, inputs: Any) -> dict[nn.Module, float]:
    """Multiplications of each linear layer and convolution in a forward pass."""
    found: dict[nn.Module, float] = {}

    def count(layer: nn.Module, _: Any, output: Tensor) -> None:
        weight = layer.get_parameter("weight")
        found[layer] = found.get(layer, 0) + weight.numel() * output.numel() / len(weight)

    handles = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, LAYERS)]
    try:
        with torch.no_grad():
            called(model, inputs)()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _parts(group: ChannelGroup, names: dict[nn.Module, str]) -> list[_Part]:
    return [
        _Part(names[module], 0 if member.makes else 1, torch.tensor(member.channels), torch.tensor(member.roots))
        for member in group.members
        if isinstance(module := member.node.module, LAYERS)
    ]


def _steps(parts: list[_Part], scores: dict[str, Tensor], costs: dict[str, float], multiple: int) -> Iterator[_Step]:
    """What goes one after the other, the least worth for its cost first. All scores and costs are of the full group."""
    if any(part.name not in scores for part in parts):
        return
    width = 1 + max(int(part.roots.max()) for part in parts)
    worth, cost = torch.zeros(2, width, dtype=torch.float64)
    for part in parts:
        score = scores[part.name].detach().cpu().double().transpose(0, part.dim).flatten(1).sum(1)
        worth.index_add_(0, part.roots, score[part.channels])
        cost.index_add_(0, part.roots, torch.full_like(score[part.channels], costs[part.name] / len(score)))
    queue = (worth / cost).argsort(stable=True)
    start = 0
    for end in range(width % multiple or multiple, width, multiple):
        going, start = queue[start:end], end
        chosen = [(part, torch.isin(part.roots, going)) for part in parts]
        yield _Step(
            float(worth[going].sum() / cost[going].sum()),
            [_Part(part.name, part.dim, part.channels[some], part.roots[some]) for part, some in chosen],
        )


def _remove(kept: Tensor, part: _Part) -> int:
    """Remove channels from the mask of a weight. The number of weights that this removes."""
    before = int(kept.sum())
    kept.index_fill_(part.dim, part.channels.to(kept.device), False)
    return before - int(kept.sum())
