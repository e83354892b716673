"""Lanczos' tridiagonalisation of a symmetric operator.

References:
    Golub and Meurant (2010), Matrices, Moments and Quadrature with Applications.
    Daniel, Gragg, Kaufman and Stewart (1976), Reorthogonalization and stable algorithms.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from howsparse.linalg.quadrature import Tridiagonal

__all__ = ["Lanczos"]

_CHUNK_ROWS, _CHUNK_BYTES = 32, 1 << 28  # of the basis, allocated at once: as many rows as keep within both
_CPU_COLUMNS = 1 << 14  # a CPU's float32 sums lose digits with their length, so float64 adds up shorter ones
_PIECE_NUMBERS = 1 << 24  # of a chunk in half precision, converted at once on a GPU


class Lanczos:
    """Tridiagonalises a symmetric operator, one product a step, with full reorthogonalisation.

    Vectors have the start vector's dtype and device; coefficients are computed in float64. The basis takes
    ``steps * start.numel()`` numbers, and at most 256 MiB more. Where that is too much, ``storage`` keeps it in fewer
    bits: the rounding of different entries is independent, so that overlaps stay of the order of its precision over the
    root of the length.

    Args:
        matvec: the product with the operator.
        start: start vector, not zero.
        storage: dtype of the basis; the start vector's unless given.

    >>> lanczos = Lanczos(lambda v: torch.tensor([1.0, 2.0, 3.0]) * v, torch.ones(3))
    >>> while lanczos.step(): pass
    >>> from howsparse.linalg import gauss
    >>> gauss(lanczos.tridiagonal).nodes.round(6)
    array([1., 2., 3.])
    """

    def __init__(self, matvec: Callable[[Tensor], Tensor], start: Tensor, storage: torch.dtype | None = None) -> None:
        self._matvec = matvec
        self._last = self._next = start / _norm(start)
        self._basis = _Basis(start, storage or start.dtype)
        self._diagonal: list[float] = []
        self._off_diagonal: list[float] = []

    @property
    def tridiagonal(self) -> Tridiagonal:
        return Tridiagonal(np.array(self._diagonal), np.array(self._off_diagonal))

    @property
    def basis(self) -> Tensor:
        """The orthonormal basis so far, ``(steps, n)``."""
        return self._basis.rows()

    def step(self) -> bool:
        """Take one step; False once the Krylov space is exhausted."""
        if self._off_diagonal and self._off_diagonal[-1] == 0.0:
            return False
        q = self._next
        self._basis.append(q)
        w = self._matvec(q)
        size = _norm(w)
        alpha = _dot(q, w)
        w = torch.sub(w, q, alpha=alpha)  # not in place: an operator may return its argument
        if self._off_diagonal:
            w.sub_(self._last, alpha=self._off_diagonal[-1])
        before = _norm(w)
        self._basis.remove_from(w)
        beta = _norm(w)
        if beta < 0.7 * before:  # much was cancelled: what is left needs a second pass (Daniel et al., 1976)
            self._basis.remove_from(w)
            beta = _norm(w)
        exhausted = len(self._basis) == q.numel() or beta <= 10 * torch.finfo(q.dtype).eps * max(size, abs(alpha))
        self._diagonal.append(alpha)
        self._off_diagonal.append(0.0 if exhausted else beta)
        if not exhausted:
            self._last, self._next = q, w.div_(beta)
        return not exhausted


class _Basis:
    """Orthonormal vectors as the rows of matrices, so that a vector is projected by a few products with matrices."""

    def __init__(self, like: Tensor, storage: torch.dtype) -> None:
        self._like, self._storage = like, storage
        self._chunk_rows = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // (like.numel() * storage.itemsize)))
        self._chunks: list[Tensor] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, vector: Tensor) -> None:
        row = self._length % self._chunk_rows
        if row == 0:
            self._chunks.append(self._like.new_empty((self._chunk_rows, self._like.numel()), dtype=self._storage))
        self._chunks[-1][row] = vector
        self._length += 1

    def rows(self) -> Tensor:
        return torch.cat(self._chunks)[: self._length]

    def remove_from(self, w: Tensor) -> None:
        """Take out of ``w`` its components along these vectors, in place: Gram-Schmidt, classical within a chunk."""
        for i, chunk in enumerate(self._chunks):
            rows = chunk[: self._length - i * self._chunk_rows]
            along = torch.zeros(len(rows), dtype=torch.float64, device=w.device)
            for part, of_w in _pieces(rows, w):
                along.add_(part @ of_w)
            amounts = along.to(w.dtype)
            for part, of_w in _pieces(rows, w):
                of_w.addmv_(part.T, amounts, alpha=-1)


def _pieces(rows: Tensor, w: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and vector by columns, in the vector's dtype; on a GPU whole where nothing needs to be converted."""
    if w.device.type == "cpu":
        width = _CPU_COLUMNS
    else:
        width = w.numel() if rows.dtype == w.dtype else max(1, _PIECE_NUMBERS // len(rows))
    for part, of_w in zip(rows.split(width, 1), w.split(width), strict=True):
        yield part.to(w.dtype), of_w


def _dot(a: Tensor, b: Tensor, piece: int = 1 << 22) -> float:
    pieces = zip(a.split(piece), b.split(piece), strict=True)
    return math.fsum(float(torch.dot(x.double(), y.double())) for x, y in pieces)


def _norm(a: Tensor) -> float:
    return float(np.sqrt(_dot(a, a)))
