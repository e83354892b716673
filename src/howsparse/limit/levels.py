r"""Spectra over nested samples of the data, and an estimate of the limit over more data from them.

The limit moves slowly with the number of examples and slowly with the number of Lanczos steps. So the smallest sample
takes many steps and each larger one takes fewer, and the ratios between neighbours are multiplied (a multilevel
estimate). Let :math:`T_l(k)` be the density over sample l after k steps. Then the density over the last sample is about

.. math:: T_0(k_0) \prod_l \frac{T_l(k_l)}{T_{l-1}(k_l)}.

Both densities of a ratio have the same probe and the same steps, so only the data differ. The error of a ratio is
estimated from its change with the number of steps, and from two ways to take one density from a bracket.

References:
    Giles (2015), Multilevel Monte Carlo methods. Here the ratios take the place of the differences.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from howsparse.linalg.spectrum import Spectrum

__all__ = ["Level", "Sampling", "Shift", "data_drift", "data_shift"]

Array = NDArray[np.float64]
Ends = Callable[[Spectrum], tuple[float, float]]

_LOOKS = (1 / 2, 3 / 4, 1)  # parts of the steps after which a ratio is read
# The estimates of the ratios' errors are added, and their sum is multiplied by this. Half of the result is enough for
# 95 % of random small networks (docs/levels.md). Larger ones are further from resolved after as many steps.
_CAUTION = 1.5
_LARGEST_ERROR = 20.0  # of the logarithm of a density, which is then unknown
_LEAST_DENSITY = 1e-12  # in the place of 0 under a logarithm


@dataclass(frozen=True)
class Level:
    """The spectrum of one sample of the data.

    Attributes:
        examples: number of examples; only the ratios between levels matter.
        spectrum: the spectrum over these examples, with the same probes as on the other levels.
    """

    examples: float
    spectrum: Spectrum


@dataclass(frozen=True)
class Sampling:
    """The data for the estimate of the population's limit from a spectrum over a sample.

    Attributes:
        levels: samples from small to large. They are nested, together with the sample of the limit's spectrum. This
            sample has ``examples`` examples and is not in the list.
        examples: number of examples of the limit's spectrum.
        population: number of examples in the population, in the same unit.
        tolerance_error: relative standard error of the tolerance; 0 if it is that of the population.
    """

    levels: tuple[Level, ...]
    examples: float
    population: float
    tolerance_error: float

    @property
    def above(self) -> bool:
        """Whether a level is above that of the limit's spectrum."""
        return any(level.examples > self.examples for level in self.levels)

    @property
    def doublings(self) -> float:
        """Number of steps to the population. Each has the ratio of the step from the largest level below."""
        return math.log2(self.population / self.examples) / math.log2(self.examples / self.levels[-1].examples)


@dataclass(frozen=True)
class Shift:
    """The logarithm of the factor between two densities.

    Attributes:
        value: the estimate.
        error: its estimated error.
    """

    value: float
    error: float

    @property
    def factor(self) -> float:
        """The factor."""
        return math.exp(self.value)

    @property
    def relative_error(self) -> float:
        """The relative error of the factor."""
        return math.expm1(self.error)

    def __add__(self, other: "Shift") -> "Shift":
        return Shift(self.value + other.value, self.error + other.error)


def data_shift(spectrum: Spectrum, sampling: Sampling, ends: Ends) -> Shift:
    """The ratio of the density over the population to the density over the examples of ``spectrum``.

    The levels above that of ``spectrum`` give the ratios. Beyond the largest level, the ratios are extrapolated from
    those below. A measured ratio with few steps is replaced by an extrapolated one, if two ratios are below it and the
    extrapolated one has the smaller error. The sum of the errors is multiplied by `_CAUTION`.

    Args:
        spectrum: the limit's spectrum.
        sampling: the other levels; at least one is below and one above.
        ends: lower and upper end of the density of a spectrum, each at its fixed point.
    """
    own = Level(sampling.examples, spectrum)
    chain = sorted((*sampling.levels, own), key=lambda level: level.examples)
    ratios, found = _Ratios(chain, ends), list[_Step]()
    for i, (small, large) in enumerate(pairwise(chain)):
        step = _Step(math.log2(large.examples / small.examples), ratios.shift(i))
        if small.examples >= own.examples and len(found) > 1:
            step = min(step, _continued(found, step.doublings), key=lambda choice: choice.shift.error)
        found.append(step)
    total = Shift(0.0, 0.0)
    for step, small in zip(found, chain, strict=False):
        if small.examples >= own.examples:
            total += step.shift
    left = math.log2(sampling.population / chain[-1].examples)
    total = total + _continued(found, left).shift if left > 0 else total
    return Shift(total.value, min(_CAUTION * total.error, _LARGEST_ERROR))


