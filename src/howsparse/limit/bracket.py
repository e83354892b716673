"""The bracket of the fixed point of T, and the sources of its width: quadrature, rounding, probes, data."""

import math
from dataclasses import dataclass
from functools import partial

from howsparse.geometry import (
    FilterFactor,
    Magnitudes,
    curvature_scale,
    existence_density,
    fixed_point,
    minimal_density,
)
from howsparse.limit.levels import Sampling, Shift, data_drift, data_shift
from howsparse.linalg.quadrature import Rule
from howsparse.linalg.spectrum import Spectrum

__all__ = ["CONFIDENCE", "RESOLVED_WIDTH", "Bracket", "existence_bracket", "population_shift", "solve_bracket"]

# A bracket that is wider has no single number in it: at 90 %, ten points are between half and all of what stays.
RESOLVED_WIDTH = 0.1

# The typical error in half-widths: nine of ten errors of the middle were at most this large. Calibrated on every second
# of 40 small networks with known spectra; results/coverage.jsonl has the fit and the share on all other cases.
_TYPICAL_QUADRATURE, _TYPICAL_PROBE = 0.56, 0.47

CONFIDENCE = 0.99  # with which the bracket covers the choice of the random probes


@dataclass(frozen=True)
class Bracket:
    """An interval for 1 - T at its fixed point, and the half-widths of which it is the sum.

    Attributes:
        low, high: lower and upper end, as sparsities.
        quadrature: half-width due to the limited number of Lanczos steps; a proven bound.
        probe: half-width due to the random probes; it is enough with a probability of 99 %, however few weights.
        data: estimated half-width due to sampled data; 0 if the batches are the whole population.
        rounding: half-width due to the rounding of products and Lanczos vectors, from its measured size; 0 if it was
            not measured, as in files of earlier versions.

    >>> found = Bracket(low=0.90, high=0.94, quadrature=0.01, probe=0.01, data=0.0)
    >>> round(found.middle, 4), found.resolved
    (0.92, True)
    """

    low: float
    high: float
    quadrature: float
    probe: float
    data: float
    rounding: float = 0.0

    def __str__(self) -> str:
        return f"{100 * self.low:.1f} % to {100 * self.high:.1f} %"

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def middle(self) -> float:
        """The middle. It is the limit only if the bracket is `resolved`."""
        return (self.low + self.high) / 2

    @property
    def estimate(self) -> float:
        """The limit as a single number: the middle; NaN if the bracket is not `resolved`."""
        return self.middle if self.resolved else math.nan

    @property
    def typical_error(self) -> float:
        """The error of `estimate` that nine of ten networks stay below, if they are like those of the calibration.

        This is no bound; the bracket is. It is NaN if the bracket is not `resolved`.

        >>> round(Bracket(0.90, 0.94, 0.02, 0.0, 0.0).typical_error, 4), Bracket(0.3, 0.99, 0.3, 0.0, 0.0).typical_error
        (0.0112, nan)
        """
        parts = _TYPICAL_QUADRATURE * self.quadrature, _TYPICAL_PROBE * self.probe, self.data, self.rounding
        return math.hypot(*parts) if self.resolved else math.nan

    @property
    def resolved(self) -> bool:
        """Whether the bracket is narrow enough to give its middle as the limit: at most `RESOLVED_WIDTH` wide.

        >>> Bracket(0.90, 0.94, 0.02, 0.0, 0.0).resolved, Bracket(0.3, 0.99, 0.3, 0.0, 0.0).resolved
        (True, False)
        """
        return self.width <= RESOLVED_WIDTH


