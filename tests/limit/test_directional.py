"""The directional limit against dense eigen-decompositions and against minimisation over drawn subspaces."""

import functools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from howsparse import InputError, directional_limit, predict
from howsparse.limit.subspace import SubspaceLoss
from howsparse.linalg import Lanczos, Operator, Spectrum
from howsparse.risk import EmpiricalRisk
from networks_for_tests import Batches, exact_curvature


@functools.cache
def trained(seed: int) -> tuple[nn.Module, Batches]:
    """A network of 400 weights, trained with an l1 term and then a little less far: its gradient is not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(12, 25), nn.ReLU(), nn.Linear(25, 4)).double()
    inputs = torch.randn(150, 12, generator=generator, dtype=torch.float64)
    targets = (inputs @ torch.randn(12, 4, generator=generator, dtype=torch.float64)).argmax(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        l1 = sum(w.abs().sum() for w in model.parameters())
        (nn.functional.cross_entropy(model(inputs), targets) + 1e-3 * l1).backward()
        optimizer.step()
    return model, [(inputs, targets)]


class Exact:
    """The quadratic model of `trained(seed)`, dense and in float64."""

    def __init__(self, seed: int) -> None:
        model, batches = trained(seed)
        risk = EmpiricalRisk(model, batches)
        self.matrix, self.gradient, self.weights = (
            exact_curvature(model, batches, "ggn"),
            risk.gradient(),
            risk.flat_weights(),
        )
        self.eigenvalues = np.maximum(torch.linalg.eigvalsh(self.matrix).numpy(), 0.0)
        self.order = self.weights.abs().argsort()

    def step(self, removed: int) -> Tensor:
        d = torch.zeros_like(self.weights)
        d[self.order[:removed]] = -self.weights[self.order[:removed]]
        return d

    def least_loss(self, removed: int) -> float:
        """On a random subspace in high dimension: solve for the stiffness, then a dense system."""
        density = 1 - removed / self.weights.numel()
        d = self.step(removed)
        kappa = math.exp(
            brentq(lambda k: np.mean(self.eigenvalues / (self.eigenvalues + math.exp(k))) - density, -60, 60)
        )
        pulled = kappa * d - self.gradient
        inner = torch.linalg.solve(self.matrix + kappa * torch.eye(len(d), dtype=torch.float64), pulled)
        return float(kappa * d @ d - pulled @ inner) / 2

    def transition(self, tolerance: float) -> float:
        """The largest sparsity, in steps of two weights, up to which the least loss stays within the tolerance."""
        size = self.weights.numel()
        first = next(k for k in range(size // 2, size, 2) if self.least_loss(k) > tolerance)
        return first / size


@pytest.mark.parametrize(("seed", "tolerance"), [(0, 0.01), (0, 0.3), (1, 0.05)])
def test_the_bracket_contains_the_transition_of_the_exact_spectrum(seed: int, tolerance: float) -> None:
    model, batches = trained(seed)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exact = Exact(seed).transition(tolerance)
    for probes_seed in range(2):
        found = directional_limit(model, batches, tolerance=tolerance, seed=probes_seed)
        assert found.low - 2 / 400 <= exact <= found.high + 2 / 400
        assert found.high - found.low < 0.06  # most of it is the probe's part: 400 weights and 8 probes
        assert found.sparsity == (found.low + found.high) / 2
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(("seed", "tolerance"), [(0, 0.05), (1, 0.05)])
def test_drawn_subspaces_meet_the_tolerance_below_the_bracket_and_not_above_it(seed: int, tolerance: float) -> None:
    model, batches = trained(seed)
    found, exact, rng = directional_limit(model, batches, tolerance=tolerance), Exact(seed), np.random.default_rng(0)
    matrix, gradient, size = exact.matrix.numpy(), exact.gradient.numpy(), 400
    left = {}
    for sparsity in (found.low - 0.01, found.high + 0.01):
        removed = round(sparsity * size)
        d, losses = exact.step(removed).numpy(), []
        slope = gradient + matrix @ d
        for _ in range(20):
            directions = np.linalg.qr(rng.standard_normal((size, size - removed))).Q
            inner, along = directions.T @ matrix @ directions, directions.T @ slope
            losses.append(gradient @ d + d @ matrix @ d / 2 - along @ np.linalg.solve(inner, along) / 2)
        left[removed] = float(np.mean(losses))
    below, above = left.values()
    assert below <= tolerance < above


class Diagonal(Operator):
    positive, dtype, device, num_products = True, torch.float64, torch.device("cpu"), 0

    def __init__(self, entries: Tensor) -> None:
        self.entries = entries

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.entries), len(self.entries)

    def _matvec(self, vector: Tensor) -> Tensor:
        self.num_products += 1
        return self.entries * vector


@pytest.mark.parametrize("seed", range(12))
def test_bounds_hold_for_any_number_of_steps(seed: int) -> None:
    """Spectra over six decades with zeros, a few steps, no probe error: the bounds are theorems, so none may fail."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(80) < 0.3, 0.0, 10 ** rng.uniform(-5, 1, 80))
    weights, gradient = rng.standard_normal(80), 0.1 * np.sqrt(values) * rng.standard_normal(80)
    matrix = Diagonal(torch.tensor(values))
    run = Lanczos(matrix.__matmul__, torch.ones(80, dtype=torch.float64))  # its measure is the spectrum itself
    removed = int(rng.integers(40, 78))
    d = np.where(np.abs(weights) <= np.sort(np.abs(weights))[removed - 1], -weights, 0.0)
    kappa = math.exp(brentq(lambda k: np.mean(values / (values + math.exp(k))) - 1 + removed / 80, -60, 60))
    exact = gradient @ d + d @ (values * d) / 2 - np.sum((gradient + values * d) ** 2 / (values + kappa)) / 2
    widths = []
    for steps in (2, 5, 10, 25):
        while run.tridiagonal.size < steps:
            run.step()
        spectrum = Spectrum((run.tridiagonal,), size=10**14, positive=True)  # so many weights that a probe is exact
        subject = SubspaceLoss(matrix, torch.tensor(weights), torch.tensor(gradient), spectrum, exact, 10**6)
        found = subject.interval(removed)
        assert found is not None
        low, high = found
        assert low - 1e-9 <= exact <= high + 1e-9
        widths.append(high - low)
    assert widths[-1] < 0.2 * abs(exact) + 0.05 * widths[0]


