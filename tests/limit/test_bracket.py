"""The bracket of a spectrum that is known completely, against the fixed point of its eigenvalues."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import bisect

from howsparse.geometry import Magnitudes, absolute_filter, larsen_interval
from howsparse.limit.bracket import Bracket, solve_bracket
from howsparse.limit.levels import Level, Sampling
from howsparse.linalg.lanczos import Lanczos
from howsparse.linalg.spectrum import Spectrum

LARSEN = math.sqrt(2 / math.pi)
NODES = np.random.default_rng(0).standard_normal(60) * np.geomspace(1e-4, 10, 60)
MAGNITUDES = Magnitudes(np.random.default_rng(1).standard_normal(60))


def after(steps: int) -> Spectrum:
    """Of so many rows with these eigenvalues in equal shares that the probe adds nothing."""
    lanczos = Lanczos(lambda v: torch.from_numpy(NODES) * v, torch.ones(60, dtype=torch.float64))
    for _ in range(steps):
        lanczos.step()
    return Spectrum((lanczos.tridiagonal,), size=10**16)


def direct(tolerance: float, upper_end: bool) -> float:
    """The sparsity at which the squared projected width is as many dimensions as are removed."""

    def excess(sparsity: float) -> float:
        radius = MAGNITUDES.radius(1 - sparsity)
        width = larsen_interval(NODES, tolerance, radius)[upper_end]
        return width**2 / 60 - sparsity

    return float(bisect(excess, 1e-9, 1.0, xtol=1e-13))


@pytest.mark.parametrize("upper_end", [False, True])
@pytest.mark.parametrize("tolerance", [1e-4, 0.03, 1.0])
def test_width_factor_against_a_direct_solve_for_larsens_ends(tolerance: float, upper_end: bool) -> None:
    exact, width_factor = direct(tolerance, upper_end), 1.0 if upper_end else LARSEN
    bracket = solve_bracket(after(60), MAGNITUDES, tolerance, absolute_filter, width_factor=width_factor)
    assert (bracket.low, bracket.high) == pytest.approx((exact, exact), abs=1e-7)
    rough = solve_bracket(after(6), MAGNITUDES, tolerance, absolute_filter, width_factor=width_factor)
    assert rough.low - 1e-7 <= exact <= rough.high + 1e-7
    assert rough.quadrature > 1e-5


def test_lower_end_is_above_the_upper_ends_share_at_the_same_radius() -> None:
    """Fewer weights are removed at the lower end, so its radius is smaller and its set looks wider from there."""
    low, high = direct(0.03, upper_end=False), direct(0.03, upper_end=True)
    assert 2 / math.pi * high < low < high


def test_width_factor_reaches_the_error_of_sampled_data() -> None:
    half = Spectrum(tuple(t.first(6) for t in after(7).tridiagonals), size=10**16)
    sampling = Sampling((Level(50, half),), examples=100, population=200, tolerance_error=0.1)
    wide, narrow = (
        solve_bracket(after(60), MAGNITUDES, 0.03, absolute_filter, sampling, width_factor=factor)
        for factor in (1.0, LARSEN)
    )
    moved = [
        direct(0.033, upper_end) - direct(0.03, upper_end) for upper_end in (True, False)
    ]  # the half sample is the whole here, so that the tolerance's error is all
    assert (wide.data, narrow.data) == pytest.approx(tuple(moved), abs=1e-7)


def test_a_bracket_that_is_not_resolved_has_no_estimate() -> None:
    wide = Bracket(0.3, 0.99, 0.3, 0.0, 0.0)
    assert math.isnan(wide.estimate)
    assert math.isnan(wide.typical_error)


def test_typical_error_grows_with_each_part_and_stays_inside_the_bracket() -> None:
    base = {"quadrature": 0.004, "probe": 0.003, "data": 0.002, "rounding": 0.001}
    half = sum(base.values())
    bracket = Bracket(0.9 - half, 0.9 + half, **base)
    assert bracket.estimate == pytest.approx(0.9)
    assert 0 < bracket.typical_error < half
    for part in base:
        larger = Bracket(bracket.low, bracket.high, **(base | {part: 2 * base[part]}))
        assert larger.typical_error > bracket.typical_error


def test_typical_error_covers_nine_of_ten_exact_limits_on_record() -> None:
    """Digits networks with 6,464 weights, none of them in the calibration: results/exact.jsonl."""
    within = []
    for line in (Path(__file__).parents[2] / "results" / "exact.jsonl").read_text().splitlines():
        found = json.loads(line)
        low, high = found["limit_low"], found["limit_high"]
        half = (high - low) / 2  # the records do not say how it divides, so the smaller typical error counts
        found_as = Bracket(low, high, half, 0.0, 0.0), Bracket(low, high, 0.0, half, 0.0)
        if found_as[0].resolved:
            error = abs(found_as[0].estimate - found["exact"])
            within.append(error <= min(bracket.typical_error for bracket in found_as))
    assert len(within) > 15
    assert sum(within) >= 0.9 * len(within)