def solve_bracket(
    spectrum: Spectrum,
    magnitudes: Magnitudes,
    tolerance: float,
    factor: FilterFactor,
    sampling: Sampling | None = None,
    *,
    search: bool = True,
    width_factor: float = 1.0,
) -> Bracket:
    r"""The bracket of the fixed point.

    Many spectra have the moments that Lanczos computed. The bracket contains the fixed points of all of them. It is
    then widened by the rounding error, the probe error and the data error.

    Args:
        spectrum: spectrum of the curvature, after any number of Lanczos steps.
        magnitudes: magnitudes of the weights under study.
        tolerance: allowed loss increase, positive.
        factor: the filter factor.
        sampling: spectra over other samples, from which the step to the population and its error are estimated; None
            if the data of ``spectrum`` are complete.
        search: whether to search for the rule with the highest density. If False, the Gauss rule replaces it: the
            bracket is then at most as wide, and the work is much less.
        width_factor: multiplies the sublevel set's projected Gaussian width, so that the needed density is
            :math:`1 - \text{width\_factor}^2\,(1 - T(\mu))`. Larsen et al.'s lower end has :math:`\sqrt{2/\pi}`.

    Returns:
        An interval of sparsities, with its half-widths.

    Raises:
        InputError: the tolerance is not positive.

    Source: Corollary 1 for the fixed point; docs/theory.md for the bracket.

    >>> import numpy as np
    >>> from howsparse.geometry import absolute_filter
    >>> from howsparse.linalg import Tridiagonal
    >>> half = Tridiagonal(np.array([1.0]), np.array([0.0]))  # all eigenvalues are 1
    >>> flat = Spectrum((half,), size=10**12, num_zero=10**12 // 2)  # half of the eigenvalues are 0, half are 1
    >>> weights = Magnitudes(np.ones(100))
    >>> round(solve_bracket(flat, weights, 1e-9, absolute_filter).low, 4)
    0.5
    >>> round(solve_bracket(flat, weights, 1e-9, absolute_filter, width_factor=0.5).low, 4)
    0.125
    """
    extremes = partial(_extremes, magnitudes=magnitudes, factor=factor, width_factor=width_factor)
    inner = extremes(spectrum, tolerance=tolerance, search=search)
    rounded = extremes(spectrum, tolerance=tolerance, rounded=True, search=search) if spectrum.rounding else inner
    low, high = extremes(spectrum, tolerance=tolerance, rounded=True, confidence=CONFIDENCE, search=search)
    halves = [(ends[1] - ends[0]) / 2 for ends in (inner, rounded, (low, high))]
    factor_of_data, data = 1.0, 0.0
    if sampling is not None:
        if sampling.above:
            shift = population_shift(spectrum, magnitudes, tolerance, factor, sampling, width_factor=width_factor)
            factor_of_data = shift.factor
            data = factor_of_data * (1 - (low + high) / 2) * shift.relative_error
        else:
            data = data_drift(spectrum, sampling, lambda of: _densities(*extremes(of, tolerance=tolerance)))
        moved = sum(extremes(spectrum, tolerance=tolerance * (1 + sampling.tolerance_error))) - sum(inner)
        data += factor_of_data * abs(moved) / 2
    least, most = (factor_of_data * end for end in _densities(low, high))
    return Bracket(
        low=max(0.0, 1 - most - data),
        high=min(1.0, 1 - least + data),
        quadrature=factor_of_data * halves[0],
        probe=factor_of_data * max(0.0, halves[2] - halves[1]),
        data=data,
        rounding=factor_of_data * max(0.0, halves[1] - halves[0]),
    )


def population_shift(
    spectrum: Spectrum,
    magnitudes: Magnitudes,
    tolerance: float,
    factor: FilterFactor,
    sampling: Sampling,
    *,
    width_factor: float = 1.0,
) -> Shift:
    """The step from the density over the examples of ``spectrum`` to that over the population; see `data_shift`."""
    extremes = partial(_extremes, magnitudes=magnitudes, factor=factor, width_factor=width_factor)
    return data_shift(spectrum, sampling, lambda of: _densities(*extremes(of, tolerance=tolerance)))


def _densities(low: float, high: float) -> tuple[float, float]:
    """Two sparsities as densities."""
    return 1 - high, 1 - low


def existence_bracket(removed: Spectrum, scale: float, density: float, factor: FilterFactor) -> tuple[float, float]:
    """The bracket of 1 - U, the sparsity at which a solution exists (Eq. 19), for the probe that was drawn.

    Args:
        removed: spectrum of the block of removed weights.
        scale: the scale at the limit, 2 tolerance / radius^2.
        density: density of the limit.
        factor: the filter factor.

    Returns:
        Lower and upper end, as sparsities; the first is never above the second. If the products with the block are too
        few for a lower end, it is 1 - 2 ``density``, which always holds.

    >>> import numpy as np
    >>> from howsparse.geometry import absolute_filter
    >>> from howsparse.linalg import Tridiagonal
    >>> one_step = Spectrum((Tridiagonal(np.array([0.1]), np.array([1.0])),), size=90)
    >>> low, high = existence_bracket(one_step, 1.0, 0.1, absolute_filter)
    >>> low == 1 - 2 * 0.1, round(high, 3)
    (True, 0.892)
    """

    def existence(rule: Rule) -> float:
        return existence_density(rule.nodes, scale, density, rule.masses, factor)

    # Where both rules are the whole measure, rounding decides which of both numbers is the smaller one.
    low, high = sorted((existence(removed.lowest()), existence(removed.highest(lambda x: factor(x, scale)))))
    # The block's singular values are at most those of the whole matrix, so U is at most 2 T.
    return 1 - min(high, 2 * density), 1 - min(low, 2 * density)


def _extremes(
    spectrum: Spectrum,
    *,
    magnitudes: Magnitudes,
    tolerance: float,
    factor: FilterFactor,
    rounded: bool = False,
    confidence: float = 0.0,
    search: bool = True,
    width_factor: float = 1.0,
) -> tuple[float, float]:
    narrowing = width_factor**2

    def density(rule: Rule, upper: bool) -> float:
        def density_at(scale: float) -> float:
            needed = minimal_density(rule.nodes, scale, rule.masses, factor)
            if rounded:
                needed = spectrum.rounded(needed, partial(factor, scale=scale), upper=upper)
            if confidence:
                needed = spectrum.probe_interval(needed, needed, confidence)[upper]
            return min(max(narrowing * needed + (1 - narrowing), 0.0), 1.0)

        return fixed_point(density_at, magnitudes, tolerance)

    least = density(spectrum.lowest(), upper=False)
    most = max(least, density(spectrum.gauss(), upper=True))  # rounding can make them change places
    # The highest rule at this scale needs a higher density. That changes the scale, so the search is repeated.
    for _ in range(8 if search else 0):
        here = partial(factor, scale=curvature_scale(tolerance, magnitudes.radius(most)))
        before, most = most, max(most, density(spectrum.highest(here), upper=True))
        if most - before < 1e-7:
            break
    return 1 - most, 1 - least
