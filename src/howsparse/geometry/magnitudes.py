"""Sorted magnitudes of the weights, and the densities at which the bounds T and U meet their conditions."""

import math
from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import ArrayLike

from howsparse.errors import InputError
from howsparse.geometry.spectra import curvature_scale

__all__ = [
    "Magnitudes",
    "effective_sparsity",
    "existence_fixed_point",
    "fixed_point",
]


class Magnitudes:
    """Sorted magnitudes of weights. They give the radius R of magnitude pruning at every density.

    Args:
        weights: the weights, any shape and sign.

    Attributes:
        sizes: absolute values of the weights in increasing order, ``(n,)``.

    >>> Magnitudes([3.0, -1.0, 2.0]).radius(density=1 / 3) == 5**0.5
    True
    """

    def __init__(self, weights: ArrayLike) -> None:
        self.sizes = np.sort(np.abs(np.asarray(weights)).ravel())
        self._removed = np.concatenate([[0.0], np.cumsum(np.square(self.sizes, dtype=np.float64))])

    @property
    def num_weights(self) -> int:
        return self._removed.size - 1

    def radius(self, density: float) -> float:
        """Norm R of the removed weights. Between two whole numbers of weights, its square is interpolated linearly.

        Args:
            density: fraction of the weights that stay, in [0, 1]; the smallest of the others are removed.

        Returns:
            The radius, in the unit of a weight.
        """
        whole, part = divmod((1 - density) * self.num_weights, 1)
        low, high = self._removed[int(whole)], self._removed[min(int(whole) + 1, self.num_weights)]
        return math.sqrt(float(low + part * (high - low)))


def effective_sparsity(weights: ArrayLike) -> float:
    r"""A baseline without data: 1 minus the effective number of weights divided by the number of weights.

    The effective number is :math:`(\sum_i |w_i|)^2 / \sum_i w_i^2`. It is n if all magnitudes are equal, and 1 if all
    weights but one are zero. It is the participation ratio of the magnitudes, and the square of the ratio of norms
    :math:`\ell_1/\ell_2`. On trained networks this sparsity is often too large to keep the loss. Use it only as a
    baseline for other answers.

    Args:
        weights: the weights, any shape and sign.

    Returns:
        A fraction in [0, 1).

    Raises:
        InputError: there are no weights, or all are zero or not finite.

    Source: Hoyer (2004), Non-negative matrix factorization with sparseness constraints, for the ratio of norms.

    >>> effective_sparsity([1.0, -1.0, 0.0, 0.0])
    0.5
    """
    sizes = np.abs(np.asarray(weights, dtype=np.float64)).ravel()
    largest = float(sizes.max(initial=0.0))
    if not 0 < largest < math.inf:
        raise InputError("the weights have no effective number: none is nonzero and finite; use a trained network")
    sizes = sizes / largest  # so that squares of very small or large weights stay in range
    return float(1 - sizes.sum() ** 2 / (sizes.size * np.square(sizes).sum()))


def fixed_point(density_at: Callable[[float], float], magnitudes: Magnitudes, tolerance: float) -> float:
    """The density p for which the bound T, computed at the scale that belongs to p, is equal to p.

    Args:
        density_at: T as a function of the scale; it must decrease as the scale increases.
        magnitudes: magnitudes of the weights under study; they give the radius, and so the scale, of a density.
        tolerance: allowed loss increase, positive.

    Returns:
        The only root of ``density_at(scale(density)) == density``; 0 if T is 0 at density 0.

    Raises:
        InputError: the tolerance is not positive.

    Source: Corollary 1. As in the paper's experiments, the answer is where the curve T crosses the diagonal.

    >>> from howsparse.geometry import minimal_density
    >>> flat, steep = [0.0] * 90, [1e9] * 10
    >>> ten_percent = fixed_point(lambda mu: minimal_density(flat + steep, mu), Magnitudes(np.ones(100)), 1.0)
    >>> round(ten_percent, 6)
    0.1
    """

    def excess(density: float) -> float:
        scale = curvature_scale(tolerance, magnitudes.radius(density))
        return (density_at(scale) if math.isfinite(scale) else 0.0) - density

    if excess(0.0) <= 0:
        return 0.0
    return float(scipy.optimize.brentq(excess, 0.0, 1.0, xtol=1e-12, rtol=1e-12))


def existence_fixed_point(existence_at: Callable[[float], float], num_weights: int, dimensions: float = 1.0) -> float:
    """Smallest density p with U(p) - p at most ``dimensions / num_weights``, found by bisection.

    The equation U(p) = p holds only if the removed weights' block of the Hessian is exactly zero, or if the removed
    weights are exactly zero. Besides p = 1, it therefore has roots in networks with dead units (their rows of the
    Hessian are exactly zero), and in networks with weights that are exactly zero. A subspace has a whole number of
    dimensions, so this function accepts a density at which U(p) needs at most one dimension more. U(p) - p must not
    increase with p; in Eq. 19 it does not.

    Args:
        existence_at: U as a function of p.
        num_weights: number of weights :math:`D`.
        dimensions: largest accepted difference, in dimensions; 0 for the equation itself.

    Returns:
        A density in [0, 1], a multiple of ``1 / num_weights``.

    Source: Eq. 19 and the text before it.

    >>> existence_fixed_point(lambda p: p + (1 - p) ** 2, num_weights=100)
    0.9
    """
    low, high = 0, num_weights  # numbers of weights that stay; U(1) = 1, so high always meets the condition
    while low < high:
        middle = (low + high) // 2
        missing = existence_at(middle / num_weights) - middle / num_weights
        if missing * num_weights <= dimensions * (1 + 1e-12):
            high = middle
        else:
            low = middle + 1
    return high / num_weights
