r"""The tables from which a page computes the limit for every tolerance, without numpy.

The limit is the density p at which the needed density, a function of the scale :math:`\mu = 2\epsilon/R^2(p)`, is p. So
two tables are enough for every tolerance :math:`\epsilon`: the needed density at every scale, at both ends of the
bracket, and the squared radius :math:`R^2` at every sparsity. The first is smooth in :math:`\log\mu`; a table with a
step of 0.08 and cubic interpolation is right to 1e-5. The second is interpolated by cubic polynomials with the exact
slopes, which are the squared magnitudes.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BarycentricInterpolator

from howsparse.geometry import Magnitudes
from howsparse.limit.bracket import CONFIDENCE, population_shift
from howsparse.limit.levels import Sampling
from howsparse.limit.options import FILTERS, Negative
from howsparse.limit.result import PruningLimit
from howsparse.linalg import Spectrum, Tridiagonal
from howsparse.linalg.quadrature import Rule

__all__ = ["Scales", "live_limit", "needed_densities", "radius_curve", "scales_for", "short"]

Array = NDArray[np.float64]

_STEP = 0.08  # of the logarithm of the scale
_PLACES = np.arange(0, 48.1, 0.25)  # of the Gauss-Radau rules among which the highest is searched
_OFFSETS = np.arange(-2, 3)
_QUARTIC = BarycentricInterpolator(_OFFSETS, np.eye(5))(
    np.linspace(-1, 1, 101)
)  # values between, from those at offsets
_LEAST = 1e-7  # densities below this are not tabulated
_CLOSE = 2e-5  # relative error of the squared radius
_MOST_KNOTS = 3000
_SHIFTS = 33  # tolerances for which the step from a sample to the population is computed


@dataclass(frozen=True)
class Scales:
    """Scales whose logarithms are equally spaced.

    Attributes:
        start: logarithm of the first scale.
        count: number of scales.
    """

    start: float
    count: int

    @property
    def values(self) -> Array:
        """The scales, ``(count,)``, in loss per squared weight."""
        return np.asarray(np.exp(self.start + _STEP * np.arange(self.count)))


def live_limit(limit: PruningLimit, tolerances: tuple[float, float]) -> dict[str, Any]:
    """The tables from which a page computes the limit for every tolerance in a range, as JSON values.

    Args:
        limit: the limit.
        tolerances: the smallest and the largest tolerance, both positive.

    Returns:
        Needed densities at the ends of the bracket (``proven``: by the quadrature alone; ``rounded``: with rounding;
        ``outer``: with the probe too), squared radii, and what the data error needs.
    """
    spectrum, sampling = limit.spectrum, limit.sampling
    scales = scales_for(spectrum, limit.magnitudes, tolerances)
    table = partial(needed_densities, scales=scales, negative=limit.negative)
    tables: dict[str, Any] = {"proven": table(spectrum)}
    tables["rounded"] = table(spectrum, rounded=True) if spectrum.rounding else tables["proven"]
    tables["outer"] = table(spectrum, rounded=True, confidence=CONFIDENCE)
    data: dict[str, Any] | None = None
    if sampling is not None:
        data = {"toleranceError": sampling.tolerance_error}
        if sampling.above:
            data["shift"] = _shifts(limit, sampling, tolerances)
        else:
            smaller = sampling.levels[-1].spectrum
            tables |= {"half": table(smaller), "alike": table(spectrum.first(smaller.num_steps))}
            data["doublings"] = sampling.doublings
    return {
        "start": scales.start,
        "step": _STEP,
        "tables": {name: [short(end) for end in ends] for name, ends in tables.items()},
        "radius": [short(column, 12) for column in radius_curve(limit.magnitudes)],
        "data": data,
        "weights": limit.num_weights,
    }


def scales_for(spectrum: Spectrum, magnitudes: Magnitudes, tolerances: tuple[float, float]) -> Scales:
    """The scales that the fixed points for some tolerances can have.

    No fixed point has a scale below that at which all weights are removed. Where the needed density is nearly 0, the
    fixed point is at a sparsity of nearly 1, so larger scales are not needed either.

    Args:
        spectrum: spectrum of the curvature.
        magnitudes: magnitudes of the weights under study.
        tolerances: the smallest and the largest tolerance.
    """
    whole = max(magnitudes.radius(0.0) ** 2, 1e-300)
    mean = spectrum.gauss().integrate(np.abs)
    low, high = 2 * tolerances[0] / whole, max(2 * tolerances[1] / whole, mean / _LEAST)
    return Scales(math.log(low) - 2 * _STEP, math.ceil(math.log(high / low) / _STEP) + 5)


def needed_densities(
    spectrum: Spectrum, scales: Scales, negative: Negative, *, rounded: bool = False, confidence: float = 0.0
) -> tuple[Array, Array]:
    """The smallest and the largest needed density T that the spectrum's moments allow, at each scale.

    Args:
        spectrum: spectrum of the curvature, after any number of Lanczos steps.
        scales: where to compute.
        negative: how negative curvature counts.
        rounded: whether to widen by the rounding error.
        confidence: probability of the interval for the probes; 0 for no such interval.

    Returns:
        Two arrays, ``(count,)``, of densities in [0, 1].

    >>> flat = Spectrum((Tridiagonal(np.array([1.0]), np.array([0.0])),), size=2, num_zero=1)
    >>> [float(end[0]) for end in needed_densities(flat, Scales(0.0, 1), "wall")]
    [0.25, 0.25]
    """
    factor, share = FILTERS[negative], 1 - spectrum.num_zero / spectrum.size
    lows = _integrals(spectrum.lowest(), scales, negative)
    if spectrum.positive:
        highs = _integrals(spectrum.gauss(), scales, negative)
    else:
        highs = share * np.mean([_highest(each, scales, negative) for each in spectrum.tridiagonals], axis=0)
    ends = []
    for upper, needed in enumerate((lows, highs)):
        for i, scale in enumerate(scales.values if rounded else ()):
            needed[i] = spectrum.rounded(needed[i], partial(factor, scale=scale), upper=bool(upper))
        if confidence:
            needed = np.array([spectrum.probe_interval(float(x), float(x), confidence)[upper] for x in needed])
        ends.append(np.clip(needed, 0.0, 1.0))
    return ends[0], ends[1]


def radius_curve(magnitudes: Magnitudes) -> tuple[Array, Array, Array]:
    """Knots of the squared radius as a function of sparsity, for cubic interpolation with slopes.

    Args:
        magnitudes: magnitudes of the weights under study.

    Returns:
        Sparsities, squared radii and their slopes; three arrays, ``(knots,)``.

    >>> [column.tolist() for column in radius_curve(Magnitudes([2.0, 2.0]))]
    [[0.0, 1.0], [0.0, 8.0], [8.0, 8.0]]
    """
    count = magnitudes.num_weights
    squares = np.square(magnitudes.sizes, dtype=np.float64)
    sums = np.concatenate([[0.0], np.cumsum(squares)])
    slopes = count * np.concatenate([squares[:1], (squares[1:] + squares[:-1]) / 2, squares[-1:]])
    floor = _CLOSE * float(sums[-1])
    knots, open_ = [0, count], [(0, count)]
    while open_ and len(knots) < _MOST_KNOTS:
        start, end = open_.pop(0)
        inside = np.unique(np.linspace(start, end, 34).round().astype(np.int64))[1:-1]
        guess = _hermite(start, end, inside, sums, slopes / count)
        if inside.size and np.any(np.abs(guess - sums[inside]) > _CLOSE * np.maximum(sums[inside], floor)):
            middle = (start + end) // 2
            knots.append(middle)
            open_ += [(start, middle), (middle, end)]
    at = np.sort(np.array(knots))
    return at / count, sums[at], slopes[at]


def short(values: Array, digits: int = 9) -> list[float]:
    """The numbers as JSON values with this number of significant digits.

    >>> short(np.array([1 / 3, 2.0]), 3)
    [0.333, 2.0]
    """
    return [float(f"{value:.{digits}g}") for value in values]


def _shifts(limit: PruningLimit, sampling: Sampling, tolerances: tuple[float, float]) -> dict[str, Any]:
    """The step to the population at tolerances of equal ratios: its logarithm and the error of that."""
    at = np.geomspace(*tolerances, _SHIFTS)
    factor = FILTERS[limit.negative]
    found = [population_shift(limit.spectrum, limit.magnitudes, float(t), factor, sampling) for t in at]
    return {
        "at": short(np.log(at)),
        "value": short(np.array([shift.value for shift in found])),
        "error": short(np.array([shift.error for shift in found])),
    }


def _integrals(rule: Rule, scales: Scales, negative: Negative) -> Array:
    """The integral of the filter factor at each scale; the factor depends on the ratio of curvature and scale only."""
    return np.asarray(FILTERS[negative](np.outer(1 / scales.values, rule.nodes), 1.0) @ rule.masses)


def _highest(tridiagonal: Tridiagonal, scales: Scales, negative: Negative) -> Array:
    """The largest integral of the filter factor over the family of Gauss-Radau rules, at each scale.

    Along the family the integral has one maximum. It is that of a polynomial through the five rules around the best.
    """
    if tridiagonal.complete:
        rules = [tridiagonal.member(0.0)]
    else:
        rules = [tridiagonal.member(float(place)) for place in _PLACES]
    found = np.array([_integrals(rule, scales, negative) for rule in rules])
    if len(rules) == 1:
        return np.asarray(found[0])
    middle, columns = np.clip(found.argmax(0), 2, len(rules) - 3), np.arange(scales.count)
    near = np.array([found[middle + offset, columns] for offset in _OFFSETS])
    return np.asarray(np.maximum((_QUARTIC @ near).max(0), found.max(0)))


def _hermite(start: int, end: int, inside: NDArray[np.int64], sums: Array, slopes: Array) -> Array:
    """The cubic polynomial between two knots, at the whole numbers of weights inside."""
    width = end - start
    t = (inside - start) / width
    left = (1 + 2 * t) * (1 - t) ** 2 * sums[start] + t * (1 - t) ** 2 * width * slopes[start]
    right = t**2 * (3 - 2 * t) * sums[end] + t**2 * (t - 1) * width * slopes[end]
    return np.asarray(left + right)
