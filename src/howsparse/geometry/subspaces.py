r"""The least loss of the quadratic model on a random subspace, with the direction of the removed weights.

Let :math:`q(x) = g'x + \tfrac12 x'Hx` be the model's loss increase at the distance x from the trained weights. The
remaining weights are free to move along :math:`k = pD` random directions through the pruned weights, which are at d.
The least loss increase on such a subspace is, in high dimension,

.. math:: \min_x\; q(x) + \tfrac\kappa2 \lVert x - d\rVert^2 \qquad\text{with}\qquad
          \frac1D\sum_i \frac{\lambda_i}{\lambda_i+\kappa} = p .

So a random subspace acts like a spring of strength :math:`\kappa` between the pruned weights and x. The derivation and
the Monte-Carlo checks are in docs/theory.md and docs/negative-curvature.md.
"""

import math

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from howsparse.errors import InputError
from howsparse.geometry.spectra import check_scale

__all__ = ["subspace_loss", "subspace_stiffness", "trust_region_density", "trust_region_loss"]

Array = NDArray[np.float64]

_TINY = 1e-290  # products of a smaller eigenvalue lose their digits


def subspace_stiffness(eigenvalues: ArrayLike, density: float, masses: ArrayLike | None = None) -> float:
    r"""The stiffness :math:`\kappa` of a random subspace: the root of mean :math:`\lambda/(\lambda+\kappa)` = density.

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight, none negative: eigenvalues, or the nodes of a quadrature
            rule.
        density: dimensions of the subspace divided by the number of weights, in [0, 1].
        masses: shape ``(n,)``, the fraction of the spectrum at each node, with sum 1; by default all are equal.

    Returns:
        The stiffness, loss per squared weight. It is 0 if the density is at least the fraction of eigenvalues that are
        not zero: such a subspace can cancel every change. It is infinite at density 0.

    Raises:
        InputError: an eigenvalue is negative beyond rounding, or the density is outside [0, 1].

    Source: docs/theory.md.

    >>> round(subspace_stiffness([3.0, 3.0, 0.0, 0.0], density=0.25), 9)
    3.0
    >>> subspace_stiffness([3.0, 3.0, 0.0, 0.0], density=0.5)
    0.0
    """
    values = _nonnegative(eigenvalues)
    shares = np.full(values.size, 1 / values.size) if masses is None else np.asarray(masses, dtype=np.float64)
    if not 0 <= density <= 1:
        raise InputError(f"density {density:g} is outside [0, 1]; give the dimensions divided by the number of weights")
    alive, values, shares = values > 0, values[values > 0], shares[values > 0]
    share = float(shares.sum())
    if density == 0 or not alive.any():
        return math.inf if density == 0 else 0.0
    if density >= share * (1 - 1e-14):
        return 0.0
    odds = (share - density) / density
    low, high = math.log(float(values.min()) * odds / 2), math.log(float(values.max()) * odds * 2)
    return math.exp(
        scipy.optimize.brentq(lambda k: float(shares @ (values / (values + math.exp(k)))) - density, low, high)
    )


def subspace_loss(eigenvalues: ArrayLike, displacement: ArrayLike, gradient: ArrayLike, density: float) -> float:
    r"""Least loss increase on a random subspace through the pruned weights.

    .. math:: g'd + \tfrac12 d'Hd - \tfrac12\, r'(H+\kappa)^{-1}r, \qquad r = g + Hd, \qquad
              \frac1D\sum_i \frac{\lambda_i}{\lambda_i+\kappa} = \text{density}

    The subspace meets the sublevel set if this loss increase is at most the tolerance. Unlike T, the formula uses the
    direction of the displacement and the gradient. As the density goes to 0, it becomes the predicted loss increase
    :math:`g'd + \tfrac12 d'Hd` of the pruned network.

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight, none negative.
        displacement: the step d from the trained to the pruned weights in the eigenvectors' basis, ``(n,)``.
        gradient: the gradient g of the loss in the same basis, ``(n,)``.
        density: dimensions of the subspace divided by n, in [0, 1].

    Returns:
        The least loss minus the trained network's loss. It can be negative if the gradient is not zero. It is minus
        infinity if the subspace can move without end along a gradient without curvature: the density is then at least
        the fraction of eigenvalues that are not zero.

    Raises:
        InputError: an eigenvalue is negative beyond rounding, so the quadratic model has no least value; see
            `trust_region_loss`. The density is outside [0, 1].

    Source: docs/theory.md.

    >>> round(subspace_loss([2.0, 2.0], [1.0, 1.0], [0.0, 0.0], density=0.5), 9)  # half the displacement is undone
    1.0
    >>> round(subspace_loss([2.0, 0.0], [1.0, 1.0], [0.0, 0.0], density=0.25), 9)  # a direction without curvature
    0.5
    """
    values = _nonnegative(eigenvalues)
    d, g = np.asarray(displacement, dtype=np.float64), np.asarray(gradient, dtype=np.float64)
    kappa, slope = subspace_stiffness(values, density), g + values * d
    at_pruned = float(g @ d + d @ (values * d) / 2)
    with np.errstate(divide="ignore"):
        undone = np.divide(slope**2, values + kappa, out=np.zeros_like(slope), where=slope != 0)
    return at_pruned - float(np.sum(undone)) / 2


