r"""The paper's formulas on spectra and magnitudes: widths, dimensions, the bounds T and U. No model, no autograd.

A spectrum is given as nodes and the mass at each: the eigenvalues themselves with equal masses, or a quadrature rule
that stands for them. Densities are fractions of weights kept; the paper's pruning ratios.

The one quantity everything turns on is the scale :math:`\mu = 2\epsilon/R^2`, a curvature: a direction flatter than
:math:`\mu` lets the loss sublevel set reach as far as the removed weights are away, a steeper one does not.

References:
    Zhang et al. (2024), How sparse can we prune a deep network: a geometric viewpoint ("the paper").
    Larsen et al. (2022), How many degrees of freedom do we need to train deep networks.
    Amelunxen et al. (2014), Living on the edge: phase transitions in convex programs with random data.
"""

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from howsparse.errors import InputError

__all__ = [
    "FilterFactor",
    "Magnitudes",
    "absolute_filter",
    "clipped_filter",
    "curvature_scale",
    "effective_dimension",
    "ellipsoid_width",
    "existence_density",
    "existence_fixed_point",
    "fixed_point",
    "generic_density",
    "larsen_interval",
    "minimal_density",
    "projected_width",
    "statistical_dimension",
    "subspace_loss",
]

Array = NDArray[np.float64]


class FilterFactor(Protocol):
    """How much of a direction's dimension curvature takes, between 0 and 1."""

    def __call__(self, curvatures: ArrayLike, scale: float) -> Array: ...


def absolute_filter(curvatures: ArrayLike, scale: float) -> Array:
    r"""The paper's reading of negative curvature, a wall like any other: :math:`|\lambda| / (|\lambda| + \mu)`.

    >>> absolute_filter([-1.0, 0.0, 3.0], 1.0)
    array([0.5 , 0.  , 0.75])
    """
    size = np.abs(np.asarray(curvatures, dtype=np.float64))
    return size / (size + scale)


def clipped_filter(curvatures: ArrayLike, scale: float) -> Array:
    r"""Negative curvature unbounded, its radius infinite: :math:`\lambda_+ / (\lambda_+ + \mu)`.

    >>> clipped_filter([-1.0, 0.0, 3.0], 1.0)
    array([0.  , 0.  , 0.75])
    """
    return absolute_filter(np.maximum(np.asarray(curvatures, dtype=np.float64), 0.0), scale)


def curvature_scale(tolerance: float, radius: float) -> float:
    r"""The scale :math:`\mu = 2\epsilon / R^2`; infinite at radius 0.

    Args:
        tolerance: loss increase allowed, positive.
        radius: distance between trained and pruned weights.

    Raises:
        InputError: a tolerance that is not positive.
    """
    if not tolerance > 0:
        raise InputError(f"tolerance {tolerance:g} is not positive: it is the loss increase that is allowed")
    return 2 * tolerance / radius**2 if radius > 0 else math.inf


def ellipsoid_width(eigenvalues: ArrayLike, tolerance: float) -> float:
    r"""Gaussian width of the sublevel set :math:`\tfrac12 x'Hx \le \epsilon`, with :math:`r_i^2 = 2\epsilon/\lambda_i`.

    .. math:: w = \Bigl(\sum_i r_i^2\Bigr)^{1/2}

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight; zero makes the width infinite.
        tolerance: loss increase allowed, positive.

    Source: Eq. 15.

    >>> ellipsoid_width([2.0, 2.0], 1.0) == 2**0.5
    True
    """
    curvature_scale(tolerance, 1.0)
    with np.errstate(divide="ignore"):
        return float(np.sqrt(np.sum(2 * tolerance / np.abs(np.asarray(eigenvalues, dtype=np.float64)))))