def data_drift(spectrum: Spectrum, sampling: Sampling, ends: Ends) -> float:
    """The possible change of the density from the examples of ``spectrum`` to the population, from a smaller sample.

    Both spectra have the same steps and probes, so only the data differ. On FC5 every doubling of the data moves the
    limit by about the same amount, and the few steps of the smaller sample show two thirds of it (docs/drift.md). The
    factor 2 corrects for that.

    Args:
        spectrum: the limit's spectrum.
        sampling: the smaller sample is its largest level.
        ends: lower and upper end of the density of a spectrum, each at its fixed point.
    """
    smaller = sampling.levels[-1]
    alike = spectrum.first(smaller.spectrum.num_steps)
    drift = abs(sum(ends(smaller.spectrum)) - sum(ends(alike)))  # twice that of the middle
    return drift * sampling.doublings


@dataclass(frozen=True)
class _Step:
    """The shift by a number of doublings of the data."""

    doublings: float
    shift: Shift

    @property
    def value(self) -> float:
        """The shift of one doubling."""
        return self.shift.value / self.doublings

    @property
    def error(self) -> float:
        """The error of one doubling."""
        return self.shift.error / self.doublings


def _continued(found: list[_Step], doublings: float) -> _Step:
    """The shift by further doublings, extrapolated from those below.

    Every doubling shifts by as much as in the last step. The error of a doubling is that of the last step, and the
    difference of the last two steps; if there is only one, the whole shift.
    """
    last, before = found[-1], found[-2].value if len(found) > 1 else 0.0
    return _Step(doublings, Shift(doublings * last.value, doublings * (last.error + abs(last.value - before))))


class _Ratios:
    """The ratios of the densities of neighbours in a chain of samples, as functions of the steps.

    Each has two readings: the ratio of the arithmetic and that of the geometric means of both ends of the density.
    """

    def __init__(self, chain: list[Level], ends: Ends) -> None:
        self._chain, self._ends = chain, ends
        self._known: dict[tuple[int, int], Array] = {}

    def shift(self, i: int) -> Shift:
        """The ratio of level i + 1 to level i: the mean over steps and readings, with its error.

        The error has three parts: the distance of both readings, the range over the steps, and the change of the
        ratio of the pair below between this number of steps and its own.
        """
        readings = self._readings(i, self._steps(i))
        per_look = readings.mean(axis=1)
        first, second = readings.mean(axis=0)
        error = abs(first - second) + float(np.ptp(per_look))
        if i > 0:
            few, own = (self._readings(i - 1, steps).mean() for steps in (self._steps(i), self._steps(i - 1)))
            error += abs(few - own)
        return Shift(float(per_look.mean()), float(error))

    def _steps(self, i: int) -> int:
        """The steps that both levels of pair ``i`` have."""
        return min(self._chain[i].spectrum.num_steps, self._chain[i + 1].spectrum.num_steps)

    def _readings(self, i: int, steps: int) -> Array:
        """Both readings of the ratio of level i + 1 to level i, at several looks up to ``steps``: ``(looks, 2)``."""
        steps = min(steps, self._steps(i))
        looks = sorted({max(1, round(part * steps)) for part in _LOOKS})
        return np.stack([self._log_means(i + 1, k) - self._log_means(i, k) for k in looks])

    def _log_means(self, level: int, steps: int) -> Array:
        """Logarithms of the arithmetic and the geometric mean of both ends of the density after so many steps."""
        if (level, steps) not in self._known:
            low, high = (max(end, _LEAST_DENSITY) for end in self._ends(self._chain[level].spectrum.first(steps)))
            self._known[level, steps] = np.array([math.log((low + high) / 2), math.log(low * high) / 2])
        return self._known[level, steps]
