r"""Quadrature rules from the tridiagonal matrix of the Lanczos method, and the brackets that follow from them.

A symmetric matrix A and a start vector z define a measure. Its nodes are the eigenvalues of A. The mass at a node is
the fraction of z's squared norm that lies along the eigenvector. m steps of Lanczos give the moments of this measure up
to degree 2m. Several measures have these moments, and every rule in this module is one of them. A bracket is the range
of an integral over all of these measures.

References:
    Golub and Meurant (2010), Matrices, Moments and Quadrature with Applications.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import NDArray

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

_STRIDE = 3  # distance in places between the members of the first search
_DWARFS = 1 / math.sqrt(np.finfo(np.float64).eps)  # at this ratio a finite and an infinite corner have equal errors


@dataclass(frozen=True)
class Tridiagonal:
    """The tridiagonal matrix that m steps of Lanczos compute.

    Attributes:
        diagonal: ``(m,)``.
        off_diagonal: ``(m,)``; the last entry belongs to the next step, and is 0 if no further step is possible.
        residuals: ``(m,)``, the estimated norm of the residual that rounding left in each step, as `Lanczos` measures
            it; None if it was not measured, or if the matrix is exact.

    >>> matrix = Tridiagonal(np.array([1.0, 1.0]), np.array([1.0, 0.0]))  # eigenvalues 0 and 2, no further step
    >>> matrix.size, matrix.complete
    (2, True)
    """

    diagonal: Array
    off_diagonal: Array
    residuals: Array | None = None

    @property
    def size(self) -> int:
        return self.diagonal.size

    @property
    def complete(self) -> bool:
        """Whether no further step is possible. The Gauss rule is then equal to the measure."""
        return float(self.off_diagonal[-1]) == 0.0

    def first(self, steps: int) -> "Tridiagonal":
        """The tridiagonal matrix after the first ``steps`` steps.

        Args:
            steps: number of steps, from 1 to m.

        Returns:
            A matrix with as many rows as steps.
        """
        residuals = None if self.residuals is None else self.residuals[:steps]
        return Tridiagonal(self.diagonal[:steps], self.off_diagonal[:steps], residuals)

    def extended(self, corner: float) -> "Tridiagonal":
        """The matrix with one more row and column, and ``corner`` as its last diagonal entry.

        Args:
            corner: the new diagonal entry.

        Returns:
            A matrix with m + 1 rows.
        """
        return Tridiagonal(np.append(self.diagonal, corner), np.append(self.off_diagonal, 0.0))

    def member(self, place: float) -> "Rule":
        """The Gauss-Radau rule at a place in [0, 48]. All Gauss-Radau rules of this matrix form a family.

        The prescribed node moves from 0 (place 0) to the next node of the rule with a node at 0 (place 48). Both ends
        give the same rule, so all rules of the family lie between them. Places are equally spaced in the logit of the
        node's position between both ends. If 0 is the only node, the next node is at infinity, and places are equally
        spaced in the logarithm of the node.

        Args:
            place: the place of the rule in the family, from 0 to 48.

        Returns:
            The rule, with m + 1 nodes.
        """
        if math.isinf(self._next_node):
            return gauss_radau(self, float(self.off_diagonal[-1]) * math.exp(place / 2 - 12))
        return gauss_radau(self, self._next_node / (1 + math.exp(24 - place)))

    @cached_property
    def family(self) -> "list[Rule]":
        """Members of the family at every `_STRIDE` places. They are stored because many integrands use them."""
        return [self.member(place) for place in range(0, 49, _STRIDE)]

    @cached_property
    def _next_node(self) -> float:
        """The next node of the Gauss-Radau rule with a node at 0.

        This is the smallest positive node. If there is none, it is the largest negative node. If there is no other
        node, it is infinite.
        """
        nodes = gauss_radau(self, 0.0).nodes
        others = nodes[np.abs(nodes) > np.abs(nodes).min()]
        if others.size == 0:
            return math.inf
        return float(others[others > 0].min() if (others > 0).any() else others[others < 0].max())

    def corner(self, node: float) -> float:
        """The corner for which ``node`` is an eigenvalue of the extended matrix.

        It is infinite if ``node`` is an eigenvalue of this matrix. The result is also infinite if ``node`` is so near
        to an eigenvalue that the corner is much larger than the matrix. The rounding errors of such a corner would move
        the other eigenvalues further than an infinite corner does.

        Args:
            node: the wanted eigenvalue.

        Returns:
            The last diagonal entry; infinite as said above.
        """
        bands = np.zeros((3, self.size))
        bands[0, 1:] = bands[2, :-1] = self.off_diagonal[:-1]
        bands[1] = self.diagonal - node
        last = np.zeros(self.size)
        last[-1] = self.off_diagonal[-1] ** 2
        try:
            with np.errstate(divide="ignore", over="ignore"):
                beyond = float(scipy.linalg.solve_banded((1, 1), bands, last)[-1])
        except scipy.linalg.LinAlgError:
            return math.inf
        size = float(np.abs(self.diagonal).max() + 2 * np.abs(self.off_diagonal).max())
        return node + beyond if abs(beyond) <= _DWARFS * size else math.inf


@dataclass(frozen=True)
class Rule:
    """A quadrature rule: nodes and the mass at each node. The sum of the masses is 1.

    Attributes:
        nodes: ``(n,)``, in the unit of an eigenvalue.
        masses: ``(n,)``, the mass at each node.

    >>> Rule(np.array([-1.0, 1.0]), np.array([0.5, 0.5])).integrate(np.square)
    1.0
    """

    nodes: Array
    masses: Array

    def integrate(self, f: Integrand) -> float:
        """The integral of a function by the rule: the sum of its values at the nodes, each times its mass.

        Args:
            f: a function of an array of nodes, ``(n,)``, that returns its values, ``(n,)``.

        Returns:
            The integral.
        """
        return float(self.masses @ f(self.nodes))

    @staticmethod
    def mean(rules: "list[Rule]") -> "Rule":
        """The rule whose integrals are the means of the integrals of several rules.

        Args:
            rules: the rules, at least one.

        Returns:
            A rule with all their nodes.
        """
        nodes = np.concatenate([rule.nodes for rule in rules])
        return Rule(nodes, np.concatenate([rule.masses for rule in rules]) / len(rules))


def gauss(tridiagonal: Tridiagonal) -> Rule:
    """The Gauss rule with m nodes. It is exact for polynomials up to degree 2m - 1.

    Args:
        tridiagonal: tridiagonal matrix of the measure after m steps.

    Returns:
        The rule: its nodes are the eigenvalues, and its masses the squares of the eigenvectors' first entries.

    Source: Golub, Welsch (1969), Calculation of Gauss quadrature rules.

    >>> rule = gauss(Tridiagonal(np.array([1.0, 1.0]), np.array([1.0, 0.0])))
    >>> rule.nodes.round(6).tolist(), rule.masses.round(6).tolist()
    ([0.0, 2.0], [0.5, 0.5])
    """
    nodes, vectors = scipy.linalg.eigh_tridiagonal(tridiagonal.diagonal, tridiagonal.off_diagonal[:-1])
    return Rule(np.asarray(nodes, np.float64), np.asarray(vectors[0] ** 2, np.float64))


def gauss_radau(tridiagonal: Tridiagonal, node: float) -> Rule:
    """The Gauss-Radau rule with m + 1 nodes, one of them prescribed. It is exact up to degree 2m.

    If the Gauss rule already has the prescribed node, the result is the Gauss rule, which is exact up to degree 2m - 1.
    It is the limit of the Gauss-Radau rules: the additional node goes to infinity, and its mass goes to 0.

    Args:
        tridiagonal: tridiagonal matrix of the measure after m steps.
        node: the prescribed node.

    Returns:
        The rule. One of its nodes is the prescribed one.

    Source: Golub (1973), Some modified matrix eigenvalue problems.

    >>> gauss_radau(Tridiagonal(np.zeros(1), np.ones(1)), 0.0)  # mean 0, variance 1: the Gauss rule has its node at 0
    Rule(nodes=array([0.]), masses=array([1.]))
    """
    if tridiagonal.complete:
        return gauss(tridiagonal)
    corner = tridiagonal.corner(node)
    if math.isfinite(corner):
        return gauss(tridiagonal.extended(corner))
    rule = gauss(tridiagonal)
    nodes = rule.nodes.copy()
    nodes[np.abs(nodes - node).argmin()] = node  # this node differs from the prescribed one by rounding errors only
    return Rule(nodes, rule.masses)


def steepest_rule(tridiagonal: Tridiagonal, f: Integrand) -> Rule:
    r"""The Gauss-Radau rule of the family that gives the largest integral of ``f``.

    Let f be 1 minus a mixture of decaying exponentials on each side of 0; both filter factors in `howsparse.geometry`
    have this form. Then no measure with the same 2m moments has a larger integral than this rule, and none has a
    smaller integral than the Gauss-Radau rule with its node at 0. So these two rules give the narrowest bracket. The
    proof is in docs/theory.md.

    Args:
        tridiagonal: tridiagonal matrix of the measure.
        f: the integrand, a function of the nodes.

    Returns:
        The rule with the largest integral.

    Source: docs/theory.md; for the rule with a node at 0, Golub and Meurant (2010), chapter 6.

    >>> one_step = Tridiagonal(np.array([0.0]), np.array([1.0]))  # mean 0, variance 1
    >>> rule = steepest_rule(one_step, lambda nodes: np.abs(nodes) / (np.abs(nodes) + 1))
    >>> rule.nodes.round(3).tolist()
    [-1.0, 1.0]
    """
    if tridiagonal.complete:
        return gauss(tridiagonal)
    # Along the family the integral has a single maximum. A coarse search finds its cell, then Brent's method finds it.
    coarse = tridiagonal.family
    best = max(range(len(coarse)), key=lambda i: coarse[i].integrate(f))
    found = scipy.optimize.minimize_scalar(
        lambda place: -tridiagonal.member(place).integrate(f),
        bounds=(_STRIDE * (best - 1), _STRIDE * (best + 1)),
        method="bounded",
    )
    return max(tridiagonal.member(found.x), coarse[best], key=lambda rule: rule.integrate(f))
