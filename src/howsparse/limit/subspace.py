"""Bounds on the stiffness of a random subspace, and on the least loss increase on it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from howsparse.geometry import absolute_filter
from howsparse.limit.budget import basis_room
from howsparse.linalg import Lanczos, Operator, Rule, Spectrum, Tridiagonal, gauss, gauss_radau
from howsparse.linalg.basis import dot
from howsparse.pruning.masks import largest

__all__ = ["SubspaceLoss", "stiffness_bounds"]

Array = np.typing.NDArray[np.float64]

_CONFIDENCE = 0.99  # with which the bounds cover the choice of the random probes
_POWERS = 100  # powers of e below the largest stiffness in which a root is looked for
_SETTLED = 0.02  # a run has settled if its bounds differ by at most this fraction of the tolerance


@dataclass(frozen=True, eq=False)
class SubspaceLoss:
    """Bounds on the least loss increase on a random subspace through the magnitude-pruned weights.

    Attributes:
        matrix: the curvature, ``(n, n)``, without negative eigenvalues.
        weights: the weights under study, ``(n,)``.
        gradient: gradient of the risk, ``(n,)``.
        spectrum: spectrum of ``matrix``; it decides the stiffness of a subspace.
        tolerance: the loss increase with which the bounds are compared.
        max_products: number of products of ``matrix`` at which to stop.
        on_product: called after each product.
    """

    matrix: Operator
    weights: Tensor
    gradient: Tensor
    spectrum: Spectrum
    tolerance: float
    max_products: int
    on_product: Callable[[], None] = lambda: None

    def interval(self, removed: int) -> tuple[float, float] | None:
        """Lower and upper bound if this number of weights is removed; None if no products are left.

        Steps are taken only until the bounds show whether the tolerance is met. They come from the Lanczos run that
        starts at the slope r = g + Gd.
        """
        if self.matrix.num_products >= self.max_products:
            return None
        left = self.weights.numel() - removed
        softest, stiffest = stiffness_bounds(self.spectrum, left / self.weights.numel())
        d = torch.where(largest(self.weights.abs(), left), 0, -self.weights)
        slope = (self.matrix @ d).add_(self.gradient)
        self.on_product()
        at_pruned = (dot(self.gradient, d) + dot(slope, d)) / 2  # g'd + d'Gd / 2
        square = dot(slope, slope)
        low, high = -math.inf if softest == 0 else at_pruned - square / softest / 2, at_pruned
        if square == 0:
            return at_pruned, at_pruned
        steps, storage = basis_room(slope, max(8, self.max_products - self.matrix.num_products), 1)
        run, going = Lanczos(self.matrix.__matmul__, slope, storage), True
        while going and low <= self.tolerance < high and steps > 0 and self.matrix.num_products < self.max_products:
            going, steps = run.step(), steps - 1
            self.on_product()
            low, high, settled = self._bounds(run.tridiagonal, at_pruned, square, softest, stiffest)
            going = going and not settled
        return low, high

    def _bounds(
        self, tridiagonal: Tridiagonal, at_pruned: float, square: float, softest: float, stiffest: float
    ) -> tuple[float, float, bool]:
        """The bounds after some steps, and whether more steps would hardly move them."""
        inner, outer = gauss(tridiagonal), gauss_radau(tridiagonal, 0.0)

        def left(rule: Rule, kappa: float) -> float:
            return at_pruned - square * float(rule.masses @ (1 / (np.maximum(rule.nodes, 0.0) + kappa))) / 2

        high = left(inner, stiffest)
        low = left(outer, softest) if softest > 0 else -math.inf
        gap = max(high - left(outer, stiffest), left(inner, softest) - low if softest > 0 else 0.0)
        return low, high, gap <= max(_SETTLED * self.tolerance, 0.05 * (high - low) if softest > 0 else 0.0)


def stiffness_bounds(spectrum: Spectrum, density: float) -> tuple[float, float]:
    r"""Bounds on the stiffness :math:`\kappa` of a random subspace, from the probes' Lanczos runs.

    Args:
        spectrum: spectrum of a matrix without negative eigenvalues.
        density: dimensions of the subspace divided by the number of weights, in [0, 1].

    Returns:
        A lower and an upper bound, which hold with 99 %. The lower one can be 0, and the upper one infinite.

    >>> flat = Tridiagonal(np.array([3.0]), np.array([0.0]))  # all eigenvalues are 3
    >>> low, high = stiffness_bounds(Spectrum((flat,), size=10**10, positive=True), density=0.75)
    >>> low < 1 < high, round(low, 3), round(high, 3)
    (True, 1.0, 1.0)
    """

    def root(rule: Rule, upper: bool) -> float:
        most = float(rule.nodes.max())

        def excess(log_kappa: float) -> float:
            kappa = math.exp(log_kappa)
            needed = rule.integrate(lambda x: absolute_filter(np.maximum(x, 0.0), kappa))
            needed = spectrum.rounded(needed, lambda x: absolute_filter(x, kappa), upper=upper)
            return spectrum.probe_interval(needed, needed, _CONFIDENCE)[upper] - density

        if most <= 0 or density == 0:
            return math.inf if density == 0 else 0.0
        high = math.log(most / density) + 12  # far above the root: a stiffness k has a density below most / k
        if excess(high) >= 0:
            return math.inf
        # Where the stiffness is below the rounding, the lower bound falls to 0 again, so the highest root counts.
        low = next((high - n for n in range(4, _POWERS, 4) if excess(high - n) > 0), None)
        return 0.0 if low is None else math.exp(scipy.optimize.brentq(excess, low, low + 4, xtol=1e-11))

    return root(spectrum.lowest(), upper=False), root(spectrum.gauss(), upper=True)
