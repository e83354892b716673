"""The bracket of a spectrum that is known completely, against the fixed point of its eigenvalues."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import bisect

from howsparse.geometry import Magnitudes, absolute_filter, larsen_interval
from howsparse.limit.bracket import Sampling, solve_bracket
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
    sampling = Sampling(half, doublings=1.0, tolerance_error=0.1)
    wide, narrow = (
        solve_bracket(after(60), MAGNITUDES, 0.03, absolute_filter, sampling, width_factor=factor)
        for factor in (1.0, LARSEN)
    )
    moved = [
        direct(0.033, upper_end) - direct(0.03, upper_end) for upper_end in (True, False)
    ]  # the half sample is the whole here, so that the tolerance's error is all
    assert (wide.data, narrow.data) == pytest.approx(tuple(moved), abs=1e-7)
