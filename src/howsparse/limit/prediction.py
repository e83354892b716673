r"""The predicted loss increase of magnitude masks and random masks at every sparsity, from at most 12 products.

Removing weights w is a step :math:`d = -w`. The predicted loss increase is :math:`g'd + \tfrac12 d'Hd`, with the
gradient g and the Hessian H. The paper uses only the average of the second term over directions. This module uses both
terms, because a trained network's gradient is not zero and the step is known.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from howsparse.linalg.operators import Operator

__all__ = ["MAX_PRODUCTS", "LossCurve", "predict_losses", "predict_random_losses"]

Array = NDArray[np.float64]

MAX_PRODUCTS = 11
_EDGES = (
    0.5,
    0.25,
    0.12,
    0.06,
    0.03,
    0.015,
    0.007,
    0.0,
)  # densities of the first products; the prediction is exact there


@dataclass(frozen=True)
class LossCurve:
    """Predicted loss increase as a function of sparsity.

    Attributes:
        sparsities: ``(points,)``, increasing.
        increases: ``(points,)``, predicted loss minus the dense network's loss.
    """

    sparsities: Array
    increases: Array

    def largest_within(self, tolerance: float) -> float:
        """Largest sparsity whose increase is at most ``tolerance``, with linear interpolation between points.

        >>> LossCurve(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 3.0])).largest_within(2.0)
        0.75
        """
        within = np.flatnonzero(self.increases <= tolerance)
        last = int(within[-1]) if within.size else 0
        if last + 1 == self.increases.size:
            return float(self.sparsities[last])
        rise = self.increases[last + 1] - self.increases[last]
        part = max(0.0, (tolerance - self.increases[last]) / rise)
        return float(self.sparsities[last] + part * (self.sparsities[last + 1] - self.sparsities[last]))


class _Forms:
    """The linear form g'w and the quadratic form w'Hw of the removed weights, on a grid of numbers of removed weights.

    Let :math:`u_s` be the s smallest weights. One product :math:`Hu_a` gives :math:`u_s'Hu_a` for every s. Only
    :math:`p'Hp` is interpolated, where p are the removed weights beyond the last product's edge a.
    """

    def __init__(self, operator: Operator, weights: Tensor, gradient: Tensor, removed: NDArray[np.int64]) -> None:
        self.operator, self.weights, self.removed = operator, weights, removed
        magnitudes = weights.abs()
        order = magnitudes.argsort(stable=True)
        self._rank = torch.empty_like(order)
        self._rank[order] = torch.arange(order.numel(), device=order.device)
        edges = torch.as_tensor(removed, device=order.device)
        self._cell = torch.bucketize(self._rank, edges, right=True)
        self.linear = self._sums(gradient)
        self.rows: dict[int, Array] = {0: np.zeros(removed.size)}

    def _sums(self, vector: Tensor) -> Array:
        """Inner product of ``vector`` with the s smallest weights, for every s of the grid."""
        terms = (self.weights.double() * vector.double()).reshape(-1)
        per_cell = torch.bincount(self._cell, weights=terms, minlength=self.removed.size + 1)
        return per_cell.cumsum(0)[: self.removed.size].cpu().numpy()

    def add_edge(self, index: int) -> None:
        """Make the prediction at grid point ``index`` exact, with one product."""
        if index not in self.rows:
            small = torch.where(self._rank < int(self.removed[index]), self.weights, 0)
            self.rows[index] = self._sums(self.operator @ small)

    def increases(self) -> Array:
        """Predicted loss increase at every grid point."""
        quadratic = np.empty(self.removed.size)
        edges = [*sorted(self.rows), self.removed.size]
        for a, end in itertools.pairwise(edges):
            row = self.rows[a]
            inner = slice(a, end)
            quadratic[inner] = row[a] + 2 * (row[inner] - row[a])
            if end < self.removed.size:
                quadratic[inner] += self._between(row, self.rows[end], a, end)
        return np.asarray(-self.linear + quadratic / 2)

    @staticmethod
    def _between(row: Array, next_row: Array, a: int, end: int) -> Array:
        """p'Hp between two edges: the mean of its values for weights without coupling and with full coupling."""
        with_band = (next_row - row)[a:end] - (next_row - row)[a]
        whole = (next_row - row)[end] - (next_row - row)[a]
        if whole == 0:
            return np.zeros_like(with_band)
        return np.asarray((with_band + with_band**2 / whole) / 2)


