from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from torch import Tensor

from howsparse import InputError
from howsparse.geometry import absolute_filter
from howsparse.linalg.operators import Operator
from howsparse.linalg.quadrature import Tridiagonal
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


def test_variance_of_a_probe_is_under_the_bound_and_reaches_it() -> None:
    """Over 400 probes of a resolved spectrum; where f is 0 or 1 everywhere the bound is sharp but for n / (n + 2)."""
    matrix, size = hessian_like(40, zero_rows=0, seed=1), 40
    sharp = torch.diag((torch.arange(size) < 12).double()) * 1e12 + 1e-12 * torch.eye(size, dtype=torch.float64)
    for values, scale, least in ((matrix, 0.05, 0.2), (sharp, 1.0, 0.8)):
        f = partial(absolute_filter, scale=scale)
        exact = float(np.mean(f(torch.linalg.eigvalsh(values).numpy())))
        seen = [spectrum_of(values, size, seed=seed).gauss().integrate(f) for seed in range(400)]
        bound = 2 * exact * (1 - exact) / size
        assert np.mean(seen) == pytest.approx(exact, abs=4 * np.sqrt(bound / 400))
        assert least * bound < np.var(seen) < 1.1 * bound


def of_size(size: int, probes: int = 1, num_zero: int = 0) -> Spectrum:
    one = Tridiagonal(np.zeros(1), np.zeros(1))
    return Spectrum((one,) * probes, size, num_zero)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99, 0.9999])
@pytest.mark.parametrize(("size", "ones"), [(2, 1), (4, 1), (10, 9), (50, 1), (50, 25), (1000, 20), (10**6, 20_000)])
def test_probe_interval_covers_as_often_as_it_says(size: int, ones: int, confidence: float) -> None:
    """Exactly: if f is 1 in some directions and 0 in the others, a probe's mean has a beta distribution."""
    mean, spectrum = ones / size, of_size(size)

    def excluded_from(side: int) -> float:
        """The observation nearest to the mean on this side whose interval does not hold the mean."""
        inside, outside = mean, (0.0, 1.0)[side]
        for _ in range(80):
            here = (inside + outside) / 2
            low, high = spectrum.probe_interval(here, here, confidence)
            inside, outside = (here, outside) if low <= mean <= high else (inside, here)
        return outside

    seen = beta(ones / 2, (size - ones) / 2)
    missed = float(seen.cdf(excluded_from(0)) + seen.sf(excluded_from(1)))
    assert missed <= 1 - confidence
    assert missed > (1 - confidence) ** 2 / 100 or excluded_from(0) < 1e-12  # and not by being wide


def test_probe_interval_covers_for_several_probes_and_zero_rows() -> None:
    rng = np.random.default_rng(0)
    seen = 0.75 * rng.beta(3 / 2, 27 / 2, size=(20_000, 3)).mean(axis=1)  # 30 of 40 rows, f is 1 in 3 directions
    ends = np.array([of_size(40, probes=3, num_zero=10).probe_interval(x, x, 0.95) for x in seen])
    held = float(np.mean((ends[:, 0] <= 3 / 40) & (ends[:, 1] >= 3 / 40)))
    assert 0.95 <= held < 0.999
    assert of_size(40, num_zero=10).probe_interval(0.0, 0.75, 0.95) == (0.0, 0.75)
    assert of_size(5, num_zero=5).probe_interval(0.0, 0.0, 0.95) == (0.0, 0.0)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(4, 30), st.floats(1e-3, 1.0), st.integers(1, 3))
def test_bracket_with_probe_error_holds_the_trace(seed: int, steps: int, scale: float, probes: int) -> None:
    matrix = hessian_like(50, zero_rows=seed % 20, seed=seed)
    f = partial(absolute_filter, scale=scale)
    spectrum = spectrum_of(matrix, steps, probes, seed=seed + 1)
    low, high = spectrum.probe_interval(spectrum.lowest().integrate(f), spectrum.highest(f).integrate(f), 1 - 1e-4)
    exact = float(np.mean(f(torch.linalg.eigvalsh(matrix).numpy())))
    assert low <= exact <= high


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
