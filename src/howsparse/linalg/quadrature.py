r"""The quadrature rules that Lanczos' tridiagonal matrix gives, and the brackets they prove.

A symmetric matrix A and a start vector z define a measure: the eigenvalues of A, each weighted by z's share along its
eigenvector. m steps of Lanczos yield the moments of that measure up to degree 2m. Every rule here has these moments, so
it could be the measure itself; a bracket is the range of an integral over all measures that have them.

References:
    Golub and Meurant (2010), Matrices, Moments and Quadrature with Applications.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, eigh_tridiagonal, solve_banded
from scipy.optimize import minimize_scalar

__all__ = [
    "Integrand",
    "Rule",
    "Tridiagonal",
    "gauss",
    "gauss_radau",
    "steepest_rule",
]

Array = NDArray[np.float64]
Integrand = Callable[[Array], Array]

_STRIDE = 3  # places between the members first looked at
_DWARFS = 1 / math.sqrt(np.finfo(np.float64).eps)  # at this ratio the errors of either choice are equal


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
        even in the logit of the way from 0 to there. If 0 is the only node, the next one is at infinity, and places are
        even in the logarithm of the node.
        """
        if math.isinf(self._next_node):
            return gauss_radau(self, float(self.off_diagonal[-1]) * math.exp(place / 2 - 12))
        return gauss_radau(self, self._next_node / (1 + math.exp(24 - place)))

    @cached_property
    def family(self) -> "list[Rule]":
        """Members at even distances of `_STRIDE` places, kept for the many integrands that are tried on them."""
        return [self.member(place) for place in range(0, 49, _STRIDE)]

    @cached_property
    def _next_node(self) -> float:
        """The node next to 0 of the Radau rule with a node there, right of it if there is any; infinite if alone."""
        nodes = gauss_radau(self, 0.0).nodes
        others = nodes[np.abs(nodes) > np.abs(nodes).min()]
        if others.size == 0:
            return math.inf
        return float(others[others > 0].min() if (others > 0).any() else others[others < 0].max())

    def corner(self, node: float) -> float:
        """The corner that makes ``node`` an eigenvalue of the extended matrix; infinite if it is one of this matrix.

        It is infinite as well where ``node`` is so near to an eigenvalue of this matrix that the corner dwarfs the
        matrix: its rounding errors would move the other eigenvalues further than an infinite corner does.
        """
        bands = np.zeros((3, self.size))
        bands[0, 1:] = bands[2, :-1] = self.off_diagonal[:-1]
        bands[1] = self.diagonal - node
        last = np.zeros(self.size)
        last[-1] = self.off_diagonal[-1] ** 2
        try:
            with np.errstate(divide="ignore", over="ignore"):
                beyond = float(solve_banded((1, 1), bands, last)[-1])
        except LinAlgError:
            return math.inf
        size = float(np.abs(self.diagonal).max() + 2 * np.abs(self.off_diagonal).max())
        return node + beyond if abs(beyond) <= _DWARFS * size else math.inf


@dataclass(frozen=True)
class Rule:
    """Nodes and the mass of the measure at each; the masses add up to 1.

    >>> Rule(np.array([-1.0, 1.0]), np.array([0.5, 0.5])).integrate(np.square)
    1.0
    """

    nodes: Array
    masses: Array

    def integrate(self, f: Integrand) -> float:
        return float(self.masses @ f(self.nodes))

    @staticmethod
    def mean(rules: "list[Rule]") -> "Rule":
        """The average of several rules, as one."""
        nodes = np.concatenate([rule.nodes for rule in rules])
        return Rule(nodes, np.concatenate([rule.masses for rule in rules]) / len(rules))


def gauss(tridiagonal: Tridiagonal) -> Rule:
    """The m-node rule, exact for polynomials up to degree 2m - 1."""
    nodes, vectors = eigh_tridiagonal(tridiagonal.diagonal, tridiagonal.off_diagonal[:-1])
    return Rule(np.asarray(nodes, np.float64), np.asarray(vectors[0] ** 2, np.float64))


def gauss_radau(tridiagonal: Tridiagonal, node: float) -> Rule:
    """The (m+1)-node rule with one node prescribed, exact up to degree 2m.

    Where the Gauss rule has that node already, the rule is the Gauss rule: the node that Radau would add has gone to
    infinity, and its mass to 0. It is exact up to degree 2m - 1.

    Args:
        tridiagonal: of the measure, m steps.
        node: where the rule has a node.

    >>> gauss_radau(Tridiagonal(np.zeros(1), np.ones(1)), 0.0)  # mean 0 and variance 1: Gauss has its node at 0
    Rule(nodes=array([0.]), masses=array([1.]))
    """
    if tridiagonal.complete:
        return gauss(tridiagonal)
    corner = tridiagonal.corner(node)
    if math.isfinite(corner):
        return gauss(tridiagonal.extended(corner))
    rule = gauss(tridiagonal)
    nodes = rule.nodes.copy()
    nodes[np.abs(nodes - node).argmin()] = node  # nearly there already
    return Rule(nodes, rule.masses)


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
