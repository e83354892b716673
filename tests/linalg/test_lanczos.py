from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from howsparse.geometry import FilterFactor, absolute_filter, clipped_filter
from howsparse.linalg.lanczos import Lanczos
from howsparse.linalg.quadrature import Tridiagonal, gauss, gauss_radau, steepest_rule

Array = np.ndarray


def tridiagonal(nodes: Array, start: Array, steps: int) -> Tridiagonal:
    """Lanczos in float64 on a diagonal matrix."""
    diagonal = torch.from_numpy(np.asarray(nodes, np.float64))
    lanczos = Lanczos(lambda v: diagonal * v, torch.from_numpy(np.asarray(start, np.float64)))
    for _ in range(steps):
        if not lanczos.step():
            break
    return lanczos.tridiagonal


def random_measure(seed: int) -> tuple[Array, Array]:
    """Nodes and weights shaped like a network's Hessian: outliers, many nodes near 0 on both sides, some negative."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(20, 120))
    nodes = rng.standard_normal(count) * 10 ** rng.uniform(-6, 0, count)
    nodes[: int(rng.integers(0, 6))] += rng.uniform(0, 5)
    weights = rng.exponential(size=count)
    return nodes, weights / weights.sum()


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 10))
def test_rules_are_exact_for_the_polynomials_they_promise(seed: int, steps: int) -> None:
    nodes, weights = random_measure(seed)
    nodes = nodes / np.abs(nodes).max()
    found = tridiagonal(nodes, np.sqrt(weights), steps)
    assume(np.abs(gauss(found).nodes - 0.3).min() > 1e-3)  # else a node is far away, and its powers lose digits
    for rule, degree in ((gauss(found), 2 * steps - 1), (gauss_radau(found, 0.3), 2 * steps)):
        assert np.all(rule.masses >= 0)
        for power in range(degree + 1):
            assert rule.masses @ rule.nodes**power == pytest.approx(weights @ nodes**power, abs=1e-9)


def test_radau_has_the_node_it_was_asked_for() -> None:
    nodes, weights = random_measure(3)
    found = tridiagonal(nodes, np.sqrt(weights), 8)
    for node in (0.0, 0.01, -0.2):
        assert np.abs(gauss_radau(found, node).nodes - node).min() < 1e-12


def test_lanczos_against_a_dense_eigendecomposition() -> None:
    rng = np.random.default_rng(0)
    half = rng.standard_normal((40, 40))
    matrix = torch.from_numpy(half + half.T)
    start = torch.from_numpy(rng.standard_normal(40))
    lanczos = Lanczos(lambda v: matrix @ v, start)
    while lanczos.step():
        pass
    values, vectors = np.linalg.eigh(matrix.numpy())
    rule = gauss(lanczos.tridiagonal)
    assert rule.nodes == pytest.approx(values, abs=1e-10)
    assert rule.masses == pytest.approx((vectors.T @ start.numpy()) ** 2 / float(start @ start), abs=1e-10)


@pytest.mark.parametrize(("rows", "columns"), [(1, 40), (3, 7), (40, 1), (64, 64)])
def test_how_the_basis_is_cut_up_does_not_matter(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("howsparse.linalg.basis._CHUNK_ROWS", rows)
    monkeypatch.setattr("howsparse.linalg.basis._CPU_COLUMNS", columns)
    values = torch.from_numpy(np.random.default_rng(0).standard_normal(40))
    lanczos = Lanczos(lambda v: values * v, torch.ones(40, dtype=torch.float64))
    while lanczos.step():
        pass
    assert lanczos.basis.shape == (40, 40)
    assert torch.allclose(lanczos.basis @ lanczos.basis.T, torch.eye(40, dtype=torch.float64), atol=2e-8)
    assert gauss(lanczos.tridiagonal).nodes == pytest.approx(np.sort(values.numpy()), abs=1e-12)


def decaying(count: int, last: float) -> Array:
    return np.asarray(np.geomspace(1, last, count))


SPECTRA = {
    "outliers": np.r_[50.0, 20.0, 10.0, np.random.default_rng(0).standard_normal(500)],
    "large outliers": np.r_[1e4, 1e3, np.random.default_rng(0).standard_normal(500)],
    "slow decay": decaying(600, 1e-4),
    "fast decay": decaying(600, 1e-12),
    "small bulk": np.r_[decaying(10, 1e-3), 1e-5 * np.random.default_rng(0).random(500)],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SPECTRA)
def test_tridiagonal_is_that_of_an_orthonormal_basis(name: str, dtype: torch.dtype) -> None:
    """Simon's theorem: the basis is orthogonal to half of the digits, its tridiagonal matrix right in all of them."""
    values = torch.from_numpy(SPECTRA[name]).to(dtype)
    lanczos = Lanczos(lambda v: values * v, torch.ones(values.numel(), dtype=dtype))
    for _ in range(100):
        lanczos.step()
    basis, found = lanczos.basis.double().numpy().T, lanczos.tridiagonal
    eps = torch.finfo(dtype).eps
    assert found.size == 100
    assert np.abs(basis.T @ basis - np.eye(100)).max() < eps**0.5  # without reorthogonalisation it is about 1
    orthonormal, triangle = np.linalg.qr(basis)
    orthonormal *= np.sign(np.diag(triangle))
    dense = np.diag(found.diagonal) + np.diag(found.off_diagonal[:-1], 1) + np.diag(found.off_diagonal[:-1], -1)
    projected = orthonormal.T @ (values.double().numpy()[:, None] * orthonormal)
    assert np.linalg.norm(dense - projected) < 60 * eps * np.abs(SPECTRA[name]).max()