def projected_width(eigenvalues: ArrayLike, tolerance: float, radius: float) -> float:
    r"""Gaussian width of the sublevel set seen from distance ``radius``, projected on the unit sphere.

    .. math:: w = \Bigl(\sum_i \frac{r_i^2}{R^2 + r_i^2}\Bigr)^{1/2}

    Args:
        eigenvalues: shape ``(n,)``.
        tolerance: loss increase allowed, positive.
        radius: the projection distance :math:`R`.

    Source: Eq. 16 and 17.

    >>> projected_width([2.0, 0.0], tolerance=1.0, radius=1.0) == 1.5**0.5
    True
    """
    return math.sqrt(statistical_dimension(eigenvalues, curvature_scale(tolerance, radius)))


def larsen_interval(eigenvalues: ArrayLike, tolerance: float, radius: float) -> tuple[float, float]:
    r"""Larsen et al.'s interval for the projected width; the paper takes its upper end for the value.

    .. math:: \Bigl[\sqrt{2/\pi}\,\Bigl(\sum_i \tfrac{r_i^2}{R^2 + r_i^2}\Bigr)^{1/2},
              \Bigl(\sum_i \tfrac{r_i^2}{R^2 + r_i^2}\Bigr)^{1/2}\Bigr]

    The paper prints the factor inside the square root, which fails for a single direction, whose width is
    :math:`\sqrt{2/\pi}\,r`; Larsen et al. have it outside, as here. Both ends are at the given radius. The radius of
    the limit depends on the width, so each end has a fixed point of its own: `howsparse.limit.bracket.solve_bracket`
    finds it, by ``width_factor``.

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight.
        tolerance: loss increase allowed, positive.
        radius: the projection distance :math:`R`.

    Returns:
        The interval's lower and upper end, both widths.

    Source: Larsen et al. (2022).

    >>> low, high = larsen_interval([2.0, 0.0], tolerance=1.0, radius=1.0)
    >>> round(low, 6), round(high, 6)
    (0.977205, 1.224745)
    """
    width = projected_width(eigenvalues, tolerance, radius)
    return math.sqrt(2 / math.pi) * width, width


def effective_dimension(eigenvalues: ArrayLike, scale: float, factor: FilterFactor = absolute_filter) -> float:
    r"""Number of directions in which curvature outweighs the tolerance.

    .. math:: \sum_i |\lambda_i| / (|\lambda_i| + \mu)

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight.
        scale: :math:`\mu = 2\epsilon/R^2`, same unit, positive.
        factor: how negative curvature counts, `absolute_filter` or `clipped_filter`.

    Raises:
        InputError: scale is not positive.

    Source: Eq. 18, rewritten with :math:`r_i^2 = 2\epsilon/\lambda_i`.

    >>> effective_dimension([1.0, 1.0, 0.0], 1.0)
    1.0
    """
    _check_scale(scale)
    return float(np.sum(factor(eigenvalues, scale)))


def statistical_dimension(eigenvalues: ArrayLike, scale: float, factor: FilterFactor = absolute_filter) -> float:
    r"""Statistical dimension of the cone over the sublevel set, by the squared projected width of Eq. 16.

    .. math:: \sum_i \mu / (|\lambda_i| + \mu) = D - \text{effective dimension}

    The cone's statistical dimension is its squared Gaussian width within 1 (Theorem 2), and Eq. 16 is a proxy for that
    width. A ball of radius r with its centre at distance R shows by how much: the proxy is :math:`D r^2/(R^2+r^2)`, the
    cone has :math:`D r^2/R^2`, which is the proxy's limit for small r.

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight.
        scale: :math:`\mu = 2\epsilon/R^2`, same unit, positive.
        factor: how negative curvature counts.

    Raises:
        InputError: scale is not positive.

    Source: Theorem 2 with Eq. 16.

    >>> statistical_dimension([1.0, 1.0, 0.0], 1.0)
    2.0
    """
    return np.asarray(eigenvalues).size - effective_dimension(eigenvalues, scale, factor)


