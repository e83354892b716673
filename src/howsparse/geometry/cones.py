r"""The statistical dimension of the true cone over the sublevel set, by Monte-Carlo.

The sublevel set is the ellipsoid :math:`\tfrac12 (x - c)'H(x - c) \le \epsilon` around the trained weights c, seen from
the pruned weights, which are the origin. The rays from the origin through it form a convex cone C. Its statistical
dimension is :math:`\delta(C) = \mathrm{E}\lVert \Pi_C(g)\rVert^2`, where :math:`\Pi_C` is the projection onto C and g
is a standard normal vector. Random subspaces of k dimensions begin to meet C where k is about :math:`D - \delta(C)`.

References:
    Amelunxen, Lotz, McCoy, Tropp (2014), Living on the edge: phase transitions in convex programs with random data.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from howsparse.errors import InputError
from howsparse.geometry.spectra import curvature_scale

__all__ = ["cone_dimension", "project_on_cone"]

Array = NDArray[np.float64]

_HALVINGS = 100  # of the interval that contains a projection's multiplier


def cone_dimension(
    eigenvalues: ArrayLike, displacement: ArrayLike, tolerance: float, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    r"""The statistical dimension of the true cone over the sublevel set, by Monte-Carlo; `statistical_dimension` is a
    proxy for it.

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight, all positive.
        displacement: the step from the trained to the pruned weights in the eigenvectors' basis, ``(n,)``.
        tolerance: allowed loss increase, positive.
        draws: number of normal vectors to project, at least 2.
        seed: seed of these vectors.

    Returns:
        The mean over the draws, in dimensions, and its standard error. If the pruned weights are in the sublevel set,
        each subspace meets it: n, and 0.

    Raises:
        InputError: an eigenvalue or the tolerance is not positive, or there are fewer than 2 draws.

    Source: Definition of the statistical dimension, Amelunxen et al. (2014).

    >>> mean, error = cone_dimension([1.0] * 50, [2.0] + [0.0] * 49, 0.5)  # a ball of radius 1 at a distance of 2
    >>> abs(mean - 50 / 4) < 1
    True
    """
    if draws < 2:
        raise InputError(f"draws is {draws}; use at least 2")
    values, d = np.asarray(eigenvalues, dtype=np.float64), np.asarray(displacement, dtype=np.float64)
    _check(values, tolerance)
    if float(d @ (values * d)) / 2 <= tolerance:
        return float(values.size), 0.0
    vectors = np.random.default_rng(seed).standard_normal((draws, values.size))
    squares = np.sum(project_on_cone(values, d, tolerance, vectors) ** 2, axis=1)
    return float(squares.mean()), float(squares.std(ddof=1)) / math.sqrt(draws)


def project_on_cone(eigenvalues: ArrayLike, displacement: ArrayLike, tolerance: float, vectors: ArrayLike) -> Array:
    r"""The nearest points of the cone over the sublevel set, seen from the pruned weights.

    With :math:`b = Hc/(c'Hc - 2\epsilon)^{1/2}` and :math:`c = -d`, the cone is :math:`(x'Hx)^{1/2} \le b'x`. The
    matrix :math:`M = H - bb'` has one negative eigenvalue, and the nearest point to g is
    :math:`(1 + \nu M)^{-1}g` for the only :math:`\nu > 0` that puts it on the surface of the cone.

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight, all positive.
        displacement: the step d from the trained to the pruned weights, outside the sublevel set, ``(n,)``.
        tolerance: allowed loss increase, positive.
        vectors: the vectors to project, ``(m, n)``.

    Returns:
        The projections, ``(m, n)``.

    Raises:
        InputError: an eigenvalue or the tolerance is not positive, or the pruned weights are in the sublevel set.

    Source: the conditions of Karush, Kuhn and Tucker for the nearest point of the cone.

    >>> project_on_cone([1.0, 1.0], [-2.0, 0.0], 1.0, [[3.0, 1.0], [-1.0, 0.0]])  # in the cone; opposite to it
    array([[3., 1.],
           [0., 0.]])
    """
    values, c = np.asarray(eigenvalues, dtype=np.float64), -np.asarray(displacement, dtype=np.float64)
    given = np.asarray(vectors, dtype=np.float64)
    _check(values, tolerance)
    beyond = float(c @ (values * c)) - 2 * tolerance
    if not beyond > 0:
        raise InputError("the pruned weights are in the sublevel set, which has no cone; use a smaller tolerance")
    b = values * c / math.sqrt(beyond)
    inside = given @ b >= np.sqrt(np.square(given) @ values)
    behind = given @ c + np.sqrt(2 * tolerance * (np.square(given) @ (1 / values))) <= 0  # in the polar cone
    curvatures, basis = np.linalg.eigh(np.diag(values) - np.outer(b, b))
    turned = given @ basis * (1 if b @ basis[:, 0] > 0 else np.r_[-1.0, np.ones(values.size - 1)])
    shares = _on_surface(curvatures, turned)
    projected = (shares * (given @ basis)) @ basis.T
    return np.where(inside[:, None], given, np.where(behind[:, None], 0.0, projected))


def _on_surface(curvatures: Array, turned: Array) -> Array:
    """Entries of 1 / (1 + nu M) in M's eigenbasis, for each row the nu that puts the vector on the cone's surface.

    The first eigenvalue is the negative one, and a positive first entry points into the cone's half-space. In units of
    1 / -curvatures[0], nu is below 1 for such vectors and above 1 for others; then 1 / nu is below 1.
    """
    scaled, forward = curvatures / -curvatures[0], turned[:, 0] > 0
    low, high = np.zeros(len(turned)), np.ones(len(turned))

    def share(at: Array) -> Array:
        nu = at[:, None]
        return np.asarray(np.where(forward[:, None], 1 / (1 + nu * scaled), nu / (nu + scaled)))

    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        outside = np.sum(scaled * (share(middle) * turned) ** 2, axis=1) > 0
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    return share((low + high) / 2)


def _check(values: Array, tolerance: float) -> None:
    curvature_scale(tolerance, 1.0)
    if not float(values.min()) > 0:
        raise InputError(f"eigenvalue {values.min():g} is not positive; an ellipsoid needs positive eigenvalues")
