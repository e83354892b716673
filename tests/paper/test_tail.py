"""The tail of the whole spectrum, the other reading of Eq. 19, against sums over exact spectra."""

import numpy as np
import pytest
import torch

from howsparse.geometry import absolute_filter, minimal_density
from howsparse.linalg import Lanczos, Rule, Spectrum
from howsparse.paper.existence import mass_bounds, tail_bracket, tail_density


def spectrum_after(eigenvalues: np.ndarray, steps: int, zeros: int = 0) -> Spectrum:
    """Lanczos from the vector of ones: its measure has equal masses at all eigenvalues, so that no probe errs."""
    values = torch.tensor(eigenvalues)
    lanczos = Lanczos(lambda v: values * v, torch.ones(len(values), dtype=torch.float64))
    for _ in range(steps):
        if not lanczos.step():
            break
    return Spectrum((lanczos.tridiagonal,), len(values) + zeros, num_zero=zeros)


def eigenvalues_of(seed: int) -> np.ndarray:
    """Like a network's: many near 0 on both sides, some steep."""
    generator = np.random.default_rng(seed)
    parts = generator.normal(0, 1e-3, 60), generator.normal(0, 0.02, 250), generator.exponential(1.0, 50)
    return np.concatenate(parts)


def exact_tail(eigenvalues: np.ndarray, scale: float, removed: int, count: int) -> float:
    return float(np.sort(absolute_filter(eigenvalues, scale))[:removed].sum()) / count


def test_the_tail_of_eigenvalues_is_the_sum_over_the_smallest() -> None:
    eigenvalues = eigenvalues_of(0)
    rule = Rule(eigenvalues, np.full(360, 1 / 360))
    for removed in (0, 10, 333, 360):
        exact = exact_tail(eigenvalues, 0.05, removed, 360)
        assert tail_density(rule, 0.05, 1 - removed / 360) == pytest.approx(exact, abs=1e-12)
    assert tail_density(rule, 0.05, 0.0) == pytest.approx(minimal_density(eigenvalues, 0.05))


def test_a_mass_that_is_counted_in_part() -> None:
    rule = Rule(np.array([-1.0, 0.0]), np.array([0.5, 0.5]))
    assert tail_density(rule, 1.0, density=0.2) == pytest.approx(0.3 / 2)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("zeros", [0, 40])
def test_the_bracket_holds_the_tail_and_narrows(seed: int, zeros: int) -> None:
    eigenvalues, count, density, scale = eigenvalues_of(seed), 360 + zeros, 0.08, 0.05
    removed = round(count * (1 - density))
    exact = exact_tail(np.append(eigenvalues, np.zeros(zeros)), scale, removed, count)
    widths = []
    for steps in (4, 16, 40):
        low, high = tail_bracket(spectrum_after(eigenvalues, steps, zeros), scale, 1 - removed / count)
        assert low <= exact <= high
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_at_a_fixed_point_the_bracket_is_narrower(seed: int) -> None:
    """If p is known to be T, the part of T below a level is known from the part above."""
    eigenvalues, scale = eigenvalues_of(seed), 0.3
    density = minimal_density(eigenvalues, scale)
    exact = tail_density(Rule(eigenvalues, np.full(360, 1 / 360)), scale, density)
    spectrum = spectrum_after(eigenvalues, 24)
    low, high = tail_bracket(spectrum, scale, density, fixed=True)
    wide_low, wide_high = tail_bracket(spectrum, scale, density)
    assert wide_low <= low <= exact <= high <= wide_high
    assert high - low < 0.8 * (wide_high - wide_low)
    bounds = mass_bounds(spectrum, scale / 2)  # places that are dense elsewhere
    low, high = tail_bracket(spectrum, scale, density, fixed=True, bounds=bounds)
    assert low <= exact <= high
    assert high - low < wide_high - wide_low


def test_the_bracket_of_all_steps_is_the_exact_tail() -> None:
    eigenvalues = np.repeat([-0.3, -0.01, 0.0, 0.02, 1.5], 40)
    spectrum = spectrum_after(eigenvalues, 20)
    assert spectrum.complete
    low, high = tail_bracket(spectrum, 0.05, 0.2)
    exact = exact_tail(eigenvalues, 0.05, 160, 200)
    assert low <= exact + 1e-12
    assert high >= exact - 1e-12
    assert high - low < 0.03  # a step of the filter factor is 1/100


def test_every_rule_with_the_same_moments_is_in_the_bracket() -> None:
    """The bracket may not be narrower than what the family of Gauss-Radau rules leaves open."""
    spectrum = spectrum_after(eigenvalues_of(5), 16)
    low, high = tail_bracket(spectrum, 0.05, 0.08)
    tails = [tail_density(rule, 0.05, 0.08) for rule in spectrum.tridiagonals[0].family]
    assert low <= min(tails)
    assert high >= max(tails)
    assert high - low < 1.5 * (max(tails) - min(tails))
