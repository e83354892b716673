"""The normal equations of least squares over the rows of a layer, each output with its own kept weights."""

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["NormalEquations"]

_BATCH_NUMBERS = 1 << 25  # numbers of all matrices that are factored together


class NormalEquations:
    r"""Sums over positions x of the products that least squares needs.

    For each output it finds the change d of the kept weights K (and of the bias) that minimises

    .. math:: \sum_x (r(x) - x_K'd)^2 + \lambda |d|^2,

    where r is the present error of the output. The solution is :math:`(G_{KK} + \lambda)^{-1} b_K` with G the sum of
    xx' and b the sum of x r. Lambda is ``ridge`` times the mean of G's diagonal. The bias has no ridge.

    Args:
        groups: number of groups, each with its own inputs and outputs.
        features: number of inputs of an output.
        outputs: number of outputs of a group.
        bias: whether a bias is changed too.
        like: a tensor on the device of the computation, which is in float64.

    Source: Hoerl and Kennard (1970), Ridge regression: biased estimation for nonorthogonal problems.

    >>> equations = NormalEquations(1, 2, 1, False, torch.zeros(1))
    >>> equations.add(torch.eye(2)[None, None], torch.tensor([[[[4.0, 6.0]]]]))
    >>> equations.solve(torch.tensor([[[True, False]]]), ridge=1.0).round(decimals=6).tolist()
    [[[2.0, 0.0]]]
    """

    def __init__(self, groups: int, features: int, outputs: int, bias: bool, like: Tensor) -> None:
        self._bias = bias
        size = features + bias
        self.gram = torch.zeros(groups, size, size, dtype=torch.float64, device=like.device)
        self.right = torch.zeros(groups, outputs, size, dtype=torch.float64, device=like.device)

    def add(self, inputs: Tensor, missing: Tensor) -> None:
        """Add positions. Each position belongs to one part. With parts, no data need to be copied.

        Args:
            inputs: ``(groups, parts, features, positions)``.
            missing: the error of the outputs, target minus present value, ``(groups, parts, outputs, positions)``.
        """
        size = inputs.shape[2]
        self.gram[:, :size, :size] += _products(inputs, inputs)
        self.right[..., :size] += _products(missing, inputs)
        if self._bias:
            sums = inputs.sum((1, 3))
            self.gram[:, -1, :size] += sums
            self.gram[:, :size, -1] += sums
            self.gram[:, -1, -1] += inputs.shape[1] * inputs.shape[3]
            self.right[..., -1] += missing.sum((1, 3))

    def solve(self, kept: Tensor, ridge: float) -> Tensor:
        """The change of each weight that stays; 0 for the others.

        Args:
            kept: which weights stay, ``(groups, outputs, features)``.
            ridge: lambda as a fraction of the mean of the diagonal; above 0.

        Returns:
            ``(groups, outputs, features)``, float64; one more feature, the last, if there is a bias.

        Raises:
            torch.linalg.LinAlgError: the matrix of some kept features is singular in float64, in spite of the ridge.
        """
        if self._bias:
            kept = torch.cat([kept, torch.ones_like(kept[..., :1])], dim=-1)
        change = torch.zeros_like(self.right)
        for g, gram in enumerate(self.gram):
            diagonal = gram.diagonal()
            weights = len(diagonal) - self._bias
            shift = torch.full_like(diagonal, ridge * float(diagonal[:weights].mean()))
            shift[weights:] = 0
            seen = kept[g] & (diagonal + shift > 0)  # an input that is always 0 says nothing about its weight
            _solve_rows(gram + shift.diag(), self.right[g], seen, change[g])
        return change


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Inner products over parts and positions, ``(groups, rows of left, rows of right)``."""
    if len(left) == 1:  # without a copy
        empty = left.new_zeros(left.shape[2], right.shape[2])
        return torch.addbmm(empty, left[0], right[0].mT)[None]
    rows = [each.transpose(1, 2).flatten(2) for each in (left, right)]
    return rows[0] @ rows[1].mT


def _solve_rows(gram: Tensor, right: Tensor, kept: Tensor, change: Tensor) -> None:
    """Solve the block of the kept features for each row, in batches of rows with similar numbers of them."""
    if bool((kept == kept[0]).all()):
        chosen = kept[0].nonzero().flatten()
        factor = torch.linalg.cholesky(gram[chosen][:, chosen])
        change[:, chosen] = torch.cholesky_solve(right[:, chosen].T, factor).T
        return
    counts = kept.sum(1)
    for rows in _batches(counts):
        width = int(counts[rows].max())
        if width == 0:
            continue
        columns = kept[rows].to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :width]
        filled = torch.arange(width, device=kept.device) < counts[rows][:, None]
        blocks = gram[columns[:, :, None], columns[:, None, :]]
        blocks.mul_(filled[:, :, None] & filled[:, None, :])
        blocks.diagonal(dim1=1, dim2=2).add_(~filled)
        known = (right[rows].gather(1, columns) * filled)[..., None]
        found = torch.cholesky_solve(known, torch.linalg.cholesky(blocks))[..., 0]
        change[rows] = change[rows].scatter(1, columns, found * filled)


def _batches(counts: Tensor) -> Iterator[Tensor]:
    """Batches of rows in the order of their counts; the matrices of a batch fit in memory."""
    order = counts.argsort(descending=True, stable=True)
    start = 0
    while start < len(order):
        width = max(1, int(counts[order[start]]))
        size = max(1, _BATCH_NUMBERS // width**2)
        yield order[start : start + size]
        start += size