def minimal_density(
    eigenvalues: ArrayLike, scale: float, masses: ArrayLike | None = None, factor: FilterFactor = absolute_filter
) -> float:
    r"""The paper's lower bound T: the density below which a subspace misses the sublevel set.

    .. math:: T = 1 - \frac1D \sum_i \frac{r_i^2}{R^2 + r_i^2} = \frac1D \sum_i \frac{|\lambda_i|}{|\lambda_i| + \mu}

    Exact for random subspaces when the removed weights lie in directions much steeper than :math:`\mu`; where they
    point anywhere else the sublevel set is met earlier, see `generic_density`.

    Args:
        eigenvalues: shape ``(n,)``: eigenvalues, or the nodes of a rule.
        scale: :math:`\mu`, positive; infinite gives 0.
        masses: fraction of the spectrum at each, adding up to 1; equal ones unless given.
        factor: how negative curvature counts.

    Source: Eq. 18 (Corollary 1).

    >>> minimal_density([1.0, 0.0, 0.0, 0.0], 1.0)
    0.125
    """
    _check_scale(scale)
    factors = factor(eigenvalues, scale)
    return float(factors.mean() if masses is None else np.average(factors, weights=np.asarray(masses)))


def generic_density(
    eigenvalues: ArrayLike, scale: float, masses: ArrayLike | None = None, factor: FilterFactor = absolute_filter
) -> float:
    r"""Where random subspaces begin to meet the sublevel set if the removed weights point in no particular direction.

    The root T of :math:`T = \frac1D\sum_i |\lambda_i| / (|\lambda_i| + \mu/T)`, never above `minimal_density`. With
    :math:`DT` random directions to move in, the least loss left is :math:`\tfrac12\kappa\, d'H(H+\kappa)^{-1}d` where
    :math:`\sum_i \lambda_i/(\lambda_i+\kappa) = DT`: that is :math:`\tfrac12\kappa R^2` for :math:`d` in steep
    directions (Eq. 18), and :math:`\tfrac12\kappa R^2 T` on average over all directions. See docs/theory.md.

    >>> round(generic_density([1.0] * 8, 0.25), 12)  # a ball of radius r: its cone has dimension D r^2 / R^2
    0.75
    """
    _check_scale(scale)

    def excess(density: float) -> float:
        return minimal_density(eigenvalues, scale / density, masses, factor) - density

    smallest = 1e-12
    return float(brentq(excess, smallest, 1.0, xtol=1e-14)) if excess(smallest) > 0 else 0.0


def subspace_loss(eigenvalues: ArrayLike, displacement: ArrayLike, gradient: ArrayLike, density: float) -> float:
    r"""Least loss, above the trained network's, that random directions through the pruned network leave.

    .. math:: \tfrac12\kappa\, d'H(H+\kappa)^{-1}d + \kappa\, d'(H+\kappa)^{-1}g - \tfrac12\, g'(H+\kappa)^{-1}g
              \qquad\text{with}\qquad \frac1D\sum_i \frac{\lambda_i}{\lambda_i+\kappa} = \text{density}

    The sublevel set is met where this is at most the tolerance: the limit with the displacement's direction and the
    gradient in it. As the density goes to 0 it is what the certificate predicts, :math:`g'd + \tfrac12 d'Hd`.

    Args:
        eigenvalues: shape ``(n,)``, positive.
        displacement: step to the pruned weights in the eigenvectors' basis, ``(n,)``.
        gradient: in the same basis, ``(n,)``.
        density: random directions over dimensions, in (0, 1).

    Returns:
        The loss left, less the trained network's; below 0 where the gradient allows it.

    Raises:
        InputError: an eigenvalue is not positive: along it the quadratic model has no minimum, or no unique one.

    Source: docs/theory.md.

    >>> round(subspace_loss([2.0, 2.0], [1.0, 1.0], [0.0, 0.0], density=0.5), 9)  # half the displacement is undone
    1.0
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    d, g = np.asarray(displacement, dtype=np.float64), np.asarray(gradient, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if not low > 0:
        raise InputError(f"eigenvalue {low:g} is not positive, as a least loss over all directions needs")
    odds = (1 - density) / density
    kappa = float(brentq(lambda k: minimal_density(values, k) - density, low * odds / 2, high * odds * 2, rtol=1e-12))
    resolvent = 1 / (values + kappa)
    return float(np.sum(resolvent * (kappa * values * d**2 / 2 + kappa * d * g - g**2 / 2)))


class Magnitudes:
    """Weights in order of size: how far from the trained weights the pruned ones are, at every density.

    Args:
        weights: the weights, any shape and sign.

    Attributes:
        sizes: their absolute values in increasing order, ``(n,)``.

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
        """Norm of the removed weights, the projection distance R, linear in its square between whole weights."""
        whole, part = divmod((1 - density) * self.num_weights, 1)
        low, high = self._removed[int(whole)], self._removed[min(int(whole) + 1, self.num_weights)]
        return math.sqrt(float(low + part * (high - low)))


