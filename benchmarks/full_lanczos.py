"""Lanczos as it was before partial reorthogonalisation, for `benchmarks.vectors`: the whole basis in every step."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["FullLanczos"]

_ROWS, _COLUMNS, _DOT = 32, 1 << 14, 1 << 22


class FullLanczos:
    """Every step reads all earlier vectors twice, and takes its inner products over pieces of 2^22 numbers.

    Args:
        matvec: the product of the operator with a vector ``(n,)``.
        start: start vector ``(n,)``.
        storage: dtype of the stored basis.
        check: a Gaussian vector and its product, each ``(n,)``.
    """

    def __init__(
        self, matvec: Callable[[Tensor], Tensor], start: Tensor, storage: torch.dtype, check: tuple[Tensor, Tensor]
    ) -> None:
        self._matvec, self._storage, self._check = matvec, storage, check
        self._last = self._next = start / _norm(start)
        self._chunks: list[Tensor] = []
        self._length, self._coupling = 0, 0.0
        self.reads = 0

    def step(self) -> bool:
        """Take one step; the coefficients are not kept."""
        q = self._next
        self._append(q)
        w = self._matvec(q)
        _norm(w)
        w = torch.sub(w, q, alpha=_dot(q, w))
        if self._coupling:
            w.sub_(self._last, alpha=self._coupling)
        before = _norm(w)
        self._remove_basis(w)
        if _norm(w) < 0.7 * before:
            self._remove_basis(w)
        self._coupling = _norm(w)
        self._last, self._next = q, w.div_(self._coupling)
        _dot(self._check[0], self._next)
        _dot(self._check[1], q)
        return True

    def _append(self, vector: Tensor) -> None:
        if self._length % _ROWS == 0:
            self._chunks.append(vector.new_empty((_ROWS, vector.numel()), dtype=self._storage))
        self._chunks[-1][self._length % _ROWS] = vector
        self._length += 1

    def _remove_basis(self, w: Tensor) -> None:
        self.reads += 2 * self._length
        for i, chunk in enumerate(self._chunks):
            rows = chunk[: self._length - i * _ROWS]
            pieces = list(zip(rows.split(_COLUMNS, 1), w.split(_COLUMNS), strict=True))
            along = torch.zeros(len(rows), dtype=torch.float64)
            for part, of_w in pieces:
                along.add_(part.to(w.dtype) @ of_w)
            for part, of_w in pieces:
                of_w.addmv_(part.to(w.dtype).T, along.to(w.dtype), alpha=-1)


def _dot(a: Tensor, b: Tensor) -> float:
    pieces = zip(a.split(_DOT), b.split(_DOT), strict=True)
    return math.fsum(float(torch.dot(x.double(), y.double())) for x, y in pieces)


def _norm(a: Tensor) -> float:
    return math.sqrt(_dot(a, a))
