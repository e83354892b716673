"""Gaussian widths of the loss sublevel set."""

import math

import numpy as np
from numpy.typing import ArrayLike

from howsparse.geometry.spectra import curvature_scale, statistical_dimension

__all__ = [
    "ellipsoid_width",
    "larsen_interval",
    "projected_width",
]


def ellipsoid_width(eigenvalues: ArrayLike, tolerance: float) -> float:
    r"""Gaussian width of the sublevel set :math:`\tfrac12 x'Hx \le \epsilon`, with :math:`r_i^2 = 2\epsilon/\lambda_i`.

    .. math:: w = \Bigl(\sum_i r_i^2\Bigr)^{1/2}

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight; an eigenvalue of zero makes the width infinite.
        tolerance: allowed loss increase, positive.

    Returns:
        The width, in the unit of a weight.

    Raises:
        InputError: the tolerance is not positive.

    Source: Eq. 15.

    >>> ellipsoid_width([2.0, 2.0], 1.0) == 2**0.5
    True
    """
    curvature_scale(tolerance, 1.0)
    with np.errstate(divide="ignore"):
        return float(np.sqrt(np.sum(2 * tolerance / np.abs(np.asarray(eigenvalues, dtype=np.float64)))))


def projected_width(eigenvalues: ArrayLike, tolerance: float, radius: float) -> float:
    r"""Gaussian width of the sublevel set, projected on the unit sphere around a point at distance ``radius``.

    .. math:: w = \Bigl(\sum_i \frac{r_i^2}{R^2 + r_i^2}\Bigr)^{1/2}

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight.
        tolerance: allowed loss increase, positive.
        radius: the projection distance :math:`R`, in the unit of a weight.

    Returns:
        The width; its square is a number of dimensions.

    Raises:
        InputError: the tolerance is not positive.

    Source: Eq. 16 and 17.

    >>> projected_width([2.0, 0.0], tolerance=1.0, radius=1.0) == 1.5**0.5
    True
    """
    return math.sqrt(statistical_dimension(eigenvalues, curvature_scale(tolerance, radius)))


def larsen_interval(eigenvalues: ArrayLike, tolerance: float, radius: float) -> tuple[float, float]:
    r"""Larsen et al.'s interval for the projected width; the paper uses its upper end as the value.

    .. math:: \Bigl[\sqrt{2/\pi}\,\Bigl(\sum_i \tfrac{r_i^2}{R^2 + r_i^2}\Bigr)^{1/2},
              \Bigl(\sum_i \tfrac{r_i^2}{R^2 + r_i^2}\Bigr)^{1/2}\Bigr]

    Larsen et al. print the factor :math:`\sqrt{2/\pi}` outside the square root, as this function does. The paper prints
    it inside, which is wrong for a single direction: its width is :math:`\sqrt{2/\pi}\,r`. Both ends are for the given
    radius. The radius of the limit depends on the width, so each end has its own fixed point;
    `howsparse.limit.bracket.solve_bracket` finds it with the argument ``width_factor``.

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight.
        tolerance: allowed loss increase, positive.
        radius: the projection distance :math:`R`, in the unit of a weight.

    Returns:
        The lower and the upper end of the interval, both widths.

    Raises:
        InputError: the tolerance is not positive.

    Source: Larsen et al. (2022).

    >>> low, high = larsen_interval([2.0, 0.0], tolerance=1.0, radius=1.0)
    >>> round(low, 6), round(high, 6)
    (0.977205, 1.224745)
    """
    width = projected_width(eigenvalues, tolerance, radius)
    return math.sqrt(2 / math.pi) * width, width
