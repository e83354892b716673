"""Rules of matrices written down directly, where Gauss has a node at 0 already or next to it."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from howsparse.geometry import (
    FilterFactor,
    Magnitudes,
    absolute_filter,
    clipped_filter,
    fixed_point,
    minimal_density,
)
from howsparse.limit.bracket import solve_bracket
from howsparse.linalg.lanczos import Lanczos
from howsparse.linalg.quadrature import Tridiagonal, gauss, gauss_radau, steepest_rule
from howsparse.linalg.spectrum import Spectrum

FILTERS = pytest.mark.parametrize("share", [absolute_filter, clipped_filter])


def legendre(steps: int) -> Tridiagonal:
    """Of the uniform measure on [-1, 1], by its three-term recurrence: symmetric, so the diagonal is exactly 0."""
    k = np.arange(1, steps + 1)
    return Tridiagonal(np.zeros(steps), k / np.sqrt(4.0 * k**2 - 1))


def uniform_integral(share: FilterFactor, scale: float) -> float:
    """Of |x| / (|x| + scale) over the uniform measure on [-1, 1], or of the half right of 0."""
    half = 1 - scale * math.log((1 + scale) / scale)
    return half if share is absolute_filter else half / 2


@FILTERS
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize("steps", range(1, 10))
def test_bracket_of_a_symmetric_spectrum_holds_the_exact_integral(
    steps: int, scale: float, share: FilterFactor
) -> None:
    f, exact = partial(share, scale=scale), uniform_integral(share, scale)
    spectrum = Spectrum((legendre(steps),), size=100)
    low, high = spectrum.lowest().integrate(f), spectrum.highest(f).integrate(f)
    assert low - 1e-12 <= exact <= high + 1e-12
    if steps > 1:
        before = Spectrum((legendre(steps - 1),), size=100)
        assert before.lowest().integrate(f) - 1e-9 <= low
        assert high <= before.highest(f).integrate(f) + 1e-9


@pytest.mark.parametrize("steps", range(1, 10))
def test_radau_at_0_of_a_symmetric_spectrum_is_gauss_with_an_odd_number_of_nodes(steps: int) -> None:
    rule = gauss_radau(legendre(steps), 0.0)
    nodes, weights = np.polynomial.legendre.leggauss(steps + 1 - steps % 2)
    if steps % 2:
        assert rule.nodes == pytest.approx(nodes, abs=1e-14)
        assert rule.masses == pytest.approx(weights / 2, abs=1e-14)
    assert rule.nodes.size == nodes.size
    assert np.abs(rule.nodes).min() == pytest.approx(0.0, abs=1e-14)
    for power in range(0, 2 * steps, 2):
        assert rule.masses @ rule.nodes**power == pytest.approx(1 / (power + 1))


@pytest.mark.parametrize("steps", [1, 3, 5])
@pytest.mark.parametrize("node", [-0.1, 1e-9, 0.0, 0.7])
def test_family_of_a_symmetric_spectrum_is_a_family_of_measures_with_its_moments(steps: int, node: float) -> None:
    found = legendre(steps)
    for rule in (*found.family, gauss_radau(found, node)):
        assert np.isfinite(rule.nodes).all()
        assert (rule.masses >= 0).all()
        for power in range(2 * steps):
            assert rule.masses @ rule.nodes**power == pytest.approx((power % 2 == 0) / (power + 1), abs=1e-6)


@FILTERS
@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize("power", range(18))
def test_bracket_holds_where_gauss_has_a_node_next_to_0(power: int, steps: int, share: FilterFactor) -> None:
    """The first node of the Jacobi matrix is moved to 0 but for 10^-power; the whole matrix is the exact measure."""
    rng = np.random.default_rng(steps)
    diagonal, off_diagonal = rng.normal(size=40), rng.uniform(0.5, 1.5, size=40)
    nodes = gauss(Tridiagonal(diagonal[:steps], off_diagonal[:steps])).nodes
    for sign in (-1, 1):
        shifted = diagonal - nodes[steps // 2] + sign * 10.0**-power
        exact = gauss(Tridiagonal(shifted, np.append(off_diagonal[:-1], 0.0)))
        found = Tridiagonal(shifted[:steps], off_diagonal[:steps])
        for scale in (1e-7, 1e-4, 0.1):
            f = partial(share, scale=scale)
            low, high = gauss_radau(found, 0.0).integrate(f), steepest_rule(found, f).integrate(f)
            assert low - 1e-7 <= exact.integrate(f) <= high + 1e-7


def test_a_far_node_leaves_the_others_where_gauss_has_them() -> None:
    rule = gauss_radau(legendre(4), 1e5)
    assert rule.nodes[:4] == pytest.approx(gauss(legendre(4)).nodes, abs=1e-5)
    assert rule.masses[-1] < 1e-20


def test_a_hessian_of_symmetric_spectrum_has_a_limit() -> None:
    """As that of the loss w1'Aw2: eigenvalues in pairs of opposite sign, so Gauss has a node at 0 every other step."""
    generator = torch.Generator().manual_seed(0)
    nodes = torch.randn(50, generator=generator, dtype=torch.float64)
    nodes = torch.cat([nodes, -nodes])
    lanczos = Lanczos(lambda v: nodes * v, torch.ones_like(nodes))
    magnitudes = Magnitudes(torch.rand(100, generator=generator).numpy())
    exact = 1 - fixed_point(lambda scale: minimal_density(nodes.numpy(), scale), magnitudes, 1.0)
    for _ in range(9):
        lanczos.step()
        bracket = solve_bracket(Spectrum((lanczos.tridiagonal,), 100), magnitudes, 1.0, absolute_filter)
        assert bracket.low <= exact <= bracket.high
