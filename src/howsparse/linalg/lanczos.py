"""Lanczos' tridiagonalisation of a symmetric operator.

References:
    Golub and Meurant (2010), Matrices, Moments and Quadrature with Applications.
    Daniel, Gragg, Kaufman and Stewart (1976), Reorthogonalization and stable algorithms.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from howsparse.linalg.quadrature import Tridiagonal

__all__ = ["Lanczos"]


class Lanczos:
    """Tridiagonalises a symmetric operator, one product a step, with full reorthogonalisation.

    Vectors have the start vector's dtype and device; coefficients are computed in float64. The basis takes
    ``steps * start.numel()`` numbers. Where that is too much, ``storage`` keeps it in fewer bits: the rounding of
    different entries is independent, so that overlaps stay of the order of its precision over the root of the length.

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
        self._storage = storage or start.dtype
        self._last = self._next = start / _norm(start)
        self._basis: list[Tensor] = []
        self._diagonal: list[float] = []
        self._off_diagonal: list[float] = []

    @property
    def tridiagonal(self) -> Tridiagonal:
        return Tridiagonal(np.array(self._diagonal), np.array(self._off_diagonal))

    @property
    def basis(self) -> Tensor:
        """The orthonormal basis so far, ``(steps, n)``."""
        return torch.stack(self._basis)

    def step(self) -> bool:
        """Take one step; False once the Krylov space is exhausted."""
        if self._off_diagonal and self._off_diagonal[-1] == 0.0:
            return False
        q = self._next
        self._basis.append(q.to(self._storage))
        w = self._matvec(q)
        size = _norm(w)
        alpha = _dot(q, w)
        w = torch.sub(w, q, alpha=alpha)  # not in place: an operator may return its argument
        if self._off_diagonal:
            w.sub_(self._last, alpha=self._off_diagonal[-1])
        before = _norm(w)
        self._orthogonalise(w)
        beta = _norm(w)
        if beta < 0.7 * before:  # much was cancelled: what is left needs a second pass (Daniel et al., 1976)
            self._orthogonalise(w)
            beta = _norm(w)
        exhausted = len(self._basis) == q.numel() or beta <= 10 * torch.finfo(q.dtype).eps * max(size, abs(alpha))
        self._diagonal.append(alpha)
        self._off_diagonal.append(0.0 if exhausted else beta)
        if not exhausted:
            self._last, self._next = q, w.div_(beta)
        return not exhausted

    def _orthogonalise(self, w: Tensor) -> None:
        for stored in self._basis:
            q = stored.to(w.dtype)
            w.sub_(q, alpha=float(torch.dot(q, w)))


def _dot(a: Tensor, b: Tensor, piece: int = 1 << 22) -> float:
    pieces = zip(a.split(piece), b.split(piece), strict=True)
    return math.fsum(float(torch.dot(x.double(), y.double())) for x, y in pieces)


def _norm(a: Tensor) -> float:
    return float(np.sqrt(_dot(a, a)))
