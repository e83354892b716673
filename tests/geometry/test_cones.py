"""The paper's Theorems 1 and 2 on true cones, and how far Eq. 16 is from a true cone's statistical dimension."""

import math

import numpy as np
import pytest
from scipy import stats

from howsparse import InputError
from howsparse.geometry import (
    cone_dimension,
    generic_density,
    minimal_density,
    project_on_cone,
    statistical_dimension,
    subspace_loss,
)


def circular_cone(size: int, angle: float, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Statistical dimension and Gaussian width of the cone of this angle around an axis, in closed form for each draw.

    A normal vector has the length l and the angle t to the axis. Its projection has the length l cos(t - angle), and so
    has its largest product with a unit vector of the cone, which is negative where the projection is 0.
    """
    along, across = rng.standard_normal(draws), np.sqrt(stats.chi2(size - 1).rvs(draws, random_state=rng))
    length, beyond = np.hypot(along, across), np.maximum(np.arctan2(across, along) - angle, 0.0)
    reached = length * np.cos(beyond)
    return float(np.mean(np.maximum(reached, 0.0) ** 2)), float(np.mean(reached))


@pytest.mark.parametrize("size", [2, 10, 100, 1000])
@pytest.mark.parametrize("angle", [0.1, math.pi / 6, math.pi / 4, 1.4])
def test_theorem_2_on_circular_cones(size: int, angle: float) -> None:
    """w^2 <= delta <= w^2 + 1, and delta is n sin^2(angle) to within one dimension (Amelunxen et al., Prop. 3.4)."""
    dimension, width = circular_cone(size, angle, 400_000, np.random.default_rng(size))
    error = 4 * math.sqrt(2 * size / 400_000)
    assert width**2 - error <= dimension <= width**2 + 1 + error
    assert dimension == pytest.approx(size * math.sin(angle) ** 2, abs=1 + error)


@pytest.mark.parametrize("angle", [math.pi / 6, math.pi / 4, 1.2])
def test_random_subspaces_meet_a_circular_cone_from_n_minus_its_dimension_on(angle: float) -> None:
    """Theorem 1: the probability rises from 0 to 1 over about root n dimensions around n - delta."""
    size, rng = 400, np.random.default_rng(0)
    dimension, _ = circular_cone(size, angle, 100_000, rng)
    chance = {}
    for off in (-40, 0, 40):
        kept = round(size - dimension) + off
        cosines = rng.beta(kept / 2, (size - kept) / 2, 4000)  # squared, of the axis to a random subspace
        chance[off] = float(np.mean(cosines >= math.cos(angle) ** 2))
    assert chance[-40] < 0.03
    assert 0.3 < chance[0] < 0.7
    assert chance[40] > 0.97


def test_the_projection_is_the_nearest_point_of_the_cone() -> None:
    """Moreau: x is in the cone, g - x is in its polar cone, and both are at a right angle."""
    rng = np.random.default_rng(0)
    values, d, tolerance = np.geomspace(0.05, 5.0, 12), rng.standard_normal(12), 0.3
    given = np.r_[rng.standard_normal((300, 12)), -d + 0.1 * rng.standard_normal((20, 12))]
    nearest = project_on_cone(values, d, tolerance, given)
    rest = given - nearest
    assert np.abs(np.sum(rest * nearest, axis=1)).max() < 1e-8
    # The set's support function is <y, c> + (2 eps y'H^-1 y)^(1/2); y is in the polar cone if it is not positive.
    assert (rest @ -d + np.sqrt(2 * tolerance * (rest**2 @ (1 / values)))).max() < 1e-8
    for x in nearest[np.linalg.norm(nearest, axis=1) > 0]:
        factor = (x @ (values * -d)) / (x @ (values * x))  # of the ray's best point
        assert factor > 0
        assert (factor * x + d) @ (values * (factor * x + d)) / 2 <= tolerance * (1 + 1e-6)
    assert 0 < np.mean(np.linalg.norm(nearest, axis=1) == 0) < 1
    assert 0 < np.mean(np.linalg.norm(rest, axis=1) == 0) < 1


def test_the_cone_over_a_ball_is_circular() -> None:
    """delta is D r^2/R^2 to within one dimension, where Eq. 16 gives D r^2/(R^2 + r^2)."""
    size, scale = 200, 0.5  # r^2/R^2
    mean, error = cone_dimension(np.ones(size), np.r_[1.0, np.zeros(size - 1)], scale / 2, draws=2000)
    exact, _ = circular_cone(size, math.asin(math.sqrt(scale)), 400_000, np.random.default_rng(1))
    assert mean == pytest.approx(exact, abs=4 * error)
    assert exact == pytest.approx(size * scale, abs=1)
    assert statistical_dimension(np.ones(size), scale) == pytest.approx(size * scale / (1 + scale))
    assert mean - statistical_dimension(np.ones(size), scale) > 30


@pytest.mark.parametrize("steep", [True, False])
def test_the_cone_over_an_ellipsoid(steep: bool) -> None:
    """Its dimension is where drawn subspaces begin to meet it, and where the loss left says."""
    rng, size, scale = np.random.default_rng(3), 120, 0.05
    values = np.geomspace(1e-4, 1e2, size)
    d = np.where(values >= values[-6], 1.0, 0.0) if steep else rng.standard_normal(size)
    d /= np.linalg.norm(d)
    mean, error = cone_dimension(values, d, scale / 2, draws=2000)
    root, first = np.sqrt(values), []
    for _ in range(150):
        directions = np.linalg.qr(root[:, None] * rng.standard_normal((size, size))).Q
        explained = np.cumsum((directions.T @ (root * d)) ** 2)
        left = ((root * d) @ (root * d) - np.r_[0.0, explained]) / 2
        first.append(int(np.argmax(left <= scale / 2)))
    deviation = float(np.std(first)) / math.sqrt(150)
    assert size - mean == pytest.approx(np.mean(first) - 0.5, abs=4 * math.hypot(deviation, error) + 0.5)
    met = next(k for k in range(size) if subspace_loss(values, d, np.zeros(size), k / size) <= scale / 2)
    assert size - mean == pytest.approx(met, abs=3)
    proxy = statistical_dimension(values, scale)
    assert abs(proxy - mean) < 3 if steep else proxy < mean - 6
    formula = minimal_density(values, scale) if steep else generic_density(values, scale)
    assert size * (1 - formula) == pytest.approx(mean, abs=5)


def test_inside_the_sublevel_set_every_subspace_meets_it() -> None:
    assert cone_dimension([1.0, 2.0], [0.1, 0.1], 1.0) == (2.0, 0.0)
    with pytest.raises(InputError, match="in the sublevel set"):
        project_on_cone([1.0, 2.0], [0.1, 0.1], 1.0, [[1.0, 1.0]])


def test_a_cone_needs_an_ellipsoid_and_draws() -> None:
    with pytest.raises(InputError, match="eigenvalue 0 is not positive"):
        cone_dimension([1.0, 0.0], [1.0, 1.0], 0.1)
    with pytest.raises(InputError, match="draws is 1"):
        cone_dimension([1.0, 1.0], [1.0, 1.0], 0.1, draws=1)
