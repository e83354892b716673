"""Scores of weights that need no data, and the ranks of scores. A larger score stays longer."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.risk.alone import alone
from howsparse.risk.weights import is_conv1d, select_weights, torch_masks

__all__ = ["as_rows", "from_rows", "magnitude_scores", "random_scores", "rank_fractions", "removed_first"]


@alone
def magnitude_scores(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Absolute values of the weights, by weight name; -inf for weights that torch has pruned.

    Raises:
        InputError: the model has no prunable weight, a name is unknown, or a weight is NaN.

    >>> list(magnitude_scores(nn.Linear(100, 10)))
    ['weight']
    """
    chosen = select_weights(model, names)
    broken = next((name for name, w in chosen.items() if w.isnan().any()), None)
    if broken is not None:
        raise InputError(f"weight '{broken}' has NaN entries; load a checkpoint that did not diverge")
    return removed_first(model, {name: w.detach().abs() for name, w in chosen.items()})


def random_scores(model: nn.Module, names: Iterable[str] | None = None, seed: int = 0) -> dict[str, Tensor]:
    """Independent uniform draws in [0, 1) on the CPU, by weight name; -inf for weights that torch has pruned.

    >>> random_scores(nn.Linear(2, 1), seed=1)["weight"].shape
    torch.Size([1, 2])
    """
    chosen = select_weights(model, names)
    sizes = [w.numel() for w in chosen.values()]
    draws = torch.rand(sum(sizes), generator=torch.Generator().manual_seed(seed)).split(sizes)
    return removed_first(model, {name: d.view(w.shape) for (name, w), d in zip(chosen.items(), draws, strict=True)})


def removed_first(model: nn.Module, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scores with -inf for weights that `torch.nn.utils.prune` has removed, so that these go first.

    >>> removed_first(nn.Linear(2, 1), {"weight": torch.ones(1, 2)})
    {'weight': tensor([[1., 1.]])}
    """
    masks = torch_masks(model)
    return {
        name: s.masked_fill(~masks[name].to(s.device), -torch.inf) if name in masks else s for name, s in scores.items()
    }


def rank_fractions(values: Tensor) -> Tensor:
    """Ranks along the last dimension as fractions: ``-(j + 1/2) / n`` for the j-th largest of n values, j from 0.

    The values with ``rank_fractions >= -d`` are the ``round(d n)`` largest. Of equal values, the first one is larger.

    Args:
        values: ``(..., n)``.

    Returns:
        The fractions, ``(..., n)`` float64, in (-1, 0).

    >>> rank_fractions(torch.tensor([3.0, 1.0, 2.0, 1.0])).tolist()
    [-0.125, -0.625, -0.375, -0.875]
    """
    falling = values.argsort(dim=-1, descending=True, stable=True)
    count = values.shape[-1]
    places = torch.arange(count, dtype=torch.float64, device=values.device).add_(0.5).div_(-count)
    return torch.empty_like(values, dtype=torch.float64).scatter_(-1, falling, places.expand_as(values))


def as_rows(model: nn.Module, name: str, values: Tensor) -> Tensor:
    """A tensor of a weight's shape as a matrix: one row for each output, one column for each weight of this output.

    Args:
        model: the model that has the weight.
        name: the weight's name.
        values: tensor of the weight's shape. For convolutions a row is ``in_channels * kernel``; an embedding has one
            row for each entry of its table.

    >>> as_rows(nn.Conv2d(4, 2, 3), "weight", torch.zeros(2, 4, 3, 3)).shape
    torch.Size([2, 36])
    """
    if _input_first(model, name):
        values = values.transpose(0, 1)
    return values.reshape(len(values), -1)


def from_rows(model: nn.Module, name: str, rows: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `as_rows`, for a weight of shape ``shape``.

    >>> from_rows(nn.Conv2d(4, 2, 3), "weight", torch.zeros(2, 36), torch.Size([2, 4, 3, 3])).shape
    torch.Size([2, 4, 3, 3])
    """
    if not _input_first(model, name):
        return rows.view(shape)
    return rows.view(shape[1], shape[0], *shape[2:]).transpose(0, 1).contiguous()


def _input_first(model: nn.Module, name: str) -> bool:
    """Whether the weight's dimension 0 is the layer's input, not its output."""
    layer = model.get_submodule(name.rpartition(".")[0])
    return is_conv1d(layer) or isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
