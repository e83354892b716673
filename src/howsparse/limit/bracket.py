"""Where the fixed point of T lies, as far as the products and the data at hand can tell, and what leaves it open."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from howsparse.geometry import FilterFactor, Magnitudes, curvature_scale, fixed_point, minimal_density
from howsparse.linalg.quadrature import Rule
from howsparse.linalg.spectrum import Spectrum

__all__ = ["Bracket", "Sampling", "solve_bracket"]

_CONFIDENCE = 2.58  # standard deviations of the probes' error on each side: 99 %


@dataclass(frozen=True)
class Sampling:
    """How far a sample of the data may lead astray, estimated from its first half.

    Attributes:
        half: spectrum over the first half of the examples, from the same probes as the whole sample's.
        doublings: of the sample until it is the population.
        tolerance_error: relative standard error of the tolerance, 0 if it was given.
    """

    half: Spectrum
    doublings: float
    tolerance_error: float


@dataclass(frozen=True)
class Bracket:
    """An interval for 1 - T at its fixed point, and the half-widths that make it up.

    Attributes:
        low, high: the sparsities between which it lies.
        quadrature: what the Lanczos steps taken leave open; a theorem.
        probe: what the random probes add, at 99 %.
        data: what is due to the examples being a sample; 0 if they are all there are.
    """

    low: float
    high: float
    quadrature: float
    probe: float
    data: float

    @property
    def width(self) -> float:
        return self.high - self.low


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
    r"""The fixed point under the two extreme spectra with these moments, widened by the errors of probes and data.

    Args:
        spectrum: of the curvature, as far as Lanczos has resolved it.
        magnitudes: of the weights under study.
        tolerance: loss increase allowed, positive.
        factor: how negative curvature counts.
        sampling: what is known of the error from sampled data; None if the data are complete.
        search: look for the highest rule; if False the Gauss rule stands in for it, and the bracket is at most as
            wide, for much less work.
        width_factor: the sublevel set's projected Gaussian width w is taken times this, so that the density needed is
            :math:`1 - \text{width\_factor}^2\,(1 - T(\mu))`. Larsen et al.'s lower end has :math:`\sqrt{2/\pi}`.

    Returns:
        An interval of sparsities, and what it is made of.

    >>> import numpy as np
    >>> from howsparse.geometry import absolute_filter
    >>> from howsparse.linalg import Tridiagonal
    >>> half = Tridiagonal(np.array([1.0]), np.array([0.0]))  # all eigenvalues are 1
    >>> flat = Spectrum((half,), size=10**12, num_zero=10**12 // 2)  # half of them are 0 instead
    >>> weights = Magnitudes(np.ones(100))
    >>> round(solve_bracket(flat, weights, 1e-9, absolute_filter).low, 4)
    0.5
    >>> round(solve_bracket(flat, weights, 1e-9, absolute_filter, width_factor=0.5).low, 4)
    0.125
    """
    extremes = partial(_extremes, magnitudes=magnitudes, factor=factor, width_factor=width_factor)
    low, high = extremes(spectrum, tolerance=tolerance, confidence=_CONFIDENCE, search=search)
    inner = extremes(spectrum, tolerance=tolerance, search=search)
    quadrature = (inner[1] - inner[0]) / 2
    data = 0.0 if sampling is None else _data_error(spectrum, tolerance, sampling, extremes)
    return Bracket(
        max(0.0, low - data), min(1.0, high + data), quadrature, max(0.0, (high - low) / 2 - quadrature), data
    )


def _extremes(
    spectrum: Spectrum,
    *,
    magnitudes: Magnitudes,
    tolerance: float,
    factor: FilterFactor,
    confidence: float = 0.0,
    search: bool = True,
    width_factor: float = 1.0,
) -> tuple[float, float]:
    narrowing = width_factor**2

    def density(rule: Rule, sign: float) -> float:
        def density_at(scale: float) -> float:
            deviation = spectrum.probe_deviation(lambda x: factor(x, scale), rule) if confidence else 0.0
            needed = minimal_density(rule.nodes, scale, rule.masses, factor) + sign * confidence * deviation
            return min(max(narrowing * needed + (1 - narrowing), 0.0), 1.0)

        return fixed_point(density_at, magnitudes, tolerance)

    least = density(spectrum.lowest(), -1)
    most = density(spectrum.gauss(), +1)
    # The rule that is highest at this scale asks for more weights, hence another scale.
    for _ in range(8 if search else 0):
        here = partial(factor, scale=curvature_scale(tolerance, magnitudes.radius(most)))
        before, most = most, max(most, density(spectrum.highest(here), +1))
        if most - before < 1e-7:
            break
    return 1 - most, 1 - least


def _data_error(
    spectrum: Spectrum, tolerance: float, sampling: Sampling, extremes: Callable[..., tuple[float, float]]
) -> float:
    def middle(of: Spectrum, at: float) -> float:
        return sum(extremes(of, tolerance=at)) / 2

    # Equal steps and probes, so that what differs is the data. On FC5 every doubling moves the limit by about as much
    # as the one before, and the few steps of the half sample see two thirds of it (docs/drift.md): hence the factor.
    alike = spectrum.first(sampling.half.num_steps)
    drift = 2 * abs(middle(sampling.half, tolerance) - middle(alike, tolerance)) * sampling.doublings
    moved = middle(spectrum, tolerance * (1 + sampling.tolerance_error)) - middle(spectrum, tolerance)
    return drift + abs(moved)
