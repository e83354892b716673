"""The least value of a quadratic function in a ball: against dense solutions in float64."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from howsparse.linalg import Lanczos, Rule
from howsparse.linalg.trust_region import least_in_ball, trust_region_bounds

Array = NDArray[np.float64]


def problem(eigenvalues: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """A dense matrix with these eigenvalues, and a vector."""
    generator = torch.Generator().manual_seed(seed)
    size = len(eigenvalues)
    q: Tensor = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    a: Tensor = q @ torch.diag(eigenvalues) @ q.T
    return a, torch.randn(size, generator=generator, dtype=torch.float64)


def dense_least(a: Tensor, r: Tensor, radius: float) -> float:
    """The minimum by eigenvalues and bisection on the multiplier (Moré and Sorensen), with the value at the point."""
    values, vectors = torch.linalg.eigh(a)
    along = vectors.T @ r
    low = max(0.0, -float(values[0]))

    def point(shift: float) -> Tensor:
        moved: Tensor = -along / (values + shift)
        return moved

    if values[0] > 0 and point(0.0).norm() <= radius:
        shift = 0.0
    else:
        low, high = low, low + float(r.norm()) / radius
        for _ in range(200):
            shift = (low + high) / 2
            low, high = (shift, high) if point(shift).norm() > radius else (low, shift)
        shift = high
    y = point(shift)
    return float(along @ y + (values * y**2).sum() / 2)


SPECTRA = {
    "wide": torch.logspace(0, -6, 24, dtype=torch.float64),
    "narrow": torch.linspace(1, 2, 24, dtype=torch.float64),
    "singular": torch.cat([torch.linspace(1, 3, 8), torch.zeros(16)]).double(),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("radius", [1e-2, 1.0, 30.0, 1e4])  # at the edge of the ball; the last two also inside it
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_the_bounds_hold_after_every_step_and_meet(spectrum: str, radius: float, seed: int) -> None:
    a, r = problem(SPECTRA[spectrum], seed)
    if spectrum == "singular":
        r = a @ r  # else the function falls for ever along a direction without curvature
    exact, slope = dense_least(a + 1e-13 * torch.eye(24), r, radius), float(r.norm())
    run, widths, going = Lanczos(a.__matmul__, r), list[float](), True
    while going:
        going = run.step()
        low, high = trust_region_bounds(run.tridiagonal, slope, radius, positive=True)
        slack = 1e-8 * abs(exact)
        assert low <= exact + slack
        assert exact - slack <= high
        widths.append(high - low)
    assert all(later <= before + 1e-8 * abs(exact) for before, later in pairwise(widths))
    assert widths[-1] <= 1e-6 * abs(exact)  # the Krylov space is complete


def test_the_upper_bound_is_attained_in_the_krylov_space() -> None:
    """Four steps: a direct minimisation over the four basis vectors finds the same value."""
    a, r = problem(SPECTRA["wide"], 7)
    run = Lanczos(a.__matmul__, r)
    for _ in range(4):
        run.step()
    basis, radius = run.basis.numpy(), 3.0

    def value(y: Array) -> float:
        y = y * min(1.0, radius / float(np.linalg.norm(y)))
        x = basis.T @ y
        return float(r.numpy() @ x + x @ a.numpy() @ x / 2)

    starts = np.random.default_rng(0).standard_normal((20, 4))
    found = min(minimize(value, start, method="BFGS", options={"gtol": 1e-10}).fun for start in starts)
    _, high = trust_region_bounds(run.tridiagonal, float(r.norm()), radius, positive=True)
    assert high == pytest.approx(found, rel=1e-7)


def test_where_curvature_may_be_negative_nothing_bounds_from_below() -> None:
    """The least value lies along an eigenvector that the Krylov space does not contain."""
    eigenvalues = torch.tensor([-5.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    r = torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    run = Lanczos(lambda v: eigenvalues * v, r)
    while run.step():
        pass
    low, high = trust_region_bounds(run.tridiagonal, float(r.norm()), 2.0, positive=False)
    along, across = r[1:].numpy(), eigenvalues[1:].numpy() + 5
    free = 4.0 - float(np.sum((along / across) ** 2))  # squared length that is left for the first eigenvector
    x = np.append(math.sqrt(free), -along / across)
    least = float(r.numpy() @ x + (eigenvalues.numpy() * x**2).sum() / 2)
    assert low == -math.inf
    assert least < high - 1
    everything = Rule(eigenvalues.numpy(), (r**2 / r.norm() ** 2).numpy())  # the hard case, with all nodes known
    assert least_in_ball(everything, float(r.norm()), 2.0) == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_an_indefinite_matrix_with_all_eigenvalues_known(seed: int) -> None:
    a, r = problem(torch.linspace(-1, 2, 12, dtype=torch.float64), seed)
    values, vectors = torch.linalg.eigh(a)
    rule = Rule(values.numpy(), ((vectors.T @ r / r.norm()) ** 2).numpy())
    for radius in (0.1, 2.0, 50.0):
        assert least_in_ball(rule, float(r.norm()), radius) == pytest.approx(dense_least(a, r, radius), rel=1e-8)


def test_no_slope_or_no_room_leaves_nothing_to_gain() -> None:
    rule = Rule(np.array([0.0, 1.0]), np.array([0.5, 0.5]))
    assert least_in_ball(rule, slope=0.0, radius=1.0) == 0.0
    assert least_in_ball(rule, slope=1.0, radius=0.0) == 0.0
    falling = Rule(np.array([-2.0]), np.array([1.0]))
    assert least_in_ball(falling, slope=0.0, radius=3.0) == pytest.approx(-9.0)  # -2 / 2 * 3^2
