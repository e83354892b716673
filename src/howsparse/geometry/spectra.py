r"""The paper's formulas on spectra: filter factors, the scale, dimensions and the bounds T and U."""

import math
from typing import Protocol

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from howsparse.errors import InputError

__all__ = [
    "FilterFactor",
    "absolute_filter",
    "check_scale",
    "check_tolerance",
    "clipped_filter",
    "curvature_scale",
    "effective_dimension",
    "existence_density",
    "generic_density",
    "minimal_density",
    "statistical_dimension",
]

Array = NDArray[np.float64]


class FilterFactor(Protocol):
    """The filter factor of each curvature: the fraction of a dimension, in [0, 1], that must stay in its direction.

    >>> def counted(curvatures: ArrayLike, scale: float) -> Array:  # 1 if the curvature is above the scale
    ...     return (np.asarray(curvatures) > scale).astype(np.float64)
    >>> float(effective_dimension([4.0, 2.0, 0.5], 1.0, factor=counted))
    2.0
    """

    def __call__(self, curvatures: ArrayLike, scale: float) -> Array: ...


def absolute_filter(curvatures: ArrayLike, scale: float) -> Array:
    r"""Filter factor :math:`|\lambda| / (|\lambda| + \mu)`: negative curvature counts as positive, as in the paper.

    Args:
        curvatures: shape ``(n,)``, loss per squared weight.
        scale: :math:`\mu`, same unit, positive.

    Returns:
        The factors, ``(n,)``, in [0, 1].

    Source: Eq. 18, rewritten with :math:`r_i^2 = 2\epsilon/|\lambda_i|`.

    >>> absolute_filter([-1.0, 0.0, 3.0], 1.0)
    array([0.5 , 0.  , 0.75])
    """
    size = np.abs(np.asarray(curvatures, dtype=np.float64))
    return size / (size + scale)


def clipped_filter(curvatures: ArrayLike, scale: float) -> Array:
    r"""Filter factor :math:`\lambda_+ / (\lambda_+ + \mu)`: a direction of negative curvature has infinite radius.

    Args:
        curvatures: shape ``(n,)``, loss per squared weight.
        scale: :math:`\mu`, same unit, positive.

    Returns:
        The factors, ``(n,)``, in [0, 1].

    Source: Eq. 18, with :math:`r_i` infinite where :math:`\lambda_i \le 0`; not in the paper.

    >>> clipped_filter([-1.0, 0.0, 3.0], 1.0)
    array([0.  , 0.  , 0.75])
    """
    return absolute_filter(np.maximum(np.asarray(curvatures, dtype=np.float64), 0.0), scale)


def curvature_scale(tolerance: float, radius: float) -> float:
    r"""The scale :math:`\mu = 2\epsilon / R^2`; infinite at radius 0.

    Args:
        tolerance: loss increase allowed, positive.
        radius: distance R between trained and pruned weights, at least 0.

    Returns:
        The scale, in loss per squared weight.

    Raises:
        InputError: the tolerance is not positive.

    Source: Eq. 18, rewritten with :math:`r_i^2 = 2\epsilon/\lambda_i`; :math:`\mu` is not in the paper.

    >>> curvature_scale(tolerance=0.5, radius=2.0)
    0.25
    """
    check_tolerance(tolerance)
    return 2 * tolerance / radius**2 if radius > 0 else math.inf


def effective_dimension(eigenvalues: ArrayLike, scale: float, factor: FilterFactor = absolute_filter) -> float:
    r"""Effective dimension: the sum of the filter factors, about the number of eigenvalues above the scale.

    .. math:: \sum_i |\lambda_i| / (|\lambda_i| + \mu)

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight.
        scale: :math:`\mu = 2\epsilon/R^2`, same unit, positive.
        factor: the filter factor, `absolute_filter` or `clipped_filter`.

    Returns:
        A number of dimensions, between 0 and n.

    Raises:
        InputError: the scale is not positive.

    Source: Eq. 18, rewritten with :math:`r_i^2 = 2\epsilon/\lambda_i`.

    >>> effective_dimension([1.0, 1.0, 0.0], 1.0)
    1.0
    """
    check_scale(scale)
    return float(np.sum(factor(eigenvalues, scale)))


def statistical_dimension(eigenvalues: ArrayLike, scale: float, factor: FilterFactor = absolute_filter) -> float:
    r"""Eq. 16's proxy for the statistical dimension of the cone over the sublevel set: the squared projected width.

    .. math:: \sum_i \mu / (|\lambda_i| + \mu) = D - \text{effective dimension}

    The cone's statistical dimension differs from its squared Gaussian width by at most 1 (Theorem 2). Eq. 16
    approximates this width. The approximation is good if the removed weights lie in directions with much more curvature
    than :math:`\mu`. Otherwise it is too small. For a ball of radius r with its centre at distance R, Eq. 16 gives
    :math:`D r^2/(R^2+r^2)` and the cone has :math:`D r^2/R^2`; both agree for small r. `cone_dimension` computes the
    true cone's dimension.

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight.
        scale: :math:`\mu = 2\epsilon/R^2`, same unit, positive.
        factor: the filter factor.

    Returns:
        A number of dimensions, between 0 and n.

    Raises:
        InputError: the scale is not positive.

    Source: Theorem 2 with Eq. 16.

    >>> statistical_dimension([1.0, 1.0, 0.0], 1.0)
    2.0
    """
    return np.asarray(eigenvalues).size - effective_dimension(eigenvalues, scale, factor)


