r"""Another reading of Eq. 19, for Table 1: the smallest eigenvalues of the whole Hessian, not those of a block.

U(p) - p is the mean filter factor over the :math:`D - m` eigenvalues of the removed weights' block of the Hessian. The
paper prints a sum over :math:`D - m` eigenvalues. A computation of this sum from the spectrum of the whole Hessian
would give a smaller number, which this module computes from the same products as T.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from howsparse.geometry import absolute_filter
from howsparse.linalg.quadrature import Rule, Tridiagonal, gauss_radau
from howsparse.linalg.spectrum import Spectrum

__all__ = ["MassBounds", "mass_bounds", "tail_bracket", "tail_density"]

Array = NDArray[np.float64]

_LEVELS = 100  # number of values of the filter factor at which the mass above is bounded


def tail_density(rule: Rule, scale: float, density: float) -> float:
    r"""The filter factors of the smallest curvatures, added up: what takes the place of U(p) - p in this reading.

    .. math:: \frac1D \sum_{i \le D - m} \frac{|\lambda|_{(i)}}{|\lambda|_{(i)} + \mu}, \qquad p = m/D

    Here :math:`|\lambda|_{(i)}` are the absolute eigenvalues in increasing order.

    Args:
        rule: eigenvalues, or the nodes of a quadrature rule, with their masses.
        scale: :math:`\mu`, in loss per squared weight, positive.
        density: p, the fraction of eigenvalues that is left out, the largest ones, in [0, 1].

    Returns:
        A density between 0 and T.

    Source: Eq. 19, read with the eigenvalues of the whole Hessian.

    >>> round(tail_density(Rule(np.array([0.0, 1.0, -3.0]), np.array([0.5, 0.3, 0.2])), 1.0, density=0.2), 12)
    0.15
    """
    order = np.argsort(np.abs(rule.nodes))
    masses = rule.masses[order]
    before = np.concatenate([[0.0], np.cumsum(masses)[:-1]])
    counted = np.clip(1 - density - before, 0.0, masses)
    return float(counted @ absolute_filter(rule.nodes[order], scale))


@dataclass(frozen=True)
class MassBounds:
    """Bounds on the mass of curvatures that are larger than each place in absolute value.

    Attributes:
        places: increasing, ``(n,)``; the first is 0, the last is infinite.
        least, most: the bounds, ``(n,)``.
    """

    places: Array
    least: Array
    most: Array


def mass_bounds(spectrum: Spectrum, scale: float) -> MassBounds:
    """Bounds on the mass above places around a scale, for all spectra with the moments that Lanczos computed.

    Args:
        spectrum: spectrum of the whole Hessian.
        scale: where the places are dense, in loss per squared weight, positive.

    Source: the inequalities of Chebyshev, Markov and Stieltjes; Karlin and Studden (1966).

    >>> whole = Spectrum((Tridiagonal(np.array([1.0]), np.array([0.0])),), size=4, num_zero=2)
    >>> bounds = mass_bounds(whole, scale=1.0)
    >>> float(bounds.least[10]), float(bounds.most[10])
    (0.5, 0.5)
    """
    levels = np.arange(_LEVELS) / _LEVELS
    places = np.append(scale * levels / (1 - levels), np.inf)
    return MassBounds(places, *_masses_above(spectrum, places))


def tail_bracket(
    spectrum: Spectrum, scale: float, density: float, *, fixed: bool = False, bounds: MassBounds | None = None
) -> tuple[float, float]:
    r"""The bracket of `tail_density`, over all spectra with the moments that Lanczos computed, for the probes drawn.

    With N(x) the mass of :math:`|\lambda| > x`, the sum is :math:`\int_0^1 (N(x_t) - p)_+ dt`, where the filter factor
    of :math:`x_t` is t. The inequalities of Chebyshev, Markov and Stieltjes bound N. Above a level t, the sum up to t
    is also T less the part above; the bracket of T then replaces the bounds of N near 0, which are loose.

    Args:
        spectrum: spectrum of the whole Hessian.
        scale: the scale :math:`\mu`, in loss per squared weight, positive.
        density: p, the fraction of eigenvalues that is left out.
        fixed: whether to cover only spectra for which T is equal to ``density`` at this scale. Then p is the limit's
            density, and T has no bracket of its own.
        bounds: bounds on the mass of this spectrum, which take most of the time; by default they are computed.

    Returns:
        Lower and upper end.

    >>> whole = Spectrum((Tridiagonal(np.array([1.0]), np.array([0.0])),), size=4, num_zero=2)
    >>> [round(end, 6) for end in tail_bracket(whole, scale=1.0, density=0.25)]
    [0.125, 0.125]
    """
    bounds = mass_bounds(spectrum, scale) if bounds is None else bounds
    levels = np.append(absolute_filter(bounds.places[:-1], scale), 1.0)
    steps = np.diff(levels)
    # The mass decreases with x. The sums over steps take its value at the end of each that keeps the bound valid.
    below_low = np.append(0.0, np.cumsum(steps * bounds.least[1:]))
    below_high = np.append(0.0, np.cumsum(steps * bounds.most[:-1]))
    above_low, above_high = below_low[-1] - below_low, below_high[-1] - below_high
    whole_low, whole_high = (density, density) if fixed else _whole(spectrum, scale)
    low = np.maximum(below_low, whole_low - above_high) - density * levels
    high = np.minimum(below_high, whole_high - above_low) - density * levels
    return max(0.0, float(low.max())), max(0.0, float(high.max()))


def _whole(spectrum: Spectrum, scale: float) -> tuple[float, float]:
    """The bracket of T at this scale."""

    def factor(x: Array) -> Array:
        return absolute_filter(x, scale)

    return spectrum.lowest().integrate(factor), spectrum.highest(factor).integrate(factor)


def _masses_above(spectrum: Spectrum, places: Array) -> tuple[Array, Array]:
    """Bounds on the mass of absolute eigenvalues above each place; every place is at least 0, the last is infinite."""
    alive = 1 - spectrum.num_zero / spectrum.size
    least, most = np.zeros(len(places)), np.zeros(len(places))
    for tridiagonal in spectrum.tridiagonals:
        for i, place in enumerate(places[:-1]):
            (above_low, above_high) = _mass_beyond(tridiagonal, float(place), side=1)
            (below_low, below_high) = _mass_beyond(tridiagonal, -float(place), side=-1)
            least[i] += above_low + below_low
            most[i] += min(1.0, above_high + below_high)
    count = len(spectrum.tridiagonals)
    # Both are bounds for every place further on (most) or before (least), so the sharpest one counts.
    most = np.minimum.accumulate(most / count) * alive
    least = np.maximum.accumulate((least / count)[::-1])[::-1] * alive
    return least, most


def _mass_beyond(tridiagonal: Tridiagonal, place: float, side: int) -> tuple[float, float]:
    """Bounds on the mass right of ``place`` (side 1) or left of it (side -1)."""
    rule = gauss_radau(tridiagonal, place)
    distance = side * (rule.nodes - place)
    if tridiagonal.complete:
        mass = float(rule.masses[distance > 0].sum())
        return mass, mass
    at = int(np.abs(distance).argmin())  # the prescribed node, up to rounding
    beyond = distance > 0
    beyond[at] = False
    mass = float(rule.masses[beyond].sum())
    return mass, mass + float(rule.masses[at])