def predict_losses(
    operator: Operator,
    weights: Tensor,
    gradient: Tensor,
    tolerance: float,
    resolution: float = 5e-4,
    on_product: Callable[[int, int], None] = lambda done, of: None,
) -> LossCurve:
    """Predicted loss increase of magnitude pruning at every sparsity.

    The function takes at most `MAX_PRODUCTS` products. Eight are at fixed densities. The others are where the curve
    crosses ``tolerance``, until the crossing moves by less than ``resolution``.

    Args:
        operator: Hessian or GGN, ``(n, n)``.
        weights: the weights under study, ``(n,)``.
        gradient: gradient of the risk, ``(n,)``.
        tolerance: loss increase near which the curve should be most exact.
        resolution: largest movement of the crossing at which to stop, in sparsity.
        on_product: called with the number of products taken and their largest number.

    Returns:
        The predicted curve, from sparsity 0 to 1.
    """
    count = weights.numel()
    sparsities = np.unique(np.concatenate([np.linspace(0, 0.98, 981), 1 - np.geomspace(0.02, 1e-5, 400), [1.0]]))
    removed = np.unique(np.round(sparsities * count).astype(np.int64))
    forms = _Forms(operator, weights, gradient, removed)
    for done, density in enumerate(_EDGES):
        forms.add_edge(int(np.searchsorted(removed, round((1 - density) * count))))
        on_product(done + 1, MAX_PRODUCTS)

    def curve() -> LossCurve:
        return LossCurve(removed / count, forms.increases())

    crossing = curve().largest_within(tolerance)
    for done in range(len(_EDGES), MAX_PRODUCTS):
        forms.add_edge(int(np.argmin(np.abs(removed / count - crossing))))
        on_product(done + 1, MAX_PRODUCTS)
        before, crossing = crossing, curve().largest_within(tolerance)
        if abs(crossing - before) < resolution:
            break
    return curve()


def predict_random_losses(
    operator: Operator, weights: Tensor, gradient: Tensor, magnitude: LossCurve, seed: int = 0
) -> LossCurve:
    r"""Mean predicted loss increase of random masks, at every sparsity of the magnitude masks' curve.

    A random mask removes each weight with probability s, so :math:`\mathrm{E}[g'd + \tfrac12 d'Hd]` is
    :math:`-s\,g'w + \tfrac12\bigl(s^2\, w'Hw + s(1-s)\sum_i H_{ii} w_i^2\bigr)`. The first quadratic form is known from
    the last point of the magnitude masks' curve, where all weights are removed. The second is estimated by one product
    with a vector of random signs.

    Args:
        operator: Hessian or GGN, ``(n, n)``.
        weights: the weights under study, ``(n,)``.
        gradient: gradient of the risk, ``(n,)``.
        magnitude: the curve that `predict_losses` returned for these weights.
        seed: seed of the signs.

    Returns:
        The predicted curve, at the sparsities of ``magnitude``.

    Source: Section 6 of the paper, "Magnitude pruning is better than random pruning"; the formula is not in the paper.
    """
    slope = float(torch.dot(gradient.double(), weights.double()))
    whole = 2 * (float(magnitude.increases[-1]) + slope)
    signs = torch.randint(0, 2, weights.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8)
    flipped = weights * signs.mul_(2).sub_(1).to(weights)
    diagonal = float(torch.dot(flipped.double(), (operator @ flipped).double()))
    s = magnitude.sparsities
    return LossCurve(s, -s * slope + (s**2 * whole + s * (1 - s) * diagonal) / 2)