def trust_region_density(eigenvalues: ArrayLike, scale: float, reach: float, masses: ArrayLike | None = None) -> float:
    r"""The density at which random subspaces meet the sublevel set within a ball around the trained weights.

    .. math:: T = 1 - \min_{s}\; \frac{\mu + r^2 s}{1 + r^2}\; \frac1D\sum_i \frac1{\lambda_i + s}
              \qquad\text{over}\quad s \ge \mu,\ s > -\lambda_{\min}

    The ball has the radius :math:`rR`. Negative eigenvalues are allowed: no absolute value is taken, and nothing is
    clipped. It is the maximum over :math:`\tau \ge 0` of the mean of
    :math:`(\lambda+\tau)/(\lambda+\tau+\mu+\tau r^2)`, where :math:`s = \mu + \tau(1 + r^2)`. Like `minimal_density`,
    it holds for removed weights in directions with much more curvature than s. An infinite reach without negative
    eigenvalues gives `minimal_density`.

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight: eigenvalues, or the nodes of a quadrature rule.
        scale: :math:`\mu`, same unit, positive.
        reach: radius r of the ball divided by R, positive; may be infinite.
        masses: shape ``(n,)``, the fraction of the spectrum at each node, with sum 1; by default all are equal.

    Returns:
        A density in [0, 1].

    Raises:
        InputError: the scale or the reach is not positive.

    Source: docs/negative-curvature.md.

    >>> round(trust_region_density([1.0, 0.0, 0.0, 0.0], 1.0, math.inf), 9)
    0.125
    >>> round(trust_region_density([1.0, -0.5, 0.0, 0.0], 1.0, math.inf), 4)  # negative curvature helps
    0.0143
    """
    check_scale(scale)
    if not reach > 0:
        raise InputError(f"reach {reach:g} is not positive; give the ball's radius divided by R")
    values = np.asarray(eigenvalues, dtype=np.float64)
    shares = np.full(values.size, 1 / values.size) if masses is None else np.asarray(masses, dtype=np.float64)
    of_s = 1 / (1 + reach**-2)  # r^2 / (1 + r^2), and 1 - of_s is 1 / (1 + r^2)

    def missing(s: float) -> float:
        return float(((1 - of_s) * scale + of_s * s) * (shares @ (1 / (values + s))))

    def slope(s: float) -> float:  # has the sign of the derivative of `missing`; it rises through 0 at most once
        return float(shares @ ((of_s * values - (1 - of_s) * scale) / (values + s) ** 2))

    least = max(scale, -float(values.min()) * (1 + 1e-12))
    if slope(least) >= 0 and least == scale:
        return min(1.0, max(0.0, 1 - missing(least)))
    most = 2 * least
    while slope(most) < 0:
        most *= 4
        if most > 1e12 * (scale + float(np.abs(values).max())):
            return 1 - of_s  # only the ball matters
    return min(1.0, max(1 - of_s, 1 - missing(float(scipy.optimize.brentq(slope, least, most, xtol=1e-14 * most)))))


