r"""Linear systems by conjugate gradients, with bounds from both sides on the quadratic form of the inverse.

The start vector r and the matrix A + shift define a measure (see `howsparse.linalg.quadrature`), and
:math:`r'(A + shift)^{-1}r` is the integral of 1/x over it. All even derivatives of 1/x are positive and all odd ones
negative, so the Gauss rule gives a lower bound, and the Gauss-Radau rule with a node at or below all eigenvalues gives
an upper bound. Conjugate gradients compute both rules with a few operations on numbers in each step.

References:
    Golub and Meurant (2010), Matrices, Moments and Quadrature with Applications, chapter 12.
    Meurant and Tichy (2013), On computing quadrature-based bounds for the A-norm of the error in conjugate gradients.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from howsparse.errors import InputError
from howsparse.linalg.basis import dot
from howsparse.linalg.operators import Operator

__all__ = ["Solution", "solve"]


@dataclass(frozen=True, eq=False)
class Solution:
    """The solution of a symmetric positive definite system, as far as it was computed.

    Attributes:
        x: the solution, ``(n,)``.
        value_low: lower bound on the inner product of the right side and the exact solution. It is that of ``x``.
        value_high: upper bound on the same inner product.
        steps: number of products.

    >>> found = Solution(torch.tensor([2.0, 1.0]), value_low=12.0, value_high=12.1, steps=2)
    >>> found.value_low <= 12.05 <= found.value_high
    True
    """

    x: Tensor
    value_low: float
    value_high: float
    steps: int


def solve(
    operator: Operator, rhs: Tensor, shift: float, *, tol: float = 1e-3, max_steps: int = 100, smallest: float = 0.0
) -> Solution:
    r"""Solve :math:`(A + shift) x = r` by conjugate gradients, and bound :math:`r'(A + shift)^{-1}r` from both sides.

    If r is the gradient of a quadratic model with curvature A + shift, this number is twice the decrease of the model
    at its minimum. Both bounds hold after any number of steps, and become closer with each step. They are bounds in
    exact arithmetic: products in float32 add an error of their precision.

    Args:
        operator: the symmetric matrix A, ``(n, n)``, for example a `Block`.
        rhs: the right side r, ``(n,)``, in the operator's dtype and on its device.
        shift: added to each eigenvalue.
        tol: stop when the bounds differ by at most this fraction of the lower one.
        max_steps: largest number of products.
        smallest: a lower bound on all eigenvalues of A; 0 for a Gauss-Newton matrix. The closer it is to the
            smallest eigenvalue, the closer is the upper bound.

    Returns:
        The solution after the last step.

    Raises:
        InputError: ``rhs`` has another shape, ``shift + smallest`` is not positive, there is no step, or A has an
            eigenvalue below ``smallest``.

    Source: Golub and Meurant (2010), chapter 12; the update of Meurant and Tichy (2013), section 3.

    >>> class Diagonal(Operator):
    ...     shape, dtype, device, num_products = (2, 2), torch.float64, torch.device("cpu"), 0
    ...     def _matvec(self, vector): return torch.tensor([1.0, 3.0], dtype=torch.float64) * vector
    >>> rhs = torch.tensor([4.0, 4.0], dtype=torch.float64)
    >>> found = solve(Diagonal(), rhs, shift=1.0)  # 16 / 2 + 16 / 4
    >>> [round(float(each), 6) for each in (*found.x, found.value_low, found.value_high)]
    [2.0, 1.0, 12.0, 12.0]
    """
    floor = shift + smallest
    _check(operator, rhs, floor, max_steps)
    x, residual, direction = torch.zeros_like(rhs), rhs.clone(), rhs.clone()
    squares = dot(residual, residual)
    low, high, steps = 0.0, squares / floor, 0
    error_step = 1 / floor  # times squares it bounds what is missing in low
    while steps < max_steps and high - low > tol * low:
        product = (operator @ direction).add(direction, alpha=shift)
        curvature, length = dot(direction, product), dot(direction, direction)
        if curvature < floor * length * (1 - 1e-3):
            raise InputError(_below(curvature / length - shift, smallest))
        step = squares / curvature
        x.add_(direction, alpha=step)
        residual.sub_(product, alpha=step)
        low += step * squares
        ratio = dot(residual, residual) / squares
        squares *= ratio
        beyond = max(error_step - step, 0.0)
        error_step = beyond / (floor * beyond + ratio) if ratio > 0 else 0.0
        high = max(low, min(high, low + error_step * squares))
        direction = torch.add(residual, direction, alpha=ratio)
        steps += 1
    return Solution(x, low, high, steps)


def _check(operator: Operator, rhs: Tensor, floor: float, max_steps: int) -> None:
    if rhs.shape != operator.shape[:1]:
        raise InputError(
            f"the right side has shape {tuple(rhs.shape)}, but the matrix has {operator.shape}; pass a vector of"
            f" length {operator.shape[0]}"
        )
    if not floor > 0:
        raise InputError(f"shift plus smallest is {floor:g}, not above 0; use a larger shift")
    if max_steps < 1:
        raise InputError(f"max_steps is {max_steps}; use at least 1")


def _below(eigenvalue: float, smallest: float) -> str:
    return (
        f"the matrix has an eigenvalue of at most {eigenvalue:.3g}, below {smallest:g};"
        " pass a smaller bound as smallest, and a larger shift"
    )
