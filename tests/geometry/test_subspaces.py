"""Random subspaces are drawn: where they begin to meet the sublevel set, and the least loss on them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from howsparse import InputError
from howsparse.geometry import (
    generic_density,
    minimal_density,
    statistical_dimension,
    subspace_loss,
    subspace_stiffness,
)


def transitions(
    eigenvalues: np.ndarray, displacement: np.ndarray, tolerance: float, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """The theorem itself: for random nested subspaces, the first dimension at which one meets the sublevel set.

    The set is the ellipsoid 1/2 (x - c)'H(x - c) <= tolerance around c = displacement; the loss left in the best point
    of the first k random directions is a least-squares residual, read off one QR for every k.
    """
    root = np.sqrt(eigenvalues)
    target, first = root * displacement, []
    for _ in range(draws):
        directions = root[:, None] * rng.standard_normal((eigenvalues.size, eigenvalues.size))
        explained = np.cumsum((np.linalg.qr(directions).Q.T @ target) ** 2)
        left = (target @ target - np.concatenate([[0.0], explained])) / 2
        first.append(int(np.argmax(left <= tolerance)))
    return np.array(first)


@pytest.mark.parametrize(
    "eigenvalues",
    [np.geomspace(1e-4, 1e2, 300), np.repeat([10.0, 0.01], [75, 225])],
    ids=["log-spaced", "two-valued"],
)
@pytest.mark.parametrize("scale", [0.03, 0.3])
def test_phase_transition_is_where_the_bounds_say(eigenvalues: np.ndarray, scale: float) -> None:
    """Agreement seen over 40 draws: the mean within 5 of 300 dimensions, single draws within about 10."""
    rng = np.random.default_rng(0)
    size = eigenvalues.size
    radius, tolerance = 2.0, scale * 2.0**2 / 2
    anywhere = rng.standard_normal(size)
    steep = np.where(eigenvalues >= np.sort(eigenvalues)[-15], anywhere, 0.0)
    for direction, density in (
        (steep, minimal_density(eigenvalues, scale)),
        (anywhere, generic_density(eigenvalues, scale)),
    ):
        displacement = direction * radius / np.linalg.norm(direction)
        seen = transitions(eigenvalues, displacement, tolerance, draws=40, rng=rng)
        assert abs(seen.mean() - size * density) < 6
        assert seen.std() < 12  # sharp: a few dimensions of 300


@pytest.mark.parametrize("kept", [15, 60, 150, 250])
def test_loss_left_by_random_subspaces_with_a_gradient(kept: int) -> None:
    """Minimising the quadratic model over random subspaces through the pruned point; agreement seen: within 2 %."""
    rng = np.random.default_rng(kept)
    eigenvalues = np.geomspace(1e-3, 1e1, 300)
    displacement, gradient = rng.standard_normal(300), 0.3 * np.sqrt(eigenvalues) * rng.standard_normal(300)
    at_pruned = float(gradient @ displacement + displacement @ (eigenvalues * displacement) / 2)
    slope = gradient + eigenvalues * displacement
    left = []
    for _ in range(60):
        directions = np.linalg.qr(rng.standard_normal((300, kept))).Q
        inner = directions.T @ (eigenvalues[:, None] * directions)
        along = directions.T @ slope
        left.append(at_pruned - along @ np.linalg.solve(inner, along) / 2)
    predicted = subspace_loss(eigenvalues, displacement, gradient, kept / 300)
    assert np.mean(left) == pytest.approx(predicted, abs=0.02 * at_pruned)
    assert predicted < at_pruned


def test_loss_left_by_no_direction_is_the_certificates() -> None:
    rng = np.random.default_rng(0)
    eigenvalues, d, g = rng.uniform(0.1, 2.0, 50), rng.standard_normal(50), rng.standard_normal(50)
    certificate = g @ d + d @ (eigenvalues * d) / 2
    assert subspace_loss(eigenvalues, d, g, 1e-9) == pytest.approx(certificate, rel=1e-6)
    assert subspace_loss(eigenvalues, d, g, 1 - 1e-9) == pytest.approx(-np.sum(g**2 / eigenvalues) / 2, rel=1e-6)


@pytest.mark.parametrize(("kept", "slope"), [(30, 0.1), (110, 0.1), (60, 0.0)])
def test_loss_left_by_random_subspaces_if_half_of_the_eigenvalues_are_zero(kept: int, slope: float) -> None:
    """A GGN has directions without curvature; minimised without the formula, agreement seen: within 2 %."""
    rng = np.random.default_rng(kept)
    eigenvalues = np.r_[np.zeros(150), np.geomspace(1e-2, 1e1, 150)]
    displacement, gradient = rng.standard_normal(300), slope * np.sqrt(eigenvalues) * rng.standard_normal(300)
    at_pruned = float(gradient @ displacement + displacement @ (eigenvalues * displacement) / 2)
    left = []
    for _ in range(60):
        directions = np.linalg.qr(rng.standard_normal((300, kept))).Q
        inner, along = (
            directions.T @ (eigenvalues[:, None] * directions),
            directions.T @ (gradient + eigenvalues * displacement),
        )
        left.append(at_pruned - along @ np.linalg.solve(inner, along) / 2)
    predicted = subspace_loss(eigenvalues, displacement, gradient, kept / 300)
    assert np.mean(left) == pytest.approx(predicted, abs=0.02 * at_pruned)


def test_a_subspace_of_more_dimensions_than_there_is_curvature_undoes_everything() -> None:
    eigenvalues, d = np.r_[0.0, 0.0, 1.0, 4.0], np.array([1.0, -2.0, 3.0, 4.0])
    inside = np.array([0.0, 0.0, 0.5, 1.0])
    assert subspace_loss(eigenvalues, d, inside, 0.5) == pytest.approx(-(0.5**2 + 1.0**2 / 4) / 2)
    assert subspace_loss(eigenvalues, d, np.full(4, 0.1), 0.5) == -math.inf  # it falls along a flat direction
    assert subspace_stiffness(eigenvalues, 0.5) == 0.0
    assert subspace_stiffness(eigenvalues, 0.0) == math.inf


@given(arrays(np.float64, st.integers(2, 30), elements=st.just(0.0) | st.floats(1e-9, 1e3)), st.floats(0.01, 0.99))
def test_stiffness_is_where_the_effective_dimension_is_the_density(eigenvalues: np.ndarray, density: float) -> None:
    kappa = subspace_stiffness(eigenvalues, density)
    if kappa > 0:
        assert minimal_density(eigenvalues, kappa) == pytest.approx(density, rel=1e-6)
    else:
        assert np.mean(eigenvalues > 0) <= density * (1 + 1e-9)


@pytest.mark.parametrize("eigenvalue", [-1.0, math.nan])
def test_loss_left_needs_eigenvalues_that_are_not_negative(eigenvalue: float) -> None:
    with pytest.raises(InputError, match=r"is negative|not a finite number"):
        subspace_loss([1.0, eigenvalue], [1.0, 1.0], [0.0, 0.0], 0.5)
    with pytest.raises(InputError, match="outside"):
        subspace_loss([1.0, 1.0], [1.0, 1.0], [0.0, 0.0], 1.5)


def test_a_ball_is_met_where_elementary_geometry_says() -> None:
    """A ball of radius r at distance R spans a cone of dimension D r^2/R^2; the paper's T has R^2 + r^2 instead."""
    eigenvalues, scale = np.ones(400), 0.3
    assert generic_density(eigenvalues, scale) == pytest.approx(1 - 0.3)
    assert minimal_density(eigenvalues, scale) == pytest.approx(1 / 1.3)
    small = statistical_dimension(eigenvalues, 1e-6)  # the proxy agrees with the cone for a small ball
    assert small == pytest.approx(400 * 1e-6, rel=1e-5)
    seen = transitions(eigenvalues, np.r_[np.sqrt(2 / 0.3), np.zeros(399)], 1.0, 40, np.random.default_rng(1))
    assert seen.mean() == pytest.approx(400 * 0.7, abs=6)
