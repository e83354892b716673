"""The Lanczos method, which reduces a symmetric operator to a tridiagonal matrix.

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

_CHUNK_ROWS, _CHUNK_BYTES = 32, 1 << 28  # largest size of one allocated chunk of the basis, in rows and in bytes
_CPU_COLUMNS = 1 << 14  # long float32 sums lose digits on a CPU, so float64 adds up the sums of pieces of this length
_PIECE_NUMBERS = 1 << 24  # numbers of a half-precision chunk that a GPU converts in one piece


class Lanczos:
    """The Lanczos method for a symmetric operator, with one product for each step and full reorthogonalisation.

    Vectors have the start vector's dtype and device; coefficients are computed in float64. The basis takes
    ``steps * start.numel()`` numbers, and at most 256 MiB more. If memory is too small for that, ``storage`` selects a
    smaller dtype for the basis. The rounding errors of different entries are independent, so the inner products of
    different basis vectors are about the dtype's precision divided by the square root of the vector length.

    Args:
        matvec: the product of the operator with a vector ``(n,)``.
        start: start vector ``(n,)``, not zero.
        storage: dtype of the stored basis; by default that of the start vector.

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
        """Take one step. Return False if no further step is possible."""
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
        if beta < 0.7 * before:  # cancellation lost digits, so a second pass is needed (Daniel et al., 1976)
            self._basis.remove_from(w)
            beta = _norm(w)
        exhausted = len(self._basis) == q.numel() or beta <= 10 * torch.finfo(q.dtype).eps * max(size, abs(alpha))
        self._diagonal.append(alpha)
        self._off_diagonal.append(0.0 if exhausted else beta)
        if not exhausted:
            self._last, self._next = q, w.div_(beta)
        return not exhausted


class _Basis:
    """Orthonormal vectors, stored as rows of matrices, so that one matrix product projects on many of them."""

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
        """Subtract from ``w``, in place, its components along these vectors (classical Gram-Schmidt in each chunk)."""
        for i, chunk in enumerate(self._chunks):
            rows = chunk[: self._length - i * self._chunk_rows]
            along = torch.zeros(len(rows), dtype=torch.float64, device=w.device)
            for part, of_w in _pieces(rows, w):
                along.add_(part @ of_w)
            amounts = along.to(w.dtype)
            for part, of_w in _pieces(rows, w):
                of_w.addmv_(part.T, amounts, alpha=-1)


def _pieces(rows: Tensor, w: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Matching column pieces of rows and vector, in the vector's dtype; a single piece on a GPU with equal dtypes."""
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
