"""Random matrices with known eigenvalues for `benchmarks.coverage`: what their brackets hold, and how near to an end.

A matrix is diag(eigenvalues) in a random orthonormal basis: signs and cosine transforms, in float32. The eigenvectors
are known, so the measure of every probe is known in float64 as well as the truth.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct, idct
from torch import Tensor

from benchmarks.coverage_networks import network_spectrum
from howsparse.geometry import Magnitudes, absolute_filter, clipped_filter, fixed_point, minimal_density
from howsparse.limit.bracket import Bracket, solve_bracket
from howsparse.linalg import Operator, Spectrum, grow_spectrum

__all__ = ["SHAPES", "Known", "Rotated", "bracket_case", "draw_eigenvalues"]

SHAPES = ("network", "two values", "low rank", "cusp", "cusp, positive", "outliers and bulk")

Array = NDArray[Any]
_MANY = 10**12  # copies of a matrix side by side, for which the probes' chance is nothing


class Rotated(Operator):
    """B diag(eigenvalues) B' in float32, with B two rounds of signs and an orthonormal cosine transform.

    Args:
        eigenvalues: ``(n,)``, in float64.
        seed: seed of the signs.
    """

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, eigenvalues: Array, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._eigenvalues = eigenvalues
        self._signs = rng.choice(np.array([-1.0, 1.0]), size=(2, eigenvalues.size))
        self.positive = bool((eigenvalues >= 0).all())
        self.multiplied: list[Tensor] = []

    @property
    def shape(self) -> tuple[int, int]:
        return self._eigenvalues.size, self._eigenvalues.size

    @property
    def num_products(self) -> int:
        return len(self.multiplied)

    def into_eigenvectors(self, vector: Array) -> Array:
        """B' v, in the dtype of the vector."""
        for signs in self._signs:
            vector = dct(vector * signs.astype(vector.dtype), norm="ortho")
        return vector

    def _matvec(self, vector: Tensor) -> Tensor:
        self.multiplied.append(vector)
        product = self.into_eigenvectors(vector.numpy()) * self._eigenvalues.astype(np.float32)
        for signs in self._signs[::-1]:
            product = idct(product, norm="ortho") * signs.astype(np.float32)
        return torch.from_numpy(product)


@dataclass(frozen=True)
class Known:
    """A bracket beside what it must hold.

    Attributes:
        shape: one of `SHAPES`.
        bracket: the bracket, with the probes' part.
        exact: the limit of the eigenvalues.
        alone: the bracket without the probes' part.
        of_probes: the limit of the probes' measures, which `alone` must hold.
    """

    shape: str
    bracket: Bracket
    exact: float
    alone: Bracket
    of_probes: float


def draw_eigenvalues(rng: np.random.Generator, shape: str) -> Array:
    """50 to 2,000 eigenvalues; most shapes have their mass near 0, where the filter factor has its cusp."""
    size = int(50 * 40 ** rng.random())
    sign = rng.choice([-1.0, 1.0], size, p=[0.3, 0.7])
    cusp = sign * 10 ** rng.uniform(-rng.uniform(1, 8), 0, size)
    rank = int(rng.integers(1, max(2, size // 3)))
    few = np.arange(size) < rank
    if shape == "two values":
        return np.where(few, 1.0, 1e-9)
    if shape == "low rank":
        return np.where(few, cusp, 0.0)
    if shape == "outliers and bulk":
        bulk = 10 ** rng.uniform(-5, -1) * rng.standard_normal(size)
        return np.where(np.arange(size) < min(rank, 12), np.abs(cusp), bulk)
    return np.abs(cusp) if shape == "cusp, positive" else cusp


def bracket_case(seed: int, shape: str) -> Known:
    """The bracket of a random matrix of one of `SHAPES`, after random numbers of probes and steps.

    Ten cases with the shape "network" have the eigenvalues of one network. Those with other shapes have their own.
    """
    rng = np.random.default_rng(seed)
    if shape == "network":
        eigenvalues, weights = network_spectrum(seed // 10, "ggn" if seed // 50 % 5 == 0 else "hessian")
        scale = 0.0
    else:
        eigenvalues = draw_eigenvalues(rng, shape)
        weights = rng.standard_normal(eigenvalues.size) * 10 ** rng.uniform(-2, 0, eigenvalues.size)
        scale = 10 ** rng.uniform(-5, -0.5)
    matrix, probes = Rotated(eigenvalues, seed), int(rng.integers(1, 5))
    steps = int(6 * 8 ** rng.random())
    for spectrum in grow_spectrum(matrix, torch.zeros(1), probes=probes, seed=seed):
        if spectrum.num_steps == steps:
            break
    factor = clipped_filter if rng.random() < 0.3 else absolute_filter
    magnitudes = Magnitudes(weights)
    tolerance = 10 ** rng.uniform(-4, -1)
    if scale:  # the tolerance with which this is the scale at the limit
        tolerance = scale * magnitudes.radius(minimal_density(eigenvalues, scale, factor=factor)) ** 2 / 2
    starts = [matrix.into_eigenvectors(start.double().numpy()) for start in matrix.multiplied[1 : probes + 1]]
    masses = np.mean([start**2 / (start @ start) for start in starts], axis=0)

    def limit(of: Array) -> float:
        return 1 - fixed_point(lambda at: minimal_density(eigenvalues, at, of, factor), magnitudes, tolerance)

    return Known(
        shape=shape,
        bracket=solve_bracket(spectrum, magnitudes, tolerance, factor),
        exact=limit(np.full(eigenvalues.size, 1 / eigenvalues.size)),
        alone=solve_bracket(_without_chance(spectrum), magnitudes, tolerance, factor),
        of_probes=limit(masses),
    )


def _without_chance(spectrum: Spectrum) -> Spectrum:
    """The same measures for so many rows that the probes' chance is nothing, with the same rounding per row."""
    alike = tuple(
        replace(t, residuals=None if t.residuals is None else t.residuals * math.sqrt(_MANY))
        for t in spectrum.tridiagonals
    )
    return replace(spectrum, tridiagonals=alike, size=spectrum.size * _MANY, num_zero=spectrum.num_zero * _MANY)