def trust_region_loss(
    eigenvalues: ArrayLike, displacement: ArrayLike, gradient: ArrayLike, density: float, radius: float
) -> float:
    r"""Least loss increase on a random subspace through the pruned weights, within a ball around the trained weights.

    .. math:: \max_{\tau \ge 0}\; \tfrac12\kappa R^2 - \tfrac12\, b'(H+\tau+\kappa)^{-1}b - \tfrac12\tau\rho^2,
              \qquad b = \kappa d - g, \qquad \frac1D\sum_i\frac{\lambda_i+\tau}{\lambda_i+\tau+\kappa} = \text{density}

    Negative eigenvalues are allowed: a quadratic function in a ball always has a least value. The maximum is over all
    :math:`\tau` for which the curvature plus :math:`\tau` is positive on the subspace. The Hessian plus :math:`\tau`
    need not be.

    Args:
        eigenvalues: shape ``(n,)``, loss per squared weight.
        displacement: the step d from the trained to the pruned weights in the eigenvectors' basis, ``(n,)``.
        gradient: the gradient g of the loss in the same basis, ``(n,)``.
        density: dimensions of the subspace divided by n, in (0, 1).
        radius: radius :math:`\rho` of the ball, in the unit of a weight, positive and finite.

    Returns:
        The least loss minus the trained network's loss; infinite if the subspace does not meet the ball.

    Raises:
        InputError: the density is outside (0, 1), or the radius is not positive and finite.

    Source: docs/negative-curvature.md.

    >>> flat = [-1.0, -1.0]  # the loss falls in every direction: the least loss is at the ball's surface
    >>> round(trust_region_loss(flat, [1.0, 0.0], [0.0, 0.0], density=0.5, radius=2.0), 6)
    -2.0
    """
    if not 0 < density < 1:
        raise InputError(f"density {density:g} is outside (0, 1); give the dimensions divided by the number of weights")
    if not 0 < radius < math.inf:
        raise InputError(f"radius {radius:g} is not positive and finite; give the ball's radius")
    values = np.asarray(eigenvalues, dtype=np.float64)
    d, g = np.asarray(displacement, dtype=np.float64), np.asarray(gradient, dtype=np.float64)
    if (1 - density) * float(d @ d) >= radius**2:  # squared distance of the subspace from the trained weights
        return math.inf
    return _largest_dual(values, d, g, density, radius)


def _largest_dual(values: Array, d: Array, g: Array, density: float, radius: float) -> float:
    """The maximum in `trust_region_loss`, found over s = tau + kappa, which decides both."""
    spread, lowest = float(np.ptp(values)) or 1.0, float(values.min())

    def both(log_gap: float) -> tuple[float, float]:
        s = spread * math.exp(log_gap) - lowest
        return s, float((1 - density) / np.mean(1 / (values + s)))

    def dual(log_gap: float) -> float:
        s, kappa = both(log_gap)
        undone = float(np.sum((kappa * d - g) ** 2 / (values + s)))
        return (kappa * float(d @ d) - undone - (s - kappa) * radius**2) / 2

    def allowed(log_gap: float) -> float:  # positive if tau >= 0 and the curvature plus tau is positive on the subspace
        s, kappa = both(log_gap)
        squares = float(np.mean((values + s) ** -2.0))
        return min(1 - kappa**2 * squares / (1 - density), (s - kappa) / spread)

    ends = (-30.0, 30.0)
    first = float(scipy.optimize.brentq(allowed, *ends)) if allowed(ends[0]) < 0 else ends[0]
    found = scipy.optimize.minimize_scalar(
        lambda at: -dual(at), bounds=(first, ends[1]), method="bounded", options={"xatol": 1e-10}
    )
    return max(-float(found.fun), dual(first))


def _nonnegative(eigenvalues: ArrayLike) -> Array:
    """The eigenvalues. Negative ones that are rounding errors, and those near the smallest number, become 0."""
    values = np.asarray(eigenvalues, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError("an eigenvalue is not a finite number; give finite eigenvalues")
    lowest = float(values.min())
    if not lowest >= -values.size * float(np.finfo(np.float64).eps) * float(np.abs(values).max()):
        raise InputError(
            f"eigenvalue {lowest:g} is negative, so the loss has no least value on a subspace;"
            " use the eigenvalues of the GGN, or trust_region_loss"
        )
    return np.where(values > _TINY, values, 0.0)