def test_orthogonality_is_restored_only_where_it_is_lost() -> None:
    """With slow decay the basis is read rarely; a full orthogonalisation reads all vectors twice in each step."""
    for name, least, most in (("slow decay", 0.02, 0.4), ("small bulk", 0.4, 1.2)):
        values = torch.from_numpy(SPECTRA[name]).float()
        lanczos = Lanczos(values.__mul__, torch.ones(values.numel()))
        for _ in range(100):
            lanczos.step()
        assert least * 100**2 < lanczos.reads < most * 100**2


def test_a_product_is_taken_again_if_what_was_lost_decided_it() -> None:
    """A small vector comes at once after large ones: what is lost times the norm is longer than what is new."""
    values = torch.tensor([*np.linspace(0.5, 1, 20), *np.linspace(1e-5, 2e-5, 30)], dtype=torch.float32)
    start = torch.cat([torch.ones(20), torch.full((30,), 1e-3)])
    lanczos = Lanczos(lambda v: values * v, start)
    while lanczos.step():
        pass
    rule = gauss(lanczos.tridiagonal)
    f = partial(absolute_filter, scale=1e-5)
    masses = start.numpy() ** 2 / float(start @ start)
    assert rule.integrate(f) == pytest.approx(float(masses @ f(values.numpy().astype(np.float64))), abs=1e-6)


def test_a_basis_in_half_precision_finds_the_same_spectrum() -> None:
    """Outliers converge within a few steps; were the basis not kept orthogonal to them, they would come back."""
    generator = torch.Generator().manual_seed(0)
    nodes = torch.cat([torch.tensor([50.0, 20.0, 10.0]), torch.randn(20_000, generator=generator)])
    rules = []
    for storage in (torch.float32, torch.bfloat16):
        lanczos = Lanczos(lambda v: nodes * v, torch.ones(nodes.numel()), storage)
        for _ in range(60):
            lanczos.step()
        rules.append(gauss_radau(lanczos.tridiagonal, 0.0))
        assert (rules[-1].nodes > 9).sum() == 3
    f = partial(absolute_filter, scale=0.1)
    assert rules[1].integrate(f) == pytest.approx(rules[0].integrate(f), abs=5e-4)


