from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from howsparse import InputError
from howsparse.geometry import absolute_filter
from howsparse.linalg.operators import Operator
from howsparse.linalg.rows import sample_rows
from howsparse.linalg.spectrum import Spectrum, grow_spectrum


class Dense(Operator):
    """A matrix written out."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self._products = matrix, 0

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.matrix), len(self.matrix)

    @property
    def dtype(self) -> torch.dtype:
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    @property
    def num_products(self) -> int:
        return self._products

    def _matvec(self, vector: Tensor) -> Tensor:
        self._products += 1
        return self.matrix @ vector


def hessian_like(size: int, zero_rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    values = torch.randn(size, generator=generator, dtype=torch.float64) * torch.logspace(-4, 1, size)
    alive = (torch.arange(size) >= zero_rows).double()
    matrix: Tensor = torch.diag(alive) @ (basis * values) @ basis.T @ torch.diag(alive)
    return matrix


def spectrum_of(matrix: Tensor, steps: int, probes: int = 1, seed: int = 0) -> Spectrum:
    runs = grow_spectrum(Dense(matrix), torch.zeros(1, dtype=torch.float64), probes=probes, seed=seed)
    spectrum = next(runs)
    while spectrum.num_steps < steps and not spectrum.complete:
        spectrum = next(runs)
    return spectrum


def test_exact_zero_rows_are_found_and_counted() -> None:
    spectrum = spectrum_of(hessian_like(60, zero_rows=24, seed=0), steps=100)
    assert spectrum.num_zero == 24
    assert spectrum.complete
    assert spectrum.gauss().integrate(lambda x: (np.abs(x) < 1e-12).astype(float)) == pytest.approx(24 / 60)


def test_a_matrix_of_zeros_is_resolved_at_once() -> None:
    spectrum = spectrum_of(torch.zeros(5, 5, dtype=torch.float64), steps=3)
    assert (spectrum.num_zero, spectrum.complete) == (5, True)
    assert spectrum.highest(partial(absolute_filter, scale=1.0)).integrate(partial(absolute_filter, scale=1.0)) == 0.0


def test_probe_deviation_bounds_what_is_seen() -> None:
    """Over 200 probes of a resolved spectrum, the scatter is under the bound and not far from it."""
    matrix = hessian_like(40, zero_rows=10, seed=1)
    f = partial(absolute_filter, scale=0.05)
    values = [spectrum_of(matrix, 40, seed=seed).gauss().integrate(f) for seed in range(200)]
    exact = float(np.mean(f(torch.linalg.eigvalsh(matrix).numpy())))
    true_rule = spectrum_of(matrix, 40, probes=40)
    bound = spectrum_of(matrix, 40).probe_deviation(f, true_rule.gauss())
    assert np.mean(values) == pytest.approx(exact, abs=4 * bound / np.sqrt(200))
    assert 0.5 * bound < np.std(values) < 1.1 * bound


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(4, 30), st.floats(1e-3, 1.0), st.integers(1, 3))
def test_bracket_with_probe_error_holds_the_trace(seed: int, steps: int, scale: float, probes: int) -> None:
    matrix = hessian_like(50, zero_rows=seed % 20, seed=seed)
    f = partial(absolute_filter, scale=scale)
    spectrum = spectrum_of(matrix, steps, probes, seed=seed + 1)
    low, high = spectrum.lowest(), spectrum.highest(f)
    exact = float(np.mean(f(torch.linalg.eigvalsh(matrix).numpy())))
    assert low.integrate(f) - 4 * spectrum.probe_deviation(f, low) <= exact
    assert exact <= high.integrate(f) + 4 * spectrum.probe_deviation(f, high)


def test_the_same_seed_gives_the_same_bits() -> None:
    matrix = hessian_like(50, 5, seed=3)
    first, second = (spectrum_of(matrix, 20, probes=2, seed=7) for _ in range(2))
    for a, b in zip(first.tridiagonals, second.tridiagonals, strict=True):
        assert np.array_equal(a.diagonal, b.diagonal)
        assert np.array_equal(a.off_diagonal, b.off_diagonal)
    assert not np.array_equal(spectrum_of(matrix, 20, seed=8).tridiagonals[0].diagonal, first.tridiagonals[0].diagonal)


def test_sampled_rows_find_the_share_of_zero_rows() -> None:
    matrix = hessian_like(200, zero_rows=80, seed=4)
    weights = torch.arange(200, dtype=torch.float64) - 0.5  # the zero rows are those of the smallest magnitudes
    operator = Dense(matrix)
    sample = sample_rows(operator, weights, count=50)
    assert operator.num_products == 50
    assert sample.zero_share() == pytest.approx(0.4)
    row = int(0.99 * 200)
    assert sample.norms[-1] == pytest.approx(float(matrix[row].abs().sum()))


def test_moving_mass_to_zero_keeps_the_total_and_the_large_eigenvalues() -> None:
    spectrum = spectrum_of(hessian_like(60, 0, seed=0), steps=12)
    before, after = spectrum.gauss(), spectrum.with_zero_share(0.4)
    assert after.masses.sum() == pytest.approx(1.0)
    assert after.integrate(lambda x: (x == 0).astype(float)) == pytest.approx(0.4)
    f = partial(absolute_filter, scale=0.05)
    assert after.integrate(f) < before.integrate(f)
    assert after.integrate(lambda x: x**2) == pytest.approx(before.integrate(lambda x: x**2), rel=0.01)
    with pytest.raises(InputError, match="outside"):
        spectrum.with_zero_share(1.5)
