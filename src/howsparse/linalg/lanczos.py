"""The Lanczos method, which reduces a symmetric operator to a tridiagonal matrix.

References:
    Golub and Meurant (2010), Matrices, Moments and Quadrature with Applications.
    Daniel, Gragg, Kaufman and Stewart (1976), Reorthogonalization and stable algorithms.
    Hutchinson (1990), A stochastic estimator of the trace of the influence matrix, for the norm of the residuals.
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
    r"""The Lanczos method for a symmetric operator, with one product for each step and full reorthogonalisation.

    Vectors have the start vector's dtype and device; coefficients are computed in float64. The basis takes
    ``steps * start.numel()`` numbers, and at most 256 MiB more. If memory is too small for that, ``storage`` selects a
    smaller dtype for the basis. The rounding errors of different entries are independent, so the inner products of
    different basis vectors are about the dtype's precision divided by the square root of the vector length.

    Rounding leaves a residual :math:`r_j = Aq_j - \beta_{j-1}q_{j-1} - \alpha_jq_j - \beta_jq_{j+1}` in every step. Its
    component along a Gaussian vector g has the expected square :math:`\lVert r_j\rVert^2`, and :math:`Ag` is the only
    product that it needs: it is :math:`(Ag)'q_j - \beta_{j-1}g'q_{j-1} - \alpha_jg'q_j - \beta_jg'q_{j+1}`. What
    reorthogonalisation removes is a part of the residual that is known, and it is added. No residual counts as less
    than the dtype's precision times the length of the product.

    Args:
        matvec: the product of the operator with a vector ``(n,)``.
        start: start vector ``(n,)``, not zero.
        storage: dtype of the stored basis; by default that of the start vector.
        check: a Gaussian vector that is independent of the start vector, and its product, each ``(n,)``. Without it,
            the residuals are only the parts that reorthogonalisation removes.

    >>> lanczos = Lanczos(lambda v: torch.tensor([1.0, 2.0, 3.0]) * v, torch.ones(3))
    >>> while lanczos.step(): pass
    >>> from howsparse.linalg import gauss
    >>> gauss(lanczos.tridiagonal).nodes.round(6)
    array([1., 2., 3.])
    """

    def __init__(
        self,
        matvec: Callable[[Tensor], Tensor],
        start: Tensor,
        storage: torch.dtype | None = None,
        check: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self._matvec, self._check = matvec, check
        self._last = self._next = start / _norm(start)
        self._along = [0.0 if check is None else _dot(check[0], self._next)]  # of each vector along the Gaussian one
        self._basis = _Basis(start, storage or start.dtype)
        self._diagonal: list[float] = []
        self._off_diagonal: list[float] = []
        self._residuals: list[float] = []

    @property
    def tridiagonal(self) -> Tridiagonal:
        """The tridiagonal matrix so far, with the norms of the residuals."""
        return Tridiagonal(np.array(self._diagonal), np.array(self._off_diagonal), np.array(self._residuals))

    @property
    def basis(self) -> Tensor:
        """The orthonormal basis so far, ``(steps, n)``."""
        return self._basis.rows()

    def step(self) -> bool:
        """Take one step. Return False if no further step is possible."""
        if self._off_diagonal and self._off_diagonal[-1] == 0.0:
            return False
        q, coupling = self._next, self._off_diagonal[-1] if self._off_diagonal else 0.0
        self._basis.append(q)
        w = self._matvec(q)
        size = _norm(w)
        alpha = _dot(q, w)
        w = torch.sub(w, q, alpha=alpha)  # not in place: an operator may return its argument
        if coupling:
            w.sub_(self._last, alpha=coupling)
        removed = self._remove_basis(w)
        beta = _norm(w)
        # What is removed is rounding. A direction that is no longer than that is made of rounding only.
        rounded = torch.finfo(q.dtype).eps * max(size, abs(alpha))
        least = max(removed, 10 * rounded)
        exhausted = len(self._basis) == q.numel() or beta <= least
        self._diagonal.append(alpha)
        self._off_diagonal.append(0.0 if exhausted else beta)
        if not exhausted:
            self._last, self._next = q, w.div_(beta)
        # By chance, one step can look exact along the Gaussian vector. But its product was rounded.
        self._residuals.append(max(rounded, math.hypot(removed, self._seen(q, coupling))))
        return not exhausted

    def _remove_basis(self, w: Tensor) -> float:
        """Make ``w`` orthogonal to the basis, in place. Return the norm of what was removed."""
        before = _norm(w)
        removed = self._basis.remove_from(w)
        if _norm(w) < 0.7 * before:  # cancellation lost digits, so a second pass is needed (Daniel et al., 1976)
            removed = math.hypot(removed, self._basis.remove_from(w))
        return removed

    def _seen(self, q: Tensor, coupling: float) -> float:
        """The component along the Gaussian vector of the residual of the last step, which was taken from ``q``."""
        if self._check is None:
            return 0.0
        gaussian, product = self._check
        self._along.append(_dot(gaussian, self._next))
        before, here, after = (0.0, *self._along)[-3:]
        return _dot(product, q) - coupling * before - self._diagonal[-1] * here - self._off_diagonal[-1] * after


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

    def remove_from(self, w: Tensor) -> float:
        """Subtract from ``w``, in place, its components along these vectors (classical Gram-Schmidt in each chunk).

        Returns:
            The norm of what was subtracted, for an orthonormal basis.
        """
        squared = 0.0
        for i, chunk in enumerate(self._chunks):
            rows = chunk[: self._length - i * self._chunk_rows]
            along = torch.zeros(len(rows), dtype=torch.float64, device=w.device)
            for part, of_w in _pieces(rows, w):
                along.add_(part @ of_w)
            amounts = along.to(w.dtype)
            for part, of_w in _pieces(rows, w):
                of_w.addmv_(part.T, amounts, alpha=-1)
            squared += float(along @ along)
        return math.sqrt(squared)


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
