"""Negative curvature: where random subspaces meet the sublevel set of an indefinite quadratic model in a ball."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq

from howsparse import InputError
from howsparse.geometry import (
    clipped_filter,
    minimal_density,
    subspace_loss,
    trust_region_density,
    trust_region_loss,
)

SCALE, TOLERANCE = 0.01, 0.005  # of a displacement of length 1
INDEFINITE = np.r_[np.geomspace(1e-4, 10.0, 270), -np.geomspace(1e-3, 0.1, 30)]


def least_loss(
    eigenvalues: np.ndarray, d: np.ndarray, gradient: np.ndarray, directions: np.ndarray, radius: float
) -> float:
    """Least value of g'x + 1/2 x'Hx on d + span(directions) within the ball: exact, by an eigen-decomposition."""
    nearest = d - directions @ (directions.T @ d)
    room = radius**2 - float(nearest @ nearest)
    if room < 0:
        return math.inf
    curvatures, vectors = np.linalg.eigh(directions.T @ (eigenvalues[:, None] * directions))
    slopes = vectors.T @ (directions.T @ (gradient + eigenvalues * nearest))

    def length(shift: float) -> float:
        return float(np.sum((slopes / (curvatures + shift)) ** 2))

    shift = 0.0
    if curvatures[0] <= 0 or length(0.0) > room:
        low = max(0.0, -float(curvatures[0]))
        high = low + float(np.linalg.norm(slopes)) / math.sqrt(room)
        shift = brentq(lambda at: length(at) - room, low + 1e-13 * (1 + low), high, xtol=1e-15)
    step = -slopes / (curvatures + shift)
    x = nearest + directions @ (vectors @ step)
    assert np.linalg.norm(x) <= radius * (1 + 1e-6)
    return float(gradient @ x + x @ (eigenvalues * x) / 2)


def transition(eigenvalues: np.ndarray, d: np.ndarray, radius: float, rng: np.random.Generator) -> int:
    """First dimension at which a random chain of nested subspaces has a point within the tolerance."""
    directions, zero = np.linalg.qr(rng.standard_normal((d.size, d.size))).Q, np.zeros(d.size)
    low, high = 0, d.size
    while high - low > 1:
        middle = (low + high) // 2
        if least_loss(eigenvalues, d, zero, directions[:, :middle], radius) <= TOLERANCE:
            high = middle
        else:
            low = middle
    return high


def displacement(eigenvalues: np.ndarray, steep: bool, rng: np.random.Generator) -> np.ndarray:
    d = rng.standard_normal(eigenvalues.size)
    if steep:
        d[eigenvalues < np.sort(eigenvalues)[-15]] = 0
    return d / np.linalg.norm(d)


@pytest.mark.parametrize("steep", [True, False])
@pytest.mark.parametrize("reach", [1.0, 2.0, 10.0])
def test_drawn_transitions_are_where_the_loss_in_the_ball_says(steep: bool, reach: float) -> None:
    """Agreement seen over 12 draws: within 7 of 300 dimensions; a larger model agrees better."""
    rng, zero = np.random.default_rng(int(reach)), np.zeros(300)
    seen, expected = [], []
    for _ in range(12):
        d = displacement(INDEFINITE, steep, rng)
        seen.append(transition(INDEFINITE, d, reach, rng))

        def excess(density: float, d: np.ndarray = d) -> float:
            return min(trust_region_loss(INDEFINITE, d, zero, density, reach), 1e6) - TOLERANCE

        expected.append(300 * brentq(excess, 1e-3, 1 - 1e-3))
    assert abs(np.mean(seen) - np.mean(expected)) < 10
    needed = 300 * trust_region_density(INDEFINITE, SCALE, reach)
    assert np.mean(expected) < needed + 0.5  # steep directions are the worst
    assert abs(np.mean(seen) - needed) < 10 or not steep


def test_the_transition_is_below_both_readings_in_a_large_ball_and_above_both_in_a_small_one() -> None:
    """|lambda| and the clipped lambda are no bounds on it, and it need not lie between them."""
    rng = np.random.default_rng(0)
    wall = 300 * minimal_density(INDEFINITE, SCALE)
    unbounded = 300 * minimal_density(INDEFINITE, SCALE, factor=clipped_filter)
    assert unbounded < wall
    far = [transition(INDEFINITE, displacement(INDEFINITE, True, rng), 10.0, rng) for _ in range(12)]
    near = [transition(INDEFINITE, displacement(INDEFINITE, True, rng), 1.0, rng) for _ in range(12)]
    assert max(far) < unbounded - 40
    assert np.mean(near) > wall + 5


@pytest.mark.parametrize("kept", [30, 90, 200])
@pytest.mark.parametrize("radius", [1.2, 4.0])
def test_least_loss_in_a_ball_with_a_gradient(kept: int, radius: float) -> None:
    """Minimised over drawn subspaces, with generic displacements; agreement seen: within 5 %."""
    rng, left, expected = np.random.default_rng(kept), [], []
    for _ in range(10):
        d = displacement(INDEFINITE, False, rng)
        gradient = 0.05 * rng.standard_normal(300) * np.abs(INDEFINITE)
        directions = np.linalg.qr(rng.standard_normal((300, kept))).Q
        left.append(least_loss(INDEFINITE, d, gradient, directions, radius))
        expected.append(trust_region_loss(INDEFINITE, d, gradient, kept / 300, radius))
    at_pruned = float(np.mean(d @ (INDEFINITE * d) / 2))
    assert np.mean(left) == pytest.approx(np.mean(expected), rel=0.06, abs=0.03 * at_pruned)


def test_without_negative_curvature_a_large_ball_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    values, d = np.geomspace(1e-2, 10.0, 60), rng.standard_normal(60)
    gradient = 0.1 * values * rng.standard_normal(60)
    for density in (0.1, 0.5, 0.9):
        free = subspace_loss(values, d, gradient, density)
        assert trust_region_loss(values, d, gradient, density, 1e3) == pytest.approx(free, rel=1e-6)
    assert trust_region_density(values, SCALE, math.inf) == pytest.approx(minimal_density(values, SCALE))


def test_all_of_space_is_the_trust_region_problem_itself() -> None:
    """At a density near 1 the subspace is everything: the least value in the ball, here by its own equation."""
    rng = np.random.default_rng(1)
    values, d, gradient = np.linspace(-0.5, 3.0, 50), rng.standard_normal(50), rng.standard_normal(50)
    exact = least_loss(values, d, gradient, np.eye(50), 2.0)
    assert trust_region_loss(values, d, gradient, 1 - 1e-9, 2.0) == pytest.approx(exact, rel=1e-6)


def test_a_subspace_that_does_not_reach_the_ball_has_no_loss() -> None:
    d = np.r_[2.0, np.zeros(9)]
    assert trust_region_loss(np.ones(10), d, np.zeros(10), 0.5, 1.4) == math.inf  # it is at a distance of root 2
    assert math.isfinite(trust_region_loss(np.ones(10), d, np.zeros(10), 0.5, 1.5))


@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(-5.0, 5.0)), st.floats(1e-3, 1.0), st.floats(0.3, 20))
def test_density_is_the_maximum_over_all_shifts(eigenvalues: np.ndarray, scale: float, reach: float) -> None:
    """Against the maximum over tau on a grid, from the definition."""
    best = 0.0
    for tau in np.r_[0.0, np.geomspace(1e-5, 1e5, 400)]:
        raised = eigenvalues + tau
        stiffness = scale + tau * reach**2
        if (raised + stiffness).min() > 0:
            best = max(best, float(np.mean(raised / (raised + stiffness))))
    found = trust_region_density(eigenvalues, scale, reach)
    assert best - 1e-9 <= found <= best + 0.02
    assert found >= 1 / (1 + reach**2) - 1e-12  # what it takes to come back into the ball


def test_the_convex_hull_of_an_unbounded_sublevel_set_is_everything() -> None:
    """With one negative eigenvalue each point is the middle of two points of the set, so its hull has no width left."""
    rng = np.random.default_rng(0)
    eigenvalues, tolerance = np.r_[3.0, 1.0, -0.1], 0.5
    for point in 10 * rng.standard_normal((50, 3)):
        along = np.r_[0.0, 0.0, math.sqrt(2 * max(0.0, eigenvalues[:2] @ point[:2] ** 2) / 0.1) + abs(point[2]) + 1]
        for end in (point + along, point - along):
            assert end @ (eigenvalues * end) / 2 <= tolerance
        assert np.allclose((point + along + point - along) / 2, point)


def test_the_convex_hull_in_a_ball_is_where_the_raised_quadratic_is_small() -> None:
    """Its points outside the set lie between two points of the set, and no point of the set is outside it."""
    rng = np.random.default_rng(0)
    eigenvalues, tolerance, radius = np.array([3.0, 1.0, -0.2, -0.4]), 0.3, 2.0
    raised, level = eigenvalues + 0.4, tolerance + 0.2 * radius**2
    points = rng.uniform(-radius, radius, (20_000, 4))
    points = points[np.linalg.norm(points, axis=1) <= radius]
    in_set, in_hull = points**2 @ eigenvalues / 2 <= tolerance, points**2 @ raised / 2 <= level
    assert not np.any(in_set & ~in_hull)
    between = points[in_hull & ~in_set]
    assert len(between) > 100
    for x in between:
        half = math.sqrt(radius**2 - x[:3] @ x[:3])
        for end in (np.r_[x[:3], half], np.r_[x[:3], -half]):  # along the most negative eigenvector, to the sphere
            assert np.linalg.norm(end) <= radius * (1 + 1e-12)
            assert end**2 @ eigenvalues / 2 <= tolerance + 1e-9
        assert -half <= x[3] <= half


@given(arrays(np.float64, 6, elements=st.floats(-3, 3)), arrays(np.float64, 6, elements=st.floats(-10, 10)))
def test_both_readings_lie_inside_the_sublevel_set(eigenvalues: np.ndarray, point: np.ndarray) -> None:
    """So they say where a good point exists, not where none does: an upper bound on the dimensions needed."""
    true, wall, clipped = (
        float(v @ point**2) for v in (eigenvalues, np.abs(eigenvalues), np.maximum(eigenvalues, 0.0))
    )
    assert true <= clipped + 1e-12 <= wall + 2e-12


@pytest.mark.parametrize("reach", [0.0, -1.0, math.nan])
def test_a_ball_has_a_radius(reach: float) -> None:
    with pytest.raises(InputError, match="is not positive"):
        trust_region_density([1.0], 1.0, reach)
    with pytest.raises(InputError, match="is not positive and finite"):
        trust_region_loss([1.0], [1.0], [0.0], 0.5, reach)
    with pytest.raises(InputError, match=r"outside \(0, 1\)"):
        trust_region_loss([1.0], [1.0], [0.0], 1.0, 1.0)