def test_it_is_at_least_what_the_mask_reaches_by_itself() -> None:
    model, batches = trained(0)
    found = directional_limit(model, batches, tolerance=0.05)
    assert found.low > predict(model, batches, tolerance=0.05).sparsity + 0.05
    again = directional_limit(model, batches, tolerance=0.05)
    assert (again.low, again.high, again.num_products) == (found.low, found.high, found.num_products)


def test_few_products_give_a_wide_bracket_and_no_number() -> None:
    model, batches = trained(0)
    found = directional_limit(model, batches, tolerance=0.05, max_products=64)
    assert 60 < found.num_products <= 64
    assert found.low <= Exact(0).transition(0.05) <= found.high
    assert math.isnan(found.sparsity) == (found.high - found.low > 0.1)


def test_a_tolerance_that_every_mask_meets() -> None:
    model, batches = trained(0)
    found = directional_limit(model, batches, tolerance=1e3)
    assert (found.low, found.high) == (1.0, 1.0)


def test_mistakes_are_told() -> None:
    model, batches = trained(0)
    with pytest.raises(InputError, match="tolerance -1 is not positive"):
        directional_limit(model, batches, tolerance=-1.0)
    with pytest.raises(InputError, match="max_products 10 is too few"):
        directional_limit(model, batches, max_products=10)
    with pytest.raises(InputError, match="loss of two parts"):
        directional_limit(model, batches, loss=lambda m, batch: m(batch[0]).square().mean())
