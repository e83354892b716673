"""Brackets of matrices whose products are rounded to float32, against eigenvalues that are known exactly."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from howsparse import PruningLimit, pruning_limit
from howsparse.geometry import Magnitudes, absolute_filter, fixed_point, minimal_density
from howsparse.limit.bracket import Bracket, solve_bracket
from howsparse.limit.saved import pack, unpack
from howsparse.linalg import Lanczos, Operator, Spectrum, grow_spectrum

FLOAT, HALF = torch.float32, torch.bfloat16


class LowRank(Operator):
    """U diag(values) U' with random orthonormal U; factors and products are in float32."""

    dtype, device, num_products = FLOAT, torch.device("cpu"), 0

    def __init__(self, size: int, values: np.ndarray, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        factor = torch.randn(size, values.size, generator=generator, dtype=torch.float64)
        self.exact_factor = torch.linalg.qr(factor).Q
        self.factor, self.values = self.exact_factor.float(), torch.from_numpy(values).float()

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.factor), len(self.factor)

    def _matvec(self, vector: Tensor) -> Tensor:
        product: Tensor = self.factor @ (self.values * (self.factor.T @ vector))
        return product


def low_rank_values(rank: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.01, 1, rank) * rng.choice([-1, 1], rank)
    return np.asarray(values / np.abs(values).max())


@functools.cache
def low_rank_case(size: int, storage: torch.dtype, seed: int, probes: int) -> tuple[np.ndarray, Spectrum]:
    """The eigenvalues, and the spectrum after 150 steps or when it is complete."""
    values = low_rank_values(60, seed)
    for spectrum in grow_spectrum(
        LowRank(size, values, seed), torch.zeros(1), probes=probes, seed=seed, storage=storage
    ):
        if spectrum.num_steps == 150:
            break
    return np.append(values, np.zeros(size - 60)), spectrum


def bracket_at(spectrum: Spectrum, eigenvalues: np.ndarray, scale: float) -> tuple[Bracket, float]:
    """The bracket and the exact limit, for the tolerance with which the scale at the exact limit is ``scale``."""
    magnitudes = Magnitudes(np.random.default_rng(0).standard_normal(eigenvalues.size))
    density = minimal_density(eigenvalues, scale)
    tolerance = scale * magnitudes.radius(density) ** 2 / 2
    assert fixed_point(lambda at: minimal_density(eigenvalues, at), magnitudes, tolerance) == pytest.approx(density)
    return solve_bracket(spectrum, magnitudes, tolerance, absolute_filter), 1 - density


