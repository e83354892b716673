import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from howsparse import InputError
from howsparse.geometry import (
    Magnitudes,
    absolute_filter,
    clipped_filter,
    curvature_scale,
    effective_dimension,
    effective_sparsity,
    ellipsoid_width,
    existence_density,
    existence_fixed_point,
    fixed_point,
    generic_density,
    larsen_interval,
    minimal_density,
    projected_width,
    statistical_dimension,
)

spectra = arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e3, 1e3))
scales = st.floats(1e-6, 1e6)


def test_rank_one_hessian() -> None:
    eigenvalues = np.r_[5.0, np.zeros(99)]
    assert minimal_density(eigenvalues, 5.0) == pytest.approx(0.5 / 100)
    assert ellipsoid_width(eigenvalues, 1.0) == math.inf
    assert statistical_dimension(eigenvalues, 5.0) == pytest.approx(99.5)


def test_ellipsoid_width_against_its_definition() -> None:
    """Definition 3 by Monte-Carlo: the supremum of <g, x> over an ellipsoid is the norm of (r_i g_i)."""
    rng = np.random.default_rng(0)
    eigenvalues, tolerance = rng.uniform(0.5, 2.0, 2000), 0.1
    radii = np.sqrt(2 * tolerance / eigenvalues)
    supremum = np.linalg.norm(radii * rng.standard_normal((500, 2000)), axis=1).mean()
    assert ellipsoid_width(eigenvalues, tolerance) == pytest.approx(supremum, rel=2e-3)


def test_larsen_interval_holds_the_width_of_a_single_direction() -> None:
    """Far away, one direction's projected width is E|g| r / R: the lower end, which is why the factor is outside."""
    radius, eigenvalues = 1e4, [2.0]
    low, high = larsen_interval(eigenvalues, 1.0, radius)
    assert low == pytest.approx(math.sqrt(2 / math.pi) / radius)
    assert high == pytest.approx(1 / radius) == projected_width(eigenvalues, 1.0, radius)


@given(spectra, scales)
def test_dimensions_add_up(eigenvalues: np.ndarray, scale: float) -> None:
    for share in (absolute_filter, clipped_filter):
        total = effective_dimension(eigenvalues, scale, share) + statistical_dimension(eigenvalues, scale, share)
        assert total == pytest.approx(eigenvalues.size)


@given(spectra, scales, st.floats(0.1, 10.0))
def test_bounds_are_ordered_and_scale_free(eigenvalues: np.ndarray, scale: float, unit: float) -> None:
    wall = minimal_density(eigenvalues, scale)
    assert 0 <= generic_density(eigenvalues, scale) <= wall + 1e-9
    assert minimal_density(eigenvalues, scale, factor=clipped_filter) <= wall + 1e-12
    assert minimal_density(eigenvalues * unit, scale * unit) == pytest.approx(wall)
    assert minimal_density(eigenvalues, scale * unit) <= wall or unit < 1


@given(spectra, scales)
def test_a_rule_with_multiplicities_is_the_spectrum_it_stands_for(eigenvalues: np.ndarray, scale: float) -> None:
    repeated = np.repeat(eigenvalues, 3)
    rule = np.append(eigenvalues, 7.0), np.append(np.full(eigenvalues.size, 3.0), 0.0)
    assert minimal_density(rule[0], scale, rule[1]) == pytest.approx(minimal_density(repeated, scale))


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e3, 1e3)))
def test_radius_against_brute_force(weights: np.ndarray) -> None:
    magnitudes = Magnitudes(weights)
    smallest_first = sorted(abs(weights))
    for removed in range(weights.size + 1):
        expected = math.fsum(w * w for w in smallest_first[:removed])
        assert magnitudes.radius(1 - removed / weights.size) ** 2 == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(spectra, arrays(np.float64, 20, elements=st.floats(0.01, 10.0)), st.floats(1e-4, 1e2))