def minimal_density(
    eigenvalues: ArrayLike, scale: float, masses: ArrayLike | None = None, factor: FilterFactor = absolute_filter
) -> float:
    r"""The paper's lower bound T: a random subspace of a smaller density does not meet the sublevel set.

    .. math:: T = 1 - \frac1D \sum_i \frac{r_i^2}{R^2 + r_i^2} = \frac1D \sum_i \frac{|\lambda_i|}{|\lambda_i| + \mu}

    T is exact for random subspaces if the removed weights lie in directions with much more curvature than :math:`\mu`.
    If they lie in other directions, a smaller density is enough, see `generic_density`.

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight: eigenvalues, or the nodes of a quadrature rule.
        scale: :math:`\mu`, same unit, positive; an infinite scale gives 0.
        masses: shape ``(n,)``, the fraction of the spectrum at each node, with sum 1; by default all are equal.
        factor: the filter factor.

    Returns:
        A density in [0, 1].

    Raises:
        InputError: the scale is not positive.

    Source: Eq. 18 (Corollary 1).

    >>> minimal_density([1.0, 0.0, 0.0, 0.0], 1.0)
    0.125
    """
    check_scale(scale)
    factors = factor(eigenvalues, scale)
    return float(factors.mean() if masses is None else np.average(factors, weights=np.asarray(masses)))


def generic_density(
    eigenvalues: ArrayLike, scale: float, masses: ArrayLike | None = None, factor: FilterFactor = absolute_filter
) -> float:
    r"""The density at which random subspaces begin to meet the sublevel set, for removed weights in a random direction.

    It is the root T of :math:`T = \frac1D\sum_i |\lambda_i| / (|\lambda_i| + \mu/T)`, never above `minimal_density`.
    Let :math:`DT` random directions through the pruned weights be free. The least loss increase over them is
    :math:`\tfrac12\kappa\, d'H(H+\kappa)^{-1}d`, where :math:`\sum_i \lambda_i/(\lambda_i+\kappa) = DT`. This is
    :math:`\tfrac12\kappa R^2` if :math:`d` lies in directions of large curvature (Eq. 18), and
    :math:`\tfrac12\kappa R^2 T` on average over all directions. See docs/theory.md.

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight: eigenvalues, or the nodes of a quadrature rule.
        scale: :math:`\mu`, same unit, positive.
        masses: shape ``(n,)``, the fraction of the spectrum at each node, with sum 1; by default all are equal.
        factor: the filter factor.

    Returns:
        A density in [0, 1].

    Raises:
        InputError: the scale is not positive.

    >>> round(generic_density([1.0] * 8, 0.25), 12)  # a ball of radius r: its cone has dimension D r^2 / R^2
    0.75
    """
    check_scale(scale)

    def excess(density: float) -> float:
        return minimal_density(eigenvalues, scale / density, masses, factor) - density

    smallest = 1e-12
    return float(scipy.optimize.brentq(excess, smallest, 1.0, xtol=1e-14)) if excess(smallest) > 0 else 0.0


def existence_density(
    block_eigenvalues: ArrayLike,
    scale: float,
    density: float,
    masses: ArrayLike | None = None,
    factor: FilterFactor = absolute_filter,
) -> float:
    r"""The paper's upper bound U: according to the paper, a sparse solution exists at this density.

    .. math:: U(p) = 1 - \frac1D \sum_i^{D-m} \frac{r_i^2}{R_m^2 + r_i^2}
                   = p + (1 - p)\,\frac{1}{D-m}\sum_i^{D-m} \frac{|\lambda_i|}{|\lambda_i| + \mu}, \qquad p = m/D

    Args:
        block_eigenvalues: eigenvalues of the Hessian's block of removed weights, or the nodes of a quadrature rule,
            shape ``(n,)``, loss per squared weight.
        scale: :math:`2\epsilon/R_m^2`, same unit, positive.
        density: :math:`p`, the fraction of weights that stay, in [0, 1].
        masses: shape ``(n,)``, the fraction of the block's spectrum at each node; by default all are equal.
        factor: the filter factor.

    Returns:
        A density between p and 1.

    Raises:
        InputError: the scale is not positive.

    Source: Eq. 19; the paper reports it at p = T (Eq. 20, Table 1).

    >>> existence_density([1.0, 1.0], scale=1.0, density=0.5)  # half of each removed dimension must stay
    0.75
    """
    needed = minimal_density(block_eigenvalues, scale, masses, factor) if math.isfinite(scale) else 0.0
    return density + (1 - density) * needed


def check_scale(scale: float) -> None:
    if not scale > 0:
        raise InputError(f"scale {scale:g} is not positive; compute it as 2 tolerance / radius^2")


def check_tolerance(tolerance: float | None) -> None:
    """Check that a tolerance is positive; None stands for the default one."""
    if tolerance is not None and not tolerance > 0:
        raise InputError(
            f"tolerance {tolerance:g} is not positive; give the allowed loss increase as a positive number"
        )
