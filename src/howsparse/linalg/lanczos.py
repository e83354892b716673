r"""The Lanczos method, which reduces a symmetric operator to a tridiagonal matrix.

References:
    Golub and Meurant (2010), Matrices, Moments and Quadrature with Applications.
    Simon (1984), The Lanczos algorithm with partial reorthogonalization.
    Daniel, Gragg, Kaufman and Stewart (1976), Reorthogonalization and stable algorithms.
    Hutchinson (1990), A stochastic estimator of the trace of the influence matrix, for the norms that are estimated.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from howsparse.linalg.basis import Basis, dot, norm
from howsparse.linalg.quadrature import Tridiagonal

__all__ = ["Lanczos"]

Array = NDArray[np.float64]

_SUMS = 2  # signed sums of the basis vectors, with which the loss of orthogonality is measured


class Lanczos:
    r"""The Lanczos method for a symmetric operator, with one product for each step and partial reorthogonalisation.

    Vectors have the start vector's dtype and device; coefficients are computed in float64. The basis takes
    ``steps * start.numel()`` numbers, and at most 256 MiB and two vectors more. If memory is too small for that,
    ``storage`` selects a smaller dtype for the basis. The rounding errors of different entries are independent, so the
    inner products of different basis vectors are about the dtype's precision divided by the square root of the length.

    **Orthogonality.** Because of rounding, new vectors lose their orthogonality to the older ones, slowly at first. The
    tridiagonal matrix is that of an orthonormal basis, up to rounding, as long as the inner products with older vectors
    stay below the square root of the precision (Simon, 1984). The whole basis is read only when they reach half of this
    bound. Then the two newest vectors are made orthogonal to the basis together. To measure the inner products, every
    step projects on two sums of all basis vectors with random signs, and takes the mean of the squares.

    **Residuals.** Rounding leaves :math:`r_j = Aq_j - \beta_{j-1}q_{j-1} - \alpha_jq_j - \beta_jq_{j+1} - Qc` in every
    step, where :math:`Qc` was removed along older vectors; docs/theory.md says why this does no harm. The component of
    :math:`r_j` along a Gaussian vector g has the expected square :math:`\lVert r_j\rVert^2`. It needs only the product
    :math:`Ag`, because :math:`g'Aq_j = (Ag)'q_j`. A residual counts as at least the dtype's precision times the length
    of the product.

    Args:
        matvec: the product of the operator with a vector ``(n,)``. It must not keep the vector, which is overwritten.
        start: start vector ``(n,)``, not zero.
        storage: dtype of the stored basis; by default that of the start vector.
        check: a Gaussian vector that is independent of the start vector, and its product, each ``(n,)``. Without it,
            the residuals are only what reorthogonalisation removes from a vector that was orthogonal before.

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
        self._matvec, self._check, self._eps = matvec, check, torch.finfo(start.dtype).eps
        self._last, self._next, self._spare = torch.zeros_like(start), start / norm(start), torch.empty_like(start)
        self._basis = Basis(start, storage or start.dtype)
        self._sums = start.new_zeros((_SUMS, start.numel()))  # of all basis vectors, with random signs
        self._signs = np.random.default_rng(0)
        self._along = [self._along_gaussian(self._next)]  # of each basis vector
        self._scale = 0.0  # largest row sum of the tridiagonal matrix, which is at least its norm
        self._diagonal: list[float] = []
        self._off_diagonal: list[float] = []
        self._residuals: list[float] = []

    @property
    def tridiagonal(self) -> Tridiagonal:
        """The tridiagonal matrix so far, with the norms of the residuals."""
        return Tridiagonal(np.array(self._diagonal), np.array(self._off_diagonal), np.array(self._residuals))

    @property
    def basis(self) -> Tensor:
        """The basis so far, ``(steps, n)``; orthonormal up to about the square root of the dtype's precision."""
        return self._basis.rows()

    @property
    def reads(self) -> int:
        """Number of times that a basis vector was read so far to restore orthogonality."""
        return self._basis.reads

    def step(self) -> bool:
        """Take one step.

        Returns:
            False if no further step is possible; then nothing was done.
        """
        coupling = self._off_diagonal[-1] if self._off_diagonal else 0.0
        if self._off_diagonal and coupling == 0.0:
            return False
        self._store(self._next)
        w, alpha, ideal = self._three_terms(coupling)
        beta, lost = norm(w), self._lost(w)
        self._scale = max(self._scale, coupling + abs(alpha) + beta)
        removed = 0.0
        # The next product enlarges what was lost by up to scale / beta. It must stay short beside the vector itself.
        if lost > 0.5 * math.sqrt(self._eps) * beta or 10 * self._scale * lost > beta**2:
            w, alpha, ideal, removed = self._restored(w, alpha, ideal, coupling)
            beta, lost = norm(w), 0.0
        # A direction that is no longer than the rounding of its product is made of rounding only, and so is one that is
        # no longer than what had to be removed of it.
        rounded = self._eps * math.hypot(coupling, alpha, beta)
        exhausted = len(self._basis) == w.numel() or beta <= max(removed, 10 * rounded)
        self._diagonal.append(alpha)
        self._off_diagonal.append(0.0 if exhausted else beta)
        # By chance, one step can look exact along the Gaussian vector. But its product was rounded.
        seen = ideal if exhausted else ideal - self._along_gaussian(w)
        second_order = lost**2 / beta if beta else 0.0
        self._residuals.append(max(rounded, math.hypot(seen, second_order)))
        if not exhausted:
            self._spare, self._last, self._next = self._last, self._next, w.div_(beta)
            self._along.append((ideal - seen) / beta)
        return not exhausted

    def _store(self, q: Tensor) -> None:
        self._basis.append(q)
        for signed in self._sums:
            signed.add_(q, alpha=1 - 2 * int(self._signs.integers(2)))

    def _three_terms(self, coupling: float) -> tuple[Tensor, float, float]:
        """The product of the newest vector without its components along the last two vectors.

        Returns:
            The new vector, the component of the product along the newest one, and the component of the new vector along
            the Gaussian one as it would be without rounding.
        """
        q, product = self._next, self._matvec(self._next)
        # The operator may return its argument, so the product is not changed in place.
        w = torch.sub(product, self._last, alpha=coupling, out=self._spare)
        alpha = dot(q, w)
        w.sub_(q, alpha=alpha)
        if self._check is None:
            return w, alpha, 0.0
        before, here = (0.0, *self._along)[-2:]
        return w, alpha, dot(self._check[1], q) - coupling * before - alpha * here

    def _lost(self, w: Tensor) -> float:
        """Estimate of the length of ``w``'s part along all basis vectors."""
        return math.sqrt(sum(dot(signed, w) ** 2 for signed in self._sums) / _SUMS)

    def _restored(self, w: Tensor, alpha: float, ideal: float, coupling: float) -> tuple[Tensor, float, float, float]:
        """Make the newest vector and ``w`` orthogonal to the basis, and ``w`` to the newest vector.

        Returns:
            The result of `_three_terms` after this, and the length of the removed part of ``w``.
        """
        from_q, from_w = self._orthogonalised(w)
        left = norm(w)
        if left <= np.linalg.norm(from_w) and 10 * self._eps < left / self._scale < np.linalg.norm(from_q):
            # What the newest vector had lost is longer in its product than what is new. It is orthogonal now.
            w, alpha, ideal = self._three_terms(coupling)
            from_q, from_w = self._orthogonalised(w)
        return w, alpha + float(from_w[-1]), ideal - float(from_w @ self._along), float(np.linalg.norm(from_w))

    def _orthogonalised(self, w: Tensor) -> tuple[Array, Array]:
        """Make the newest vector and ``w`` orthogonal in place. Return what was removed of them along the basis."""
        q, older = self._next, len(self._basis) - 1
        from_q, from_w = self._basis.remove_from([q, w], older)
        left = norm(w)
        if left < 0.7 * math.hypot(left, np.linalg.norm(from_w)):  # cancellation lost digits (Daniel et al., 1976)
            from_w += self._basis.remove_from([w], older)[0]
        self._basis.replace_last(q)
        self._along[-1] -= float(from_q @ self._along[:-1])
        local = dot(q, w)
        w.sub_(q, alpha=local)
        return from_q, np.append(from_w, local)

    def _along_gaussian(self, vector: Tensor) -> float:
        return 0.0 if self._check is None else dot(self._check[0], vector)