def test_invariant_subspace_ends_the_run() -> None:
    found = tridiagonal(np.array([1.0, 1.0, 2.0, 5.0]), np.array([1.0, 1.0, 1.0, 0.0]), 10)
    assert found.complete
    assert found.size == 2
    assert gauss(found).masses == pytest.approx([2 / 3, 1 / 3])
    f = partial(absolute_filter, scale=1.0)
    exact = 2 / 3 * 0.5 + 1 / 3 * 2 / 3
    assert steepest_rule(found, f).integrate(f) == pytest.approx(exact)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 10**6), st.integers(2, 14), st.floats(1e-5, 1.0), st.sampled_from([absolute_filter, clipped_filter])
)
def test_sharp_bracket_holds_the_exact_integral(seed: int, steps: int, scale: float, share: FilterFactor) -> None:
    nodes, weights = random_measure(seed)
    f = partial(share, scale=scale)
    found = tridiagonal(nodes, np.sqrt(weights), steps)
    low, high = gauss_radau(found, 0.0).integrate(f), steepest_rule(found, f).integrate(f)
    assert low - 1e-9 <= weights @ f(nodes) <= high + 1e-9


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**6), st.integers(2, 10), st.floats(1e-4, 1.0))
def test_no_rule_of_the_family_leaves_the_sharp_bracket(seed: int, steps: int, scale: float) -> None:
    """Every Radau rule is a measure with the same moments, so the bracket must hold them all, and they fill it."""
    nodes, weights = random_measure(seed)
    f = partial(absolute_filter, scale=scale)
    found = tridiagonal(nodes, np.sqrt(weights), steps)
    if found.complete:
        return
    low, high = gauss_radau(found, 0.0).integrate(f), steepest_rule(found, f).integrate(f)
    values = [gauss_radau(found, x).integrate(f) for x in np.r_[np.linspace(-6, 6, 101), np.geomspace(1e-7, 1, 40)]]
    assert low - 1e-9 <= min(values)
    assert max(values) <= high + 1e-6 * (high - low) + 1e-9


def test_interpolants_of_the_proof_lie_on_one_side() -> None:
    """docs/theory.md: the polynomial that touches mu/(|x| + mu) at the rule's nodes stays on one side of it."""
    nodes, weights = random_measure(11)
    nodes = nodes / np.abs(nodes).max()
    found = tridiagonal(nodes, np.sqrt(weights), 5)
    scale = 0.05

    def height(x: Array) -> Array:
        return np.asarray(scale / (np.abs(x) + scale))

    def slope(x: Array) -> Array:
        return np.asarray(-np.sign(x) * scale / (np.abs(x) + scale) ** 2)

    grid = np.linspace(-1.3, 1.3, 4001)
    for rule, degree, sign in (
        (gauss_radau(found, 0.0), 10, 1.0),
        (steepest_rule(found, lambda x: 1 - height(x)), 10, -1.0),
    ):
        touched = rule.nodes[np.abs(rule.nodes) > 1e-12]
        conditions = np.r_[
            np.polynomial.chebyshev.chebvander(rule.nodes, degree),
            np.stack([np.polynomial.chebyshev.Chebyshev.basis(k).deriv()(touched) for k in range(degree + 1)], axis=1),
        ]
        wanted = np.r_[height(rule.nodes), slope(touched)]
        coefficients, *_ = np.linalg.lstsq(conditions, wanted, rcond=None)
        assert conditions @ coefficients == pytest.approx(wanted, abs=2e-3 if sign < 0 else 1e-5)
        gap = np.polynomial.chebyshev.chebval(grid, coefficients) - height(grid)
        assert (sign * gap).min() > -2e-3


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(2, 12), st.floats(1e-4, 1.0))
def test_gauss_and_radau_bracket_a_positive_spectrum(seed: int, steps: int, scale: float) -> None:
    nodes, weights = random_measure(seed)
    nodes = np.abs(nodes)
    f = partial(absolute_filter, scale=scale)
    found = tridiagonal(nodes, np.sqrt(weights), steps)
    exact = weights @ f(nodes)
    assert gauss_radau(found, 0.0).integrate(f) - 1e-9 <= exact <= gauss(found).integrate(f) + 1e-9
