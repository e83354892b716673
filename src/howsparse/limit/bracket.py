"""Where the fixed point of T lies, as far as the products and the data at hand can tell, and what leaves it open."""

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
) -> Bracket:
    """The fixed point under the two extreme spectra with these moments, widened by the errors of probes and data.

    Without ``search``, the Gauss rule stands in for the highest: a bracket at most as wide, for much less work.
    """
    low, high = _extremes(spectrum, magnitudes, tolerance, factor, _CONFIDENCE, search)
    inner = _extremes(spectrum, magnitudes, tolerance, factor, 0.0, search)
    quadrature = (inner[1] - inner[0]) / 2
    data = 0.0 if sampling is None else _data_error(spectrum, magnitudes, tolerance, factor, sampling)
    return Bracket(
        max(0.0, low - data), min(1.0, high + data), quadrature, max(0.0, (high - low) / 2 - quadrature), data
    )


def _extremes(
    spectrum: Spectrum,
    magnitudes: Magnitudes,
    tolerance: float,
    factor: FilterFactor,
    confidence: float,
    search: bool = True,
) -> tuple[float, float]:
    def density(rule: Rule, sign: float) -> float:
        def density_at(scale: float) -> float:
            deviation = spectrum.probe_deviation(lambda x: factor(x, scale), rule) if confidence else 0.0
            return min(max(_needed(rule, factor, scale) + sign * confidence * deviation, 0.0), 1.0)

        return fixed_point(density_at, magnitudes, tolerance)

    least = density(spectrum.lowest(), -1)
    most = density(spectrum.gauss(), +1)
    for _ in range(
        8 if search else 0
    ):  # the rule that is highest at this scale asks for more weights, hence another scale
        here = partial(factor, scale=curvature_scale(tolerance, magnitudes.radius(most)))
        before, most = most, max(most, density(spectrum.highest(here), +1))
        if most - before < 1e-7:
            break
    return 1 - most, 1 - least


def _needed(rule: Rule, factor: FilterFactor, scale: float) -> float:
    return minimal_density(rule.nodes, scale, rule.masses, factor)


def _data_error(
    spectrum: Spectrum, magnitudes: Magnitudes, tolerance: float, factor: FilterFactor, sampling: Sampling
) -> float:
    def middle(of: Spectrum, at: float) -> float:
        return sum(_extremes(of, magnitudes, at, factor, 0.0)) / 2

    # Equal steps and probes, so that what differs is the data. On FC5 every doubling moves the limit by about as much
    # as the one before, and the few steps of the half sample see two thirds of it (docs/drift.md): hence the factor.
    alike = spectrum.first(sampling.half.num_steps)
    drift = 2 * abs(middle(sampling.half, tolerance) - middle(alike, tolerance)) * sampling.doublings
    moved = middle(spectrum, tolerance * (1 + sampling.tolerance_error)) - middle(spectrum, tolerance)
    return drift + abs(moved)
