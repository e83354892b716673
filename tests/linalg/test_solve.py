"""Conjugate gradients with bounds: against dense float64 solutions."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from howsparse import InputError
from howsparse.linalg.operators import Block, Operator
from howsparse.linalg.solve import solve
from howsparse.risk.curvature import GGN
from howsparse.risk.empirical import EmpiricalRisk
from networks_for_tests import exact_curvature, mlp_case


class Dense(Operator):
    """A dense matrix as an operator."""

    shape, dtype, device, num_products = (0, 0), torch.float64, torch.device("cpu"), 0

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.shape, self.dtype = matrix, (len(matrix), len(matrix)), matrix.dtype

    def _matvec(self, vector: Tensor) -> Tensor:
        return torch.mv(self.matrix, vector)


def matrix(eigenvalues: Tensor, seed: int) -> Tensor:
    size = len(eigenvalues)
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    product: Tensor = q @ torch.diag(eigenvalues) @ q.T
    return product


def right_side(size: int, seed: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [1.0, 4.0, 8.0])  # orders of magnitude of the eigenvalues
def test_the_bounds_bracket_the_exact_value_after_every_step(seed: int, spread: float) -> None:
    size, shift = 30, 10.0**-spread
    eigenvalues = torch.logspace(0, -2 * spread, size, dtype=torch.float64)
    a, r = matrix(eigenvalues, seed), right_side(size, seed + 100)
    shifted = a + shift * torch.eye(size, dtype=torch.float64)
    exact = float(r @ torch.linalg.solve(shifted, r))
    widths = []
    for steps in range(1, 60):
        found = solve(Dense(a), r, shift, tol=0.0, max_steps=steps)
        assert found.value_low <= exact * (1 + 1e-9)
        assert found.value_high >= exact * (1 - 1e-9)
        quadratic = float(2 * (r @ found.x) - found.x @ shifted @ found.x)
        assert quadratic == pytest.approx(found.value_low, rel=1e-6)  # the model's decrease at x
        widths.append(found.value_high - found.value_low)
    assert all(later <= before + 1e-9 * exact for before, later in pairwise(widths))
    assert widths[-1] < 1e-6 * exact or spread == 8.0


def test_the_solution_is_the_dense_one() -> None:
    a, r = matrix(torch.linspace(0.5, 3, 20, dtype=torch.float64), 0), right_side(20, 1)
    found = solve(Dense(a), r, 0.25, tol=1e-14)
    assert torch.allclose(found.x, torch.linalg.solve(a + 0.25 * torch.eye(20, dtype=torch.float64), r), atol=1e-7)
    assert found.value_high - found.value_low <= 1e-14 * found.value_low
    assert found.steps <= 21


def test_the_true_smallest_eigenvalue_gives_a_nearer_upper_bound() -> None:
    a, r = matrix(torch.linspace(0.5, 3, 20, dtype=torch.float64), 0), right_side(20, 1)
    exact = float(r @ torch.linalg.solve(a + 0.01 * torch.eye(20, dtype=torch.float64), r))
    loose, near = (solve(Dense(a), r, 0.01, tol=0, max_steps=3, smallest=s) for s in (0.0, 0.5))
    assert exact < near.value_high < loose.value_high
    assert near.value_low == loose.value_low < exact


def test_an_indefinite_matrix_with_a_known_smallest_eigenvalue() -> None:
    a, r = matrix(torch.linspace(-1, 3, 25, dtype=torch.float64), 3), right_side(25, 4)
    exact = float(r @ torch.linalg.solve(a + 1.5 * torch.eye(25, dtype=torch.float64), r))
    for steps in range(1, 26):
        found = solve(Dense(a), r, 1.5, tol=0.0, max_steps=steps, smallest=-1.0)
        assert found.value_low * (1 - 1e-9) <= exact <= found.value_high * (1 + 1e-9)
    with pytest.raises(InputError, match="the matrix has an eigenvalue of at most -"):
        solve(Dense(a), r, 0.5, tol=0.0)


def test_a_block_of_a_networks_gauss_newton_matrix() -> None:
    model, batches = mlp_case()
    kept = torch.rand(56, generator=torch.Generator().manual_seed(0)) < 0.5
    dense = exact_curvature(model, batches, "ggn")[kept][:, kept]
    r = right_side(len(dense), 5)
    exact = float(r @ torch.linalg.solve(dense + 0.01 * torch.eye(len(dense), dtype=torch.float64), r))
    found = solve(Block(GGN(EmpiricalRisk(model, batches)), kept), r, 0.01, tol=1e-6)
    assert found.value_low <= exact * (1 + 1e-12)
    assert found.value_high >= exact * (1 - 1e-12)
    assert found.value_high - found.value_low <= 1e-6 * exact


def test_float32_is_right_to_its_precision() -> None:
    a, r = matrix(torch.logspace(0, -3, 40, dtype=torch.float64), 0), right_side(40, 1)
    exact = float(r @ torch.linalg.solve(a + 1e-2 * torch.eye(40, dtype=torch.float64), r))
    found = solve(Dense(a.float()), r.float(), 1e-2, tol=1e-4)
    assert found.value_low * (1 - 1e-4) <= exact <= found.value_high * (1 + 1e-4)
    assert found.steps < 40


def test_a_zero_right_side_needs_no_step() -> None:
    found = solve(Dense(torch.eye(3)), torch.zeros(3), 1.0)
    assert (found.value_low, found.value_high, found.steps) == (0.0, 0.0, 0)
    assert not found.x.any()


@pytest.mark.parametrize(
    ("rhs", "shift", "steps", "message"),
    [
        (torch.ones(2), 1.0, 5, "the right side has shape"),
        (torch.ones(3), 0.0, 5, "shift plus smallest is 0, not above 0"),
        (torch.ones(3), 1.0, 0, "max_steps is 0"),
    ],
)
def test_wrong_input_is_refused(rhs: Tensor, shift: float, steps: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        solve(Dense(torch.eye(3)), rhs, shift, max_steps=steps)
