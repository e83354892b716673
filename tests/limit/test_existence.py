"""The upper bound U (Eq. 19): its bracket, and its fixed point on networks, against exact spectra of removed blocks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from howsparse import PruningLimit, prunable_weights, pruning_limit
from howsparse.geometry import (
    Magnitudes,
    absolute_filter,
    clipped_filter,
    curvature_scale,
    existence_density,
    existence_fixed_point,
)
from howsparse.limit.bracket import Bracket, existence_bracket, solve_bracket
from howsparse.linalg import Spectrum, Tridiagonal
from howsparse.linalg.lanczos import Lanczos
from networks_for_tests import Batches, exact_curvature, mlp_case


def limit_with(removed: Spectrum) -> PruningLimit:
    """A limit of 0.75 with this spectrum of the block of removed weights."""
    model, batches = mlp_case(2)
    limit = pruning_limit(model, batches, tolerance=0.02, max_products=32)
    return replace(limit, errors=Bracket(0.74, 0.76, 0.01, 0.0, 0.0), removed_spectrum=removed)


def two_steps(zeros: int) -> Spectrum:
    """Steep curvature in the other rows; half of it may be at 0, as far as two steps tell."""
    return Spectrum((Tridiagonal(np.zeros(2), np.full(2, 100.0)),), size=1000, num_zero=zeros)


def test_a_bound_that_always_holds_has_no_middle() -> None:
    """A step on the removed block that tells nothing leaves 1 - 2 T: there is no number, but an interval."""
    limit = limit_with(two_steps(zeros=500))
    low, high = limit.upper_bracket
    assert low == 1 - 2 * (1 - limit.sparsity)
    assert high > low
    assert np.isnan(limit.upper_bound)
    answer = limit.summary()
    assert (answer.upper_bound, answer.upper_low, answer.upper_high) == (None, low, high)
    assert f"{100 * low:.1f} % to {100 * high:.1f} %" in str(limit.card())


@pytest.mark.parametrize(("zeros", "narrow"), [(700, False), (980, True)])
def test_the_middle_of_a_narrow_bracket_is_a_number(zeros: int, narrow: bool) -> None:
    limit = limit_with(two_steps(zeros))
    low, high = limit.upper_bracket
    assert low > 1 - 2 * (1 - limit.sparsity)
    assert (high - low <= 0.1) == narrow
    middle = (low + high) / 2
    if narrow:
        assert limit.upper_bound == limit.summary().upper_bound == middle
        assert f"{100 * middle:.1f} %" in str(limit.card())
    else:
        assert np.isnan(limit.upper_bound)


def test_the_ends_of_the_bracket_are_in_order() -> None:
    """Also where the probe gives the block more curvature than the whole matrix has at its fixed point."""
    steep = Spectrum((Tridiagonal(np.array([1e9]), np.array([0.0])),), size=90)
    assert existence_bracket(steep, 1.0, 0.1, absolute_filter) == (0.8, 0.8)


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["any", "positive", "half zero", "few", "wide"]))
@example(seed=103, kind="few")  # these two came out reversed, by rounding
@example(seed=1075, kind="positive")
@settings(max_examples=40, deadline=None)
def test_both_brackets_are_in_order_for_every_spectrum(seed: int, kind: str) -> None:
    """Also where the two ends agree, and rounding decides which of both numbers is the smaller one."""
    draw = np.random.default_rng(seed)
    matrix, positive = dense_matrix(draw, kind)
    steps, (scale, density) = int(draw.integers(1, 12)), (10 ** draw.uniform(-6, 4), draw.uniform(0.01, 0.99))
    lanczos = [tridiagonal_of(matrix, draw.standard_normal(len(matrix)), steps) for _ in range(1 + seed % 2)]
    spectrum = Spectrum(tuple(lanczos), len(matrix), positive=positive)
    for factor in (absolute_filter, clipped_filter):
        low, high = existence_bracket(spectrum, scale, density, factor)
        assert 1 - 2 * density <= low <= high <= 1 - density
        whole = solve_bracket(spectrum, Magnitudes(np.abs(draw.standard_normal(50))), scale, factor)
        assert 0 <= whole.low <= whole.high <= 1
        assert whole.quadrature >= 0


def dense_matrix(draw: np.random.Generator, kind: str) -> tuple[NDArray[np.float64], bool]:
    """A symmetric matrix with drawn eigenvalues, and whether none of them is negative."""
    size = int(draw.integers(2, 30))
    values = draw.standard_normal(size) * 10 ** draw.uniform(-6, 3)
    if kind == "positive":
        values = np.abs(values)
    elif kind == "half zero":
        values[: size // 2] = 0
    elif kind == "few":
        values = draw.choice([1.0, 0.0, -1e-3], size)
    elif kind == "wide":
        values = 10 ** draw.uniform(-8, 2, size) * draw.choice([1, -1], size)
    basis = np.linalg.qr(draw.standard_normal((size, size)))[0]
    return (basis * values) @ basis.T, bool((values >= 0).all())


def tridiagonal_of(matrix: NDArray[np.float64], start: NDArray[np.float64], steps: int) -> Tridiagonal:
    run = Lanczos(lambda vector: torch.from_numpy(matrix) @ vector, torch.from_numpy(start))
    for _ in range(steps):
        run.step()
    return run.tridiagonal


def fixed_point_of_network(model: nn.Module, batches: Batches, dimensions: float) -> float:
    """The smallest density with U(p) = p to within ``dimensions``, from exact spectra of the removed blocks."""
    hessian = exact_curvature(model, batches)
    weights = torch.cat([w.detach().flatten() for w in prunable_weights(model).values()])
    order, magnitudes, count = weights.abs().argsort(), Magnitudes(weights.numpy()), weights.numel()

    def existence_at(density: float) -> float:
        removed = order[: count - round(count * density)]
        scale = curvature_scale(0.02, magnitudes.radius(density))
        return existence_density(torch.linalg.eigvalsh(hessian[removed][:, removed]).numpy(), scale, density)

    return existence_fixed_point(lambda p: existence_at(p) if p < 1 else 1.0, count, dimensions)


def with_dead_units(model: nn.Module, dead: int, size: float) -> nn.Module:
    """The first hidden units never fire. Their weights are multiplied by ``size``."""
    with torch.no_grad():
        model.get_parameter("0.bias")[:dead] = -100.0
        model.get_parameter("0.weight")[:dead] *= size
        model.get_parameter("2.weight")[:, :dead] *= size
    return model


def test_the_fixed_point_on_a_network_without_dead_units_is_one() -> None:
    model, batches = mlp_case(0, 60)
    assert fixed_point_of_network(model, batches, dimensions=0.0) == 1.0
    assert 0.5 < fixed_point_of_network(model, batches, dimensions=1.0) < 1.0


def test_the_fixed_point_with_dead_units_is_the_share_of_the_other_weights() -> None:
    """Dead units' weights have rows of zeros. If they are the smallest weights, U(p) = p at their share, exactly."""
    model, batches = mlp_case(0, 60)
    with_dead_units(model, dead=3, size=1e-4)
    of_living = 4 * (5 + 3) / (7 * (5 + 3))
    assert fixed_point_of_network(model, batches, dimensions=0.0) == pytest.approx(of_living)


def test_the_fixed_point_with_weights_of_zero_is_the_share_of_the_others() -> None:
    model, batches = mlp_case(1, 60)
    with torch.no_grad():
        model.get_parameter("0.weight")[:, 2] = 0.0
    assert fixed_point_of_network(model, batches, dimensions=0.0) == pytest.approx((56 - 7) / 56)
