"""N:M masks: in every group of M consecutive weights, N stay. Hardware for sparse matrices needs such a pattern."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.pruning.masks import Mask
from howsparse.pruning.orders.order import Order, check_fits
from howsparse.pruning.scores import as_rows, from_rows, magnitude_scores
from howsparse.risk.alone import alone

__all__ = ["n_of_m_mask"]


@alone
def n_of_m_mask(
    model: nn.Module, keep: int, of: int, order: Order | None = None, names: Iterable[str] | None = None
) -> Mask:
    """The mask under which ``keep`` weights stay in every group of ``of`` weights; 2:4 is ``keep=2, of=4``.

    A group is ``of`` consecutive weights of one output, along the layer's input dimension. In a linear layer these are
    weights of one row; in a convolution, of the flattened ``in_channels * kernel`` weights of one output channel, as
    torch's semi-structured matrices read them. In each group the weights with the largest scores stay; of equal scores,
    the first ones.

    A layer whose input dimension is not divisible by ``of`` stays dense: its mask is all True. So the mask's sparsity
    is ``1 - keep / of`` only if there is no such layer.

    Args:
        model: any module; it is not changed.
        keep: number of weights that stay in each group.
        of: number of weights in a group.
        order: scores of the weights; by default their magnitudes.
        names: names of the weights to prune; by default those of the order, or all that are not frozen.

    Returns:
        The mask.

    Raises:
        InputError: ``keep`` is not between 1 and ``of``, or the order does not fit the model.

    Source: Mishra et al. (2021), Accelerating sparse deep neural networks.

    >>> mask = n_of_m_mask(nn.Linear(8, 3), keep=2, of=4)
    >>> mask["weight"].view(3, 2, 4).sum(-1).tolist()
    [[2, 2], [2, 2], [2, 2]]
    """
    if not 1 <= keep <= of:
        raise InputError(f"{keep}:{of} is not a pattern; keep at least 1 and at most all weights of a group, as in 2:4")
    chosen = None if names is None else list(names)
    scores = magnitude_scores(model, chosen) if order is None else check_fits(order, model, chosen).scores
    return Mask({name: _pattern(model, name, score, keep, of) for name, score in scores.items()})


def _pattern(model: nn.Module, name: str, score: Tensor, keep: int, of: int) -> Tensor:
    rows = as_rows(model, name, score)
    if rows.shape[1] % of:
        return torch.ones_like(score, dtype=torch.bool)
    groups = rows.reshape(len(rows), -1, of)
    best = groups.argsort(dim=-1, descending=True, stable=True)[..., :keep]
    kept = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, best, True)
    return from_rows(model, name, kept.reshape(rows.shape), score.shape)