@pytest.mark.parametrize("scale", [1e-7, 1e-6, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize(
    ("size", "storage", "probes"),
    [(20_000, FLOAT, 1), (20_000, HALF, 1), (2_000, FLOAT, 4), (300, FLOAT, 1), (300, HALF, 4), (100, HALF, 1)],
)
def test_bracket_holds_the_truth_whatever_rounding_does(
    size: int, storage: torch.dtype, probes: int, scale: float
) -> None:
    for seed in range(3):
        eigenvalues, spectrum = low_rank_case(size, storage, seed, probes)
        bracket, exact = bracket_at(spectrum, eigenvalues, scale)
        assert bracket.low <= exact <= bracket.high


@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize(
    ("size", "storage"), [(20_000, FLOAT), (2_000, FLOAT), (300, FLOAT), (20_000, HALF), (300, HALF)]
)
def test_rounding_covers_the_error_of_one_probes_measure(size: int, storage: torch.dtype, scale: float) -> None:
    """Without the probe's chance: the measure that the start vector has with the exact matrix, in float64."""
    values = low_rank_values(60, seed=5)
    matrix = LowRank(size, values, seed=5)
    generator = torch.Generator().manual_seed(6)
    gaussian, start = (torch.randn(size, generator=generator) for _ in range(2))
    lanczos = Lanczos(matrix.__matmul__, start, storage, (gaussian, matrix @ gaussian))
    while lanczos.step() and len(lanczos.basis) < 150:
        pass
    spectrum = Spectrum((lanczos.tridiagonal,), size)
    along = (matrix.exact_factor.T @ start.double()) ** 2 / float(start.double() @ start.double())
    exact = float(along.numpy() @ absolute_filter(values, scale))
    allowed = float(absolute_filter(spectrum.rounding, scale))
    low = minimal_density(spectrum.lowest().nodes, scale, spectrum.lowest().masses)
    highest = spectrum.highest(lambda x: absolute_filter(x, scale))
    high = minimal_density(highest.nodes, scale, highest.masses)
    assert low - allowed <= exact <= high + allowed
    if storage == FLOAT:  # and it is no wild guess
        assert allowed < 100 * max(abs(high - exact), abs(exact - low))


DECAYS = {
    "low rank": low_rank_values(60, seed=1),
    "slow": np.geomspace(1, 1e-5, 400),
    "fast": 1 / np.arange(1, 800.0) ** 1.5,
}


@pytest.mark.parametrize("name", DECAYS)
def test_residuals_are_as_large_as_what_rounding_did(name: str) -> None:
    """The least change of the exact matrix whose Lanczos coefficients are those that were computed, in float64.

    The orthonormal basis is that of the stored vectors, one after the other (docs/theory.md).
    """
    values = DECAYS[name]
    matrix = LowRank(2_000, values, seed=1)
    generator = torch.Generator().manual_seed(2)
    gaussian, start = (torch.randn(2_000, generator=generator) for _ in range(2))
    lanczos = Lanczos(matrix.__matmul__, start, None, (gaussian, matrix @ gaussian))
    for _ in range(60):
        lanczos.step()
    found = lanczos.tridiagonal
    basis, triangle = np.linalg.qr(lanczos.basis.double().numpy().T)
    basis *= np.sign(np.diag(triangle))
    factor = matrix.exact_factor.numpy()
    product = factor @ (values[:, None] * (factor.T @ basis))
    projected = basis.T @ product
    dense = np.diag(found.diagonal) + np.diag(found.off_diagonal[:-1], 1) + np.diag(found.off_diagonal[:-1], -1)
    outside = (product - basis @ projected)[:, :-1]  # the last column goes on with the next vector
    change = np.sqrt(np.sum((dense - projected) ** 2) + 2 * np.sum(outside**2))
    assert found.residuals is not None
    assert change <= np.sqrt(2) * float(np.linalg.norm(found.residuals[:-1])) <= 4 * change


def test_rounding_hardly_widens_the_bracket_of_a_well_scaled_network() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 10))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 6)
    inputs, targets = torch.randn(300, 40, generator=generator), torch.randint(0, 10, (300,), generator=generator)
    limit = pruning_limit(model, [(inputs, targets)], tolerance=0.05, max_products=80)
    assert 0 < limit.errors.rounding < 1e-4
    exact = pruning_limit(model.double(), [(inputs.double(), targets)], tolerance=0.05, max_products=80)
    assert exact.errors.rounding < 1e-9
    assert limit.bracket == pytest.approx(exact.bracket, abs=1e-4)


def test_rounding_is_kept_in_a_file(tmp_path: Path) -> None:
    model = nn.Linear(8, 8)
    examples = torch.eye(8).repeat(32, 1), torch.arange(8).repeat(32)
    limit = pruning_limit(model, [examples], tolerance=0.05)
    limit.save(tmp_path / "limit")
    again = PruningLimit.load(tmp_path / "limit")
    assert again.errors == limit.errors
    assert again.spectrum.rounding == limit.spectrum.rounding > 0


def test_a_limit_of_an_earlier_version_has_no_rounding() -> None:
    examples = torch.eye(8).repeat(32, 1), torch.arange(8).repeat(32)
    limit = pruning_limit(nn.Linear(8, 8), [examples], tolerance=0.05)
    fields, tensors = pack(limit)
    del fields["errors"]["rounding"]
    earlier = {name: values[:2] if name.startswith("spectrum.") else values for name, values in tensors.items()}
    again = PruningLimit(**unpack(fields, earlier))
    assert (again.errors.rounding, again.spectrum.rounding) == (0.0, 0.0)
    assert again.bracket == limit.bracket