def test_fixed_point_keeps_what_it_needs(eigenvalues: np.ndarray, weights: np.ndarray, tolerance: float) -> None:
    """The root lies within 1e-9 of it: a little fewer are too few, a little more are enough."""
    magnitudes = Magnitudes(weights)

    def needed(density: float) -> float:
        radius = magnitudes.radius(density)
        return minimal_density(eigenvalues, curvature_scale(tolerance, radius)) if radius else 0.0

    density = fixed_point(lambda scale: minimal_density(eigenvalues, scale), magnitudes, tolerance)
    fewer, more = max(0.0, density - 1e-9), min(1.0, density + 1e-9)
    assert needed(fewer) >= fewer
    assert needed(more) <= more


def test_fixed_point_without_curvature_removes_everything() -> None:
    assert fixed_point(lambda scale: minimal_density([0.0, 0.0], scale), Magnitudes([1.0, 2.0]), 1.0) == 0.0


def test_existence_bound_of_a_diagonal_hessian() -> None:
    """Steep weights kept, flat ones removed: U is the share of steep ones; removing one of those costs a dimension."""
    flat, steep = np.zeros(90), np.full(10, 1e9)
    assert existence_density(flat, 1.0, density=0.1) == pytest.approx(0.1)
    assert existence_density(np.r_[flat, steep[:1]], 1.0, density=0.09) == pytest.approx(0.1)

    def existence_at(density: float) -> float:
        removed = 100 - round(100 * density)
        return existence_density(np.r_[flat, steep][:removed], 1.0, density) if removed else 1.0

    assert existence_fixed_point(existence_at, 100, dimensions=0.5) == 0.1
    assert existence_fixed_point(existence_at, 100) == 0.09  # one missing dimension counts as none


def test_existence_bound_is_met_where_the_removed_rows_are_zero() -> None:
    """U(p) = p to the letter, far below p = 1; where no row is zero only p = 1 is left."""

    def fixed(smallest: float) -> float:
        block = np.full(90, smallest)
        return existence_fixed_point(
            lambda p: (
                existence_density(np.r_[block, np.full(10, 1e9)][: 100 - round(100 * p)], 1.0, p) if p < 1 else 1.0
            ),
            num_weights=100,
            dimensions=0.0,
        )

    assert fixed(0.0) == 0.1
    assert fixed(1e-3) == 1.0


def test_existence_bound_is_never_below_the_density() -> None:
    assert existence_density([3.0, -2.0], math.inf, 0.25) == 0.25
    assert existence_density([3.0, -2.0], 1.0, 0.25) > 0.25


@pytest.mark.parametrize("tolerance", [0.0, -1.0, math.nan])
def test_tolerance_must_be_positive(tolerance: float) -> None:
    with pytest.raises(InputError, match=r"tolerance .* is not positive"):
        curvature_scale(tolerance, 1.0)


def test_scale_must_be_positive() -> None:
    with pytest.raises(InputError, match="scale 0 is not positive"):
        effective_dimension([1.0], 0.0)


@pytest.mark.parametrize("unit", [1.0, 1e-200, -1e200])
def test_effective_sparsity_of_equal_weights_is_the_fraction_of_zeros(unit: float) -> None:
    for zeros in (0, 1, 7, 9):
        weights = np.array([[0.0] * zeros + [unit] * (10 - zeros)])
        assert effective_sparsity(weights) == pytest.approx(zeros / 10, abs=1e-12)


def test_effective_sparsity_of_normal_weights() -> None:
    # (E|w|)^2 / E w^2 = 2 / pi for normal weights
    weights = np.random.default_rng(0).normal(size=200_000)
    assert effective_sparsity(weights) == pytest.approx(1 - 2 / math.pi, abs=0.005)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, math.nan], [1.0, math.inf]])
def test_effective_sparsity_needs_a_weight(weights: list[float]) -> None:
    with pytest.raises(InputError, match="no effective number"):
        effective_sparsity(weights)
