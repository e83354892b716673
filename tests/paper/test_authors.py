"""What each choice of the authors' code does, where the answer is known."""

import numpy as np
import pytest
import torch
from torch import nn

from howsparse import InputError
from howsparse.geometry import Magnitudes, absolute_filter, fixed_point, minimal_density
from howsparse.linalg import Operator, Rule, gauss
from howsparse.paper.authors import AugmentedHessian, crossing, one_probe, smeared, with_added_zeros
from howsparse.risk import EmpiricalRisk, Hessian
from howsparse.tasks.data import Images, ShuffledBatches

NODES = Rule(np.array([-0.8, -0.003, 0.0004, 0.05, 3.0]), np.array([0.1, 0.3, 0.4, 0.15, 0.05]))


def share(rule: Rule, scale: float = 0.02) -> float:
    return rule.integrate(lambda x: absolute_filter(x, scale))


def test_bins_finer_than_the_kernel_give_the_nodes_back() -> None:
    spacing = (3.0 + 0.8 + 0.02) / 99_999
    assert share(smeared(NODES, kernel=2.0)) == pytest.approx(share(NODES), abs=2e-4)
    rule = smeared(NODES, kernel=2.0)
    near = np.abs(rule.nodes - 0.05) < 20 * spacing
    assert rule.masses[near].sum() == pytest.approx(0.15, rel=1e-3)


def test_bins_coarser_than_the_kernel_give_other_masses() -> None:
    """The masses then say how near each node is to a bin, and shifting the bins changes the answer by points."""
    answers = [share(smeared(NODES, kernel=0.05, overhead=o)) for o in np.linspace(0.009, 0.011, 20)]
    assert np.abs(np.array(answers) - share(NODES)).max() > 0.1
    assert np.std(answers) > 0.05
    on_a_bin, off = (
        Rule(np.array([0.0, 1.0]), np.array([0.5, 0.5])),
        Rule(np.array([0.0, 0.55, 1.0]), np.full(3, 1 / 3)),
    )
    kept = smeared(on_a_bin, kernel=0.1, overhead=0.0, bins=11)
    assert kept.masses[np.isin(kept.nodes, [0.0, 1.0])] == pytest.approx([0.5, 0.5])
    lost = smeared(off, kernel=0.1, overhead=0.0, bins=11)  # the middle node is half a bin from both of its neighbours
    assert lost.masses[np.abs(lost.nodes - 0.55) < 0.06].sum() == pytest.approx(2 * np.exp(-12.5) / 2, rel=1e-3)


def test_a_kernel_without_any_mass_is_refused() -> None:
    middle = Rule(np.array([-1.0, 0.05, 1.0]), np.array([0.0, 1.0, 0.0]))
    with pytest.raises(InputError, match="no bin has any mass"):
        smeared(middle, kernel=0.001, overhead=0.0, bins=21)
    with pytest.raises(InputError, match="is not positive"):
        smeared(NODES, kernel=0.0)


def test_added_zeros_multiply_t() -> None:
    for zeros in (0.0, 0.3, 1.0):
        more = with_added_zeros(NODES, zeros)
        assert more.masses.sum() == pytest.approx(1.0)
        assert share(more) == pytest.approx((1 - zeros) * share(NODES))
    with pytest.raises(InputError, match=r"outside \[0, 1\]"):
        with_added_zeros(NODES, 1.5)


def test_the_crossing_is_the_fixed_point_on_a_grid() -> None:
    magnitudes = Magnitudes(np.random.default_rng(0).laplace(size=5000) * 0.05)
    exact = 1 - fixed_point(lambda scale: minimal_density(NODES.nodes, scale, NODES.masses), magnitudes, 0.1)
    fine = crossing(NODES, magnitudes, 0.1, grid=100_000)
    assert exact - 1.001e-5 <= fine <= exact + 1e-8
    assert crossing(NODES, magnitudes, 0.1) == np.floor(exact * 1000) / 1000


def test_a_rounded_radius_is_the_fixed_point_of_that_radius() -> None:
    """Where R^2 is between 3.5 and 4.5 at the crossing, T is that of R^2 = 4, whatever the weights are."""
    magnitudes = Magnitudes(np.full(1000, 0.0725))  # R^2 = 5.26 times the sparsity
    needed = minimal_density(NODES.nodes, 2 * 0.1 / 4, NODES.masses)
    assert 3.5 < magnitudes.radius(needed) ** 2 < 4.5
    assert crossing(NODES, magnitudes, 0.1, rounded="square", grid=100_000) == pytest.approx(1 - needed, abs=2e-5)
    by_radius = minimal_density(NODES.nodes, 2 * 0.1 / 2**2, NODES.masses)
    assert crossing(NODES, magnitudes, 0.1, rounded="radius", grid=100_000) == pytest.approx(1 - by_radius, abs=2e-5)
    small = Magnitudes(np.full(1000, 0.01))  # R^2 = 0.1, which is 0 when rounded: everything can be removed
    assert crossing(NODES, small, 0.1, rounded="square") == 1.0
    assert crossing(NODES, small, 0.1) < 1.0


class Diagonal(Operator):
    dtype, device, num_products = torch.float64, torch.device("cpu"), 0

    def __init__(self, values: torch.Tensor) -> None:
        self._values = values

    @property
    def shape(self) -> tuple[int, int]:
        return self._values.numel(), self._values.numel()

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self._values * vector


def test_one_probe_covers_the_rows_of_zeros() -> None:
    """A diagonal matrix has the same masses for every Rademacher probe: those of its eigenvalues, zeros among them."""
    values = torch.tensor([0.0] * 6 + [1.0] * 3 + [-2.0], dtype=torch.float64)
    rule = gauss(one_probe(Diagonal(values), torch.ones(10, dtype=torch.float64), seed=3, steps=128))
    assert rule.nodes == pytest.approx([-2.0, 0.0, 1.0], abs=1e-12)
    assert rule.masses == pytest.approx([0.1, 0.6, 0.3])


def network_and_images() -> tuple[nn.Module, Images]:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3))
    pixels = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return model, Images(pixels, torch.arange(40) % 3, (0.5,), (0.5,))


def test_each_product_is_over_a_new_augmented_pass() -> None:
    model, images = network_and_images()
    matrix = AugmentedHessian(model, images, seed=7, size=16)
    vector = torch.randn(matrix.shape[0], generator=torch.Generator().manual_seed(1))
    products = [matrix @ vector for _ in range(3)]
    for number, product in enumerate(products):
        batches = list(ShuffledBatches(images, 16, augment=True)(7, number))
        assert torch.allclose(product, Hessian(EmpiricalRisk(model, batches)) @ vector, atol=1e-6)
    assert not torch.allclose(products[0], products[1], rtol=1e-2)
    again = AugmentedHessian(model, images, seed=7, size=16)
    assert all(torch.equal(again @ vector, product) for product in products)
    assert (matrix.num_products, matrix.dtype) == (3, torch.float32)
