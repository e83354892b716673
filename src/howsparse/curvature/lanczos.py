r"""Lanczos' tridiagonalisation, the quadrature rules it gives, and the brackets they prove.

A symmetric matrix A and a start vector z define a measure: the eigenvalues of A, each weighted by z's share along its
eigenvector. m steps of Lanczos yield the moments of that measure up to degree 2m, and any measure with those moments is
a candidate for it. A rule is such a candidate; a bracket is what all candidates agree on.

References:
    Golub and Meurant (2010), Matrices, Moments and Quadrature with Applications.
    Laurie (1996), Anti-Gaussian quadrature formulas, and Ehrich (2002), for the averaged rule.
    Karlin and Studden (1966), Tchebycheff Systems, for the Chebyshev-Markov-Stieltjes inequalities.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal, solve_banded
from scipy.optimize import minimize_scalar
from torch import Tensor

__all__ = [
    "Lanczos",
    "Rule",
    "Tridiagonal",
    "averaged_gauss",
    "gauss",
    "gauss_radau",
    "markov_bracket",
    "steepest_rule",
]

Array = NDArray[np.float64]
Integrand = Callable[[Array], Array]

_STRIDE = 3  # places between the members first looked at


@dataclass(frozen=True)
class Tridiagonal:
    """What m steps of Lanczos found out.

    Attributes:
        diagonal: ``(m,)``.
        off_diagonal: ``(m,)``; the last entry couples to the step not yet taken, and is 0 if there is none to take.
    """

    diagonal: Array
    off_diagonal: Array

    @property
    def size(self) -> int:
        return self.diagonal.size

    @property
    def complete(self) -> bool:
        """The Krylov space is exhausted: the Gauss rule is the measure itself."""
        return float(self.off_diagonal[-1]) == 0.0

    def first(self, steps: int) -> "Tridiagonal":
        """As it was after ``steps`` steps."""
        return Tridiagonal(self.diagonal[:steps], self.off_diagonal[:steps])

    def extended(self, corner: float) -> "Tridiagonal":
        """One row and column more, with ``corner`` on the diagonal."""
        return Tridiagonal(np.append(self.diagonal, corner), np.append(self.off_diagonal, 0.0))

    def member(self, place: float) -> "Rule":
        """A Radau rule of this matrix by its place in the family, from 0 to 48.

        The family is a circle: as its node moves from 0 to the next one, that one's neighbour arrives at 0. Places are
        even in the logit of the way from 0 to there.
        """
        return gauss_radau(self, self._next_node / (1 + math.exp(24 - place)))

    @cached_property
    def family(self) -> "list[Rule]":
        """Members at even distances of `_STRIDE` places, kept for the many integrands that are tried on them."""
        return [self.member(place) for place in range(0, 49, _STRIDE)]

    @cached_property
    def _next_node(self) -> float:
        """The node next to 0 of the Radau rule with a node there, right of it if there is any."""
        nodes = gauss_radau(self, 0.0).nodes
        others = nodes[np.abs(nodes) > np.abs(nodes).min()]
        return float(others[others > 0].min() if (others > 0).any() else others[others < 0].max())

    def corner(self, node: float) -> float:
        """The corner that makes ``node`` an eigenvalue of the extended matrix."""
        bands = np.zeros((3, self.size))
        bands[0, 1:] = bands[2, :-1] = self.off_diagonal[:-1]
        bands[1] = self.diagonal - node
        last = np.zeros(self.size)
        last[-1] = self.off_diagonal[-1] ** 2
        return float(node + solve_banded((1, 1), bands, last)[-1])


@dataclass(frozen=True)
class Rule:
    """Nodes and the share of the measure at each; the shares add up to 1.

    >>> Rule(np.array([-1.0, 1.0]), np.array([0.5, 0.5])).integrate(np.square)
    1.0
    """

    nodes: Array
    weights: Array

    def integrate(self, f: Integrand) -> float:
        return float(self.weights @ f(self.nodes))

    @staticmethod
    def mean(rules: "list[Rule]") -> "Rule":
        """The average of several rules, as one."""
        nodes = np.concatenate([rule.nodes for rule in rules])
        return Rule(nodes, np.concatenate([rule.weights for rule in rules]) / len(rules))


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


def gauss(tridiagonal: Tridiagonal) -> Rule:
    """The m-node rule, exact for polynomials up to degree 2m - 1."""
    nodes, vectors = eigh_tridiagonal(tridiagonal.diagonal, tridiagonal.off_diagonal[:-1])
    return Rule(np.asarray(nodes, np.float64), np.asarray(vectors[0] ** 2, np.float64))


def gauss_radau(tridiagonal: Tridiagonal, node: float) -> Rule:
    """The (m+1)-node rule with one node prescribed, exact up to degree 2m."""
    if tridiagonal.complete:
        return gauss(tridiagonal)
    return gauss(tridiagonal.extended(tridiagonal.corner(node)))


def averaged_gauss(tridiagonal: Tridiagonal) -> Rule:
    """The mean of Gauss with m - 1 nodes and its anti-Gauss rule, whose error is about the opposite.

    Source: Laurie (1996).
    """
    if tridiagonal.complete or tridiagonal.size < 2:
        return gauss(tridiagonal)
    anti = tridiagonal.off_diagonal.copy()
    anti[-2] *= np.sqrt(2)
    return Rule.mean([gauss(Tridiagonal(tridiagonal.diagonal, anti)), gauss(tridiagonal.first(tridiagonal.size - 1))])


def steepest_rule(tridiagonal: Tridiagonal, f: Integrand) -> Rule:
    r"""Of all rules of the Radau family, the one on which ``f`` is largest.

    For every f that is 1 minus a mixture of decaying exponentials on each side of 0 (both shares in
    `howsparse.geometry` are), no measure with the same 2m moments gives more than this rule, and none gives less
    than Gauss-Radau with its node at 0: the pair is the sharp bracket. Proof in docs/theory.md.

    Args:
        tridiagonal: of the measure.
        f: the integrand, applied to nodes.
    """
    if tridiagonal.complete:
        return gauss(tridiagonal)
    # Along the family f rises to one top and falls again: a coarse look finds its cell, Brent's method the top.
    coarse = tridiagonal.family
    best = max(range(len(coarse)), key=lambda i: coarse[i].integrate(f))
    found = minimize_scalar(
        lambda place: -tridiagonal.member(place).integrate(f),
        bounds=(_STRIDE * (best - 1), _STRIDE * (best + 1)),
        method="bounded",
    )
    return max(tridiagonal.member(found.x), coarse[best], key=lambda rule: rule.integrate(f))


def markov_bracket(tridiagonal: Tridiagonal, f: Integrand, points: int = 200) -> tuple[float, float]:
    r"""Chebyshev, Markov and Stieltjes: bounds on the integral of an even f that rises from 0 at the origin.

    A Radau rule with a node at x bounds the mass below x from both sides, by leaving the node out or in. On x and -x
    that bounds the mass beyond x, and :math:`\int f = \int_0^\infty f'(x)\,\nu(|\lambda| > x)\,dx`. Each x is bounded
    on its own, so the bracket is wider than need be; `steepest_rule` has the sharp one.

    Args:
        tridiagonal: of the measure.
        f: even, 0 at 0, increasing in the absolute value.
        points: how many x to take; mass between two is counted at the end that keeps the bounds true.
    """
    rule = gauss(tridiagonal)
    if tridiagonal.complete:
        return rule.integrate(f), rule.integrate(f)
    largest = float(np.abs(rule.nodes).max()) + float(tridiagonal.off_diagonal[-1])
    grid = np.geomspace(largest * 1e-9, largest, points)
    bounds = [_mass_beyond(tridiagonal, x) for x in grid]
    low, high = np.array([b[0] for b in bounds]), np.array([b[1] for b in bounds])
    # Mass is monotone in x, which tightens the single bounds.
    low, high = np.maximum.accumulate(low[::-1])[::-1], np.minimum.accumulate(high)
    rises = np.diff(f(np.concatenate([[0.0], grid])))
    tail = 1 - f(grid[-1:])[0]
    return float(rises @ low), float(rises @ np.concatenate([[1.0], high[:-1]]) + tail * high[-1])


def _mass_beyond(tridiagonal: Tridiagonal, x: float) -> tuple[float, float]:
    """Bounds on the mass with absolute value above x."""
    right, left = gauss_radau(tridiagonal, x), gauss_radau(tridiagonal, -x)
    above, below = right.nodes - x, -x - left.nodes
    slack = 1e-12 * max(1.0, float(np.abs(right.nodes).max()))
    least = right.weights[above > slack].sum() + left.weights[below > slack].sum()
    most = right.weights[above > -slack].sum() + left.weights[below > -slack].sum()
    return float(least), float(min(1.0, most))


def _dot(a: Tensor, b: Tensor, piece: int = 1 << 22) -> float:
    pieces = zip(a.split(piece), b.split(piece), strict=True)
    return math.fsum(float(torch.dot(x.double(), y.double())) for x, y in pieces)


def _norm(a: Tensor) -> float:
    return float(np.sqrt(_dot(a, a)))
