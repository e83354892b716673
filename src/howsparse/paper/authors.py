"""The choices of the paper's authors' code that differ from the paper's text, one function or class for each.

The differences were read off the code's published version e7c9590; none of it is used here. `benchmarks.authors`
computes the prediction for a network with each choice and with all of them.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.geometry import Magnitudes, curvature_scale, minimal_density
from howsparse.linalg.lanczos import Lanczos
from howsparse.linalg.operators import Operator
from howsparse.linalg.quadrature import Rule, Tridiagonal
from howsparse.risk.curvature import Hessian
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.tasks.data import Images, ShuffledBatches

__all__ = ["AugmentedHessian", "crossing", "one_probe", "smeared", "with_added_zeros"]

_BINS = 100_000
_GRID = 1000  # number of sparsities at which the authors compare the width with the diagonal


class AugmentedHessian(Operator):
    """A matrix that changes with every product: the Hessian over a new shuffled and randomly augmented pass.

    Lanczos assumes one matrix. The authors' code gives it another one in each step.

    Args:
        model: the network; it is not changed.
        images: training images.
        seed: of shuffling and augmentation; the n-th product of a seed is always over the same batches.
        size: number of images in a batch.

    >>> images = Images(torch.randint(256, (8, 1, 4, 4), dtype=torch.uint8), torch.arange(8) % 2, (0.5,), (0.5,))
    >>> matrix = AugmentedHessian(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), images, seed=0)
    >>> torch.equal(matrix @ torch.ones(32), matrix @ torch.ones(32))
    False
    """

    def __init__(self, model: nn.Module, images: Images, seed: int, size: int = 128) -> None:
        self._model, self._seed = model, seed
        self._batches = ShuffledBatches(images, size, augment=True)
        self._products = 0
        self._like = EmpiricalRisk(model, self._pass(0)).flat_weights()

    @property
    def shape(self) -> tuple[int, int]:
        return self._like.numel(), self._like.numel()

    @property
    def dtype(self) -> torch.dtype:
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        return self._like.device

    @property
    def num_products(self) -> int:
        return self._products

    def _pass(self, number: int) -> list[tuple[Tensor, Tensor]]:
        return list(self._batches(self._seed, number))

    def _matvec(self, vector: Tensor) -> Tensor:
        batches = self._pass(self._products)
        self._products += 1
        return Hessian(EmpiricalRisk(self._model, batches), memory=0) @ vector


def one_probe(operator: Operator, like: Tensor, *, seed: int, steps: int = 128) -> Tridiagonal:
    """Lanczos from one Rademacher probe on all rows, those that are exactly zero included.

    Args:
        operator: the matrix, ``(n, n)``.
        like: a vector with the device and dtype in which to compute.
        seed: of the probe.
        steps: number of products.

    Returns:
        The tridiagonal matrix; `howsparse.linalg.gauss` of it is the authors' spectrum before smearing.
    """
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (operator.shape[0],), generator=generator, dtype=torch.int8)
    lanczos = Lanczos(operator.__matmul__, signs.mul_(2).sub_(1).to(like))
    for _ in range(steps):
        if not lanczos.step():
            break
    return lanczos.tridiagonal


def smeared(rule: Rule, *, kernel: float, overhead: float = 0.01, bins: int = _BINS) -> Rule:
    """The density of a rule, each node replaced by a Gaussian kernel, as it is read at equally spaced bins.

    If the kernel is narrower than the distance of the bins, a node's mass depends on its distance to the next bin. The
    masses are then near to random, and few nodes have almost all of the mass.

    Args:
        rule: eigenvalues and their masses.
        kernel: standard deviation of the kernel, in distances between bins, positive.
        overhead: by how much the bins extend beyond the smallest and the largest node.
        bins: number of bins.

    Returns:
        The rule of the bins that have mass. The sum of the masses is 1.

    Raises:
        InputError: the kernel is not positive, or so narrow that no bin has any mass.

    >>> nodes = Rule(np.array([-1.0, 0.0, 2.0]), np.array([0.2, 0.5, 0.3]))
    >>> round(smeared(nodes, kernel=1.0).integrate(np.abs), 4), nodes.integrate(np.abs)
    (0.8, 0.8)
    """
    if not kernel > 0:
        raise InputError(f"kernel {kernel:g} is not positive; give the kernel's width in distances between bins")
    low, high = float(rule.nodes.min()) - overhead, float(rule.nodes.max()) + overhead
    places = np.linspace(low, high, bins)
    density, spacing = np.zeros(bins), (high - low) / (bins - 1)
    reach = int(np.ceil(39 * kernel)) + 1  # further away, a Gaussian is 0 in float64
    for node, mass in zip(rule.nodes, rule.masses, strict=True):
        middle = round((node - low) / spacing)
        near = slice(max(0, middle - reach), middle + reach + 1)
        density[near] += mass * np.exp(-(((places[near] - node) / (kernel * spacing)) ** 2) / 2)
    if not density.sum() > 0:
        raise InputError(f"kernel {kernel:g} is so narrow that no bin has any mass; use a wider kernel or more bins")
    filled = density > 0
    return Rule(places[filled], density[filled] / density.sum())


def with_added_zeros(rule: Rule, share: float) -> Rule:
    """A rule with additional mass at 0, all masses then divided by their sum. T becomes (1 - ``share``) T.

    The rule has these zeros already, so they count twice. `Spectrum.with_zero_share` moves mass instead.

    Args:
        rule: eigenvalues and their masses.
        share: fraction of rows that are zero, in [0, 1].

    Raises:
        InputError: the fraction is outside [0, 1].

    >>> with_added_zeros(Rule(np.array([0.0, 1.0]), np.array([0.5, 0.5])), 0.5)
    Rule(nodes=array([0., 1., 0.]), masses=array([0.25, 0.25, 0.5 ]))
    """
    if not 0 <= share <= 1:
        raise InputError(f"zero share {share:g} is outside [0, 1]; give the fraction of rows that are zero")
    return Rule(np.append(rule.nodes, 0.0), np.append((1 - share) * rule.masses, share))


def crossing(
    rule: Rule,
    magnitudes: Magnitudes,
    tolerance: float,
    *,
    rounded: Literal["radius", "square"] | None = None,
    grid: int = _GRID,
) -> float:
    """The largest sparsity of a grid at which 1 - T is at least the sparsity: where the authors' curves cross.

    Args:
        rule: eigenvalues and their masses.
        magnitudes: magnitudes of the weights under study.
        tolerance: allowed loss increase, positive.
        rounded: what is rounded to an integer: the radius R, its square (the authors'), or None for nothing.
        grid: number of steps of the grid of sparsities.

    Returns:
        A sparsity, a multiple of ``1 / grid``.

    Raises:
        InputError: the tolerance is not positive.

    >>> flat = Rule(np.array([0.0, 1e9]), np.array([0.9, 0.1]))
    >>> crossing(flat, Magnitudes(np.ones(100)), 1.0)
    0.9
    """

    def holds(step: int) -> bool:
        radius = magnitudes.radius(1 - step / grid)
        if rounded is not None:
            radius = float(round(radius)) if rounded == "radius" else float(np.sqrt(round(radius**2)))
        scale = curvature_scale(tolerance, radius)
        needed = minimal_density(rule.nodes, scale, rule.masses) if np.isfinite(scale) else 0.0
        return 1 - needed >= step / grid - 1e-9

    low, high = 0, grid  # at low it holds; T increases with the radius, and the radius with the sparsity
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low / grid
