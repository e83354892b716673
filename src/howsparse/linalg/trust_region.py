r"""The least value of a quadratic function in a ball, bounded from both sides by one Lanczos run.

The function is :math:`r'x + \tfrac12 x'Ax` on :math:`\lVert x\rVert \le \rho`. Its Lagrange dual function is

.. math:: D(\delta) = -\tfrac12\, r'(A + \delta)^{-1} r - \tfrac12\, \delta \rho^2,
          \qquad \delta \ge 0,\ A + \delta > 0,

and the least value is the largest :math:`D(\delta)`. With m Lanczos steps started at r, quadrature rules bound
:math:`r'(A + \delta)^{-1} r` for every :math:`\delta` at once (see `howsparse.linalg.solve`). The Gauss rule bounds it
from below; the largest D is then the least value in the Krylov space, which a point in the ball attains. The
Gauss-Radau rule with a node at or below all eigenvalues bounds it from above, so its largest D is a lower bound.

References:
    Gould, Lucidi, Roma and Toint (1999), Solving the trust-region subproblem using the Lanczos method.
    Golub and Meurant (2010), Matrices, Moments and Quadrature with Applications, chapter 6.
"""

import math

import numpy as np
import scipy

from howsparse.linalg.quadrature import Rule, Tridiagonal, gauss, gauss_radau

__all__ = ["least_in_ball", "trust_region_bounds"]


def trust_region_bounds(
    tridiagonal: Tridiagonal, slope: float, radius: float, *, positive: bool
) -> tuple[float, float]:
    r"""Bounds on the least :math:`r'x + \tfrac12 x'Ax` for x in a ball. They hold after any number of Lanczos steps.

    Args:
        tridiagonal: tridiagonal matrix of the steps on A, started at r.
        slope: norm of r.
        radius: radius of the ball.
        positive: whether A has no negative eigenvalue. If it may have one, the least value can lie along a direction
            that no step has seen, and nothing bounds it from below.

    Returns:
        Lower and upper bound. Without ``positive``, the lower bound is minus infinity. They are bounds in exact
        arithmetic: products in float32 add an error of their precision.

    Source: Gould, Lucidi, Roma and Toint (1999) for the upper bound; weak duality and the Gauss-Radau rule for the
    lower bound.

    >>> from howsparse.linalg import Lanczos
    >>> import torch
    >>> run = Lanczos(lambda v: torch.tensor([1.0, 3.0]) * v, torch.tensor([4.0, 4.0]))
    >>> for _ in range(2):  # the minimum is -16/2 - 16/6, at the point (-4, -4/3)
    ...     _ = run.step()
    ...     low, high = trust_region_bounds(run.tridiagonal, slope=32**0.5, radius=5.0, positive=True)
    ...     print(f"{low:.3f} {high:.3f}")
    -16.886 -8.000
    -10.667 -10.667
    """
    high = least_in_ball(gauss(tridiagonal), slope, radius, positive=positive)
    if not positive:
        return -math.inf, high
    low = least_in_ball(gauss_radau(tridiagonal, 0.0), slope, radius, positive=True)
    return min(low, high), high


def least_in_ball(rule: Rule, slope: float, radius: float, *, positive: bool = False) -> float:
    r"""The largest value of the dual function :math:`D(\delta)`, with the integrals of a quadrature rule.

    If the rule is the exact spectral measure of r, this is the least :math:`r'x + \tfrac12 x'Ax` in the ball, also if A
    has negative eigenvalues (Moré and Sorensen, 1983).

    Args:
        rule: nodes, and the share of r's squared norm at each node.
        slope: norm of r.
        radius: radius of the ball.
        positive: whether nodes below 0 are rounding errors and count as 0.

    Returns:
        A number of at most 0.

    >>> least_in_ball(Rule(np.array([2.0]), np.array([1.0])), slope=4.0, radius=10.0)  # -16 / 4, inside the ball
    -4.0
    >>> least_in_ball(Rule(np.array([2.0]), np.array([1.0])), slope=4.0, radius=1.0)  # -4 + 2 / 2, at its edge
    -3.0
    """
    nodes = np.maximum(rule.nodes, 0.0) if positive else rule.nodes
    floor = max(0.0, -float(nodes.min()))
    if radius == 0.0 or (slope == 0.0 and floor == 0.0):
        return 0.0
    heavy = slope**2 * rule.masses > 0
    above, squares = nodes[heavy] + floor, slope**2 * rule.masses[heavy]

    def length(beyond: float) -> float:
        """Norm of the minimiser of the function with the shift ``floor + beyond``."""
        with np.errstate(divide="ignore"):
            return math.sqrt(float(np.sum(squares / (above + beyond) ** 2)))

    beyond = 0.0
    if length(0.0) > radius:  # else the minimiser is inside the ball, or negative curvature fills the rest of it
        farthest = slope / radius
        # The shift may be many orders of magnitude below the farthest one, so only its relative error counts.
        beyond = float(
            scipy.optimize.brentq(
                lambda b: 1 / length(b) - 1 / radius, 0.0, farthest, xtol=1e-300, rtol=1e-12, maxiter=999
            )
        )
    return float(-np.sum(squares / (above + beyond)) / 2 - (floor + beyond) * radius**2 / 2)