def fixed_point(density_at: Callable[[float], float], magnitudes: Magnitudes, tolerance: float) -> float:
    """The density at which keeping that many weights and needing that many weights agree.

    Args:
        density_at: the density T that a scale asks for, decreasing in the scale.
        magnitudes: of the weights under study; they turn a density into a radius, and that into a scale.
        tolerance: loss increase allowed, positive.

    Returns:
        The only root of ``density_at(scale(density)) == density``; 0 if nothing needs to be kept.

    Source: Corollary 1, with the crossing of curve and diagonal that the paper's experiments use.

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
    return float(brentq(excess, 0.0, 1.0, xtol=1e-12, rtol=1e-12))


def existence_density(
    block_eigenvalues: ArrayLike,
    scale: float,
    density: float,
    masses: ArrayLike | None = None,
    factor: FilterFactor = absolute_filter,
) -> float:
    r"""The paper's upper bound U: the density at which a sparse solution is sure to exist.

    .. math:: U(p) = 1 - \frac1D \sum_i^{D-m} \frac{r_i^2}{R_m^2 + r_i^2}
                   = p + (1 - p)\,\frac{1}{D-m}\sum_i^{D-m} \frac{|\lambda_i|}{|\lambda_i| + \mu}, \qquad p = m/D

    Args:
        block_eigenvalues: of the Hessian's block of removed weights, or the nodes of a rule.
        scale: :math:`2\epsilon/R_m^2`.
        density: :math:`p`, the fraction kept.
        masses: fraction of the block's spectrum at each; equal ones unless given.
        factor: how negative curvature counts.

    Source: Eq. 19; the paper reports it at p = T (Eq. 20, Table 1).
    """
    needed = minimal_density(block_eigenvalues, scale, masses, factor) if math.isfinite(scale) else 0.0
    return density + (1 - density) * needed


def existence_fixed_point(existence_at: Callable[[float], float], num_weights: int, dimensions: float = 1.0) -> float:
    """Smallest density p with U(p) - p below ``dimensions / num_weights``, by bisection.

    Taken literally, U(p) = p asks the removed block for no curvature at all. That holds where the removed rows are
    exactly zero, and otherwise at p = 1 only. A subspace has a whole number of dimensions, so the equation is met as
    soon as less than one is missing; that is what this finds.

    Args:
        existence_at: U as a function of p.
        num_weights: :math:`D`.
        dimensions: how many missing dimensions count as none.

    Source: Eq. 19 and the text before it.

    >>> existence_fixed_point(lambda p: p + (1 - p) ** 2, num_weights=100)
    0.9
    """
    low, high = 0, num_weights  # weights kept; high always qualifies
    while low < high:
        middle = (low + high) // 2
        missing = existence_at(middle / num_weights) - middle / num_weights
        if missing * num_weights <= dimensions * (1 + 1e-12):
            high = middle
        else:
            low = middle + 1
    return high / num_weights


def _check_scale(scale: float) -> None:
    if not scale > 0:
        raise InputError(f"scale {scale:g} is not positive: it is 2 tolerance / radius^2")
