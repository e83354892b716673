r"""The local model of a mask whose kept weights adapt, and the search for the sparsity at which the loss recovers.

A mask removes weights: a step :math:`d = -w` on them. The kept weights K then move by x. The local model of the loss is

.. math:: q(x) = g'd + \tfrac12 d'Gd + r'x + \tfrac12 x'G_{KK}x, \qquad r = (g + Gd)_K,

with the gradient g and the curvature G. Adapting is assumed to reach the least q with
:math:`\lVert x\rVert \le \lVert d\rVert`: the kept weights together move at most as far as the removed ones did.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from howsparse.limit.budget import basis_room
from howsparse.limit.predict import num_kept
from howsparse.linalg import Block, Lanczos, Operator
from howsparse.linalg.basis import dot
from howsparse.linalg.trust_region import trust_region_bounds
from howsparse.pruning.masks import largest
from howsparse.shown import Card, Shown

__all__ = ["Adapting", "Recovery", "adapting", "follow", "recovery_bracket", "search_recoverable"]

_PRECISION = 0.005  # width at which the search stops, in sparsity ...
_FINER = 0.1  # ... or this fraction of the density, if that is smaller
_WIDEN = 4  # while every mask recovers, the next one keeps this many times fewer weights


@dataclass(frozen=True)
class Recovery(Shown):
    """What the local model says about one mask, before and after the kept weights adapt. Losses are increases.

    Attributes:
        sparsity: fraction of the weights removed.
        predicted: predicted loss increase while the kept weights stay as they are.
        low, high: bounds on the predicted loss increase after they have adapted; a negative one is a decrease. Without
            a Gauss-Newton matrix, ``low`` is minus infinity, because negative curvature may lower the loss without
            bound.
        products: number of curvature products taken for this mask.

    >>> Recovery(0.9, predicted=0.5, low=0.01, high=0.02, products=12).recovers(tolerance=0.03)
    True
    """

    sparsity: float
    predicted: float
    low: float
    high: float
    products: int

    def recovers(self, tolerance: float) -> bool | None:
        """Whether the loss increase is at most ``tolerance`` after adapting; None if the bounds do not decide it.

        Args:
            tolerance: allowed loss increase.

        Returns:
            True or False; None if the tolerance is between the bounds.

        >>> point = Recovery(0.9, predicted=0.5, low=0.01, high=0.02, products=12)
        >>> point.recovers(0.03), point.recovers(0.005), point.recovers(0.015)
        (True, False, None)
        """
        if self.high <= tolerance:
            return True
        return False if self.low > tolerance else None

    def card(self) -> Card:
        """The predicted loss increases as a small table.

        Returns:
            The table. It prints as text, and a notebook shows it as HTML.
        """
        rows = (
            ("sparsity", f"{100 * self.sparsity:.1f} %"),
            ("loss increase now", f"{self.predicted:.4g} (predicted)"),
            ("after adapting", f"{self.low:.4g} to {self.high:.4g} (predicted)"),
            ("products", str(self.products)),
        )
        return Card("Recovery of a mask", rows)


@dataclass(frozen=True, eq=False)
class Adapting:
    """The local model of the loss as the kept weights move.

    Attributes:
        sparsity: fraction of the weights removed.
        predicted: predicted loss increase before they move.
        slope: gradient r of the model before they move, ``(kept,)``.
        radius: largest norm of their step: the norm of the removed weights.
        block: the curvature between kept weights, ``(kept, kept)``.
    """

    sparsity: float
    predicted: float
    slope: Tensor
    radius: float
    block: Block


def adapting(operator: Operator, weights: Tensor, gradient: Tensor, kept: Tensor) -> Adapting:
    """The local model of one mask, with one product.

    Args:
        operator: Gauss-Newton matrix or Hessian, ``(n, n)``.
        weights: the weights under study, ``(n,)``.
        gradient: gradient of the risk, ``(n,)``.
        kept: boolean, ``(n,)``; False: the weight is removed.

    >>> from howsparse.risk import EmpiricalRisk, GGN
    >>> risk = EmpiricalRisk(torch.nn.Linear(2, 2), [(torch.eye(2), torch.tensor([0, 1]))])
    >>> local = adapting(GGN(risk), risk.flat_weights(), risk.gradient(), torch.tensor([True, True, False, True]))
    >>> local.sparsity, local.block.shape
    (0.25, (3, 3))
    """
    step = torch.where(kept, 0, -weights)
    curved = operator @ step
    predicted = dot(gradient, step) + dot(curved, step) / 2
    sparsity = 1 - int(kept.sum()) / kept.numel()
    return Adapting(sparsity, predicted, (gradient + curved)[kept], math.sqrt(dot(step, step)), Block(operator, kept))


def follow(
    local: Adapting, max_products: int, enough: Callable[[Recovery], bool], on_product: Callable[[int], None]
) -> Recovery:
    """Take Lanczos steps on the kept block until the bounds on the loss after adapting are good enough.

    Args:
        local: the local model of one mask.
        max_products: largest number of products, with the one that `adapting` took.
        enough: whether the bounds so far are good enough.
        on_product: called with the number of products so far.

    Returns:
        The bounds after the last step.
    """
    norm, positive = math.sqrt(dot(local.slope, local.slope)), local.block.positive
    low = high = 0.0
    if norm > 0 and local.radius > 0:  # before the first step: the steepest slope without curvature, and no move
        low = -norm * local.radius if positive else -math.inf
    found = Recovery(local.sparsity, local.predicted, local.predicted + low, local.predicted + high, 1)
    on_product(1)
    if low == high or max_products < 2 or enough(found):
        return found
    steps, storage = basis_room(local.slope, max_products - 1, 1)
    run = Lanczos(local.block.__matmul__, local.slope, storage)
    for step in range(1, steps + 1):
        going = run.step()
        low, high = trust_region_bounds(run.tridiagonal, norm, local.radius, positive=positive)
        low, high = max(found.low, local.predicted + low), min(found.high, local.predicted + high)
        found = Recovery(local.sparsity, local.predicted, low, high, step + 1)
        on_product(step + 1)
        if enough(found) or not going:
            break
    return found


def search_recoverable(
    operator: Operator,
    weights: Tensor,
    gradient: Tensor,
    scores: Tensor,
    tolerance: float,
    max_products: int,
    on_product: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[Recovery, ...]:
    """Examine masks of one order, until the bracket of the recoverable sparsity is narrow or the products are used up.

    The search leaves a mask as soon as its bounds show whether it recovers. One mask takes at most half of the
    remaining products. If that is not enough to decide, the mask stays undecided, and the search continues on both
    sides of it.

    Args:
        operator: Gauss-Newton matrix or Hessian, ``(n, n)``.
        weights: the weights under study, ``(n,)``.
        gradient: gradient of the risk, ``(n,)``.
        scores: a score for each weight, ``(n,)``; the weights with the smallest scores are removed first.
        tolerance: allowed loss increase.
        max_products: largest number of products.
        on_product: called with the number of products taken and their largest number.

    Returns:
        The masks that were examined, in order of sparsity.
    """
    points: list[Recovery] = []
    left = max_products
    while left >= 2:
        sparsity = _next_sparsity(points, tolerance, weights.numel())
        if sparsity is None:
            break
        kept = largest(scores, num_kept(sparsity, weights.numel()))
        done = max_products - left
        found = follow(
            adapting(operator, weights, gradient, kept),
            max(2, left // 2),
            lambda point: point.recovers(tolerance) is not None,
            lambda steps, done=done: on_product(done + steps, max_products),  # type: ignore[misc]
        )
        left -= found.products
        points.append(found)
    return tuple(sorted(points, key=lambda point: point.sparsity))


def recovery_bracket(points: Sequence[Recovery], tolerance: float) -> tuple[float, float]:
    """The largest examined sparsity that recovers, and the next one that does not; 0 and 1 where there is none.

    >>> examined = [Recovery(0.5, 1.0, 0.0, 0.1, 3), Recovery(0.9, 5.0, 0.0, 0.3, 9), Recovery(0.95, 8.0, 0.4, 0.6, 4)]
    >>> recovery_bracket(examined, 0.2), recovery_bracket(examined, 0.7)
    ((0.5, 0.95), (0.95, 1.0))
    """
    low = max((point.sparsity for point in points if point.recovers(tolerance)), default=0.0)
    beyond = (point.sparsity for point in points if point.sparsity > low and point.recovers(tolerance) is False)
    return low, min(beyond, default=1.0)


def _next_sparsity(points: Sequence[Recovery], tolerance: float, num_weights: int) -> float | None:
    """The next sparsity to examine, in the wider gap beside the undecided masks; None if both gaps are narrow."""
    low, high = recovery_bracket(points, tolerance)
    between = [point.sparsity for point in points if low < point.sparsity < high]
    gaps = [(low, min(between, default=high)), (max(between, default=low), high)]
    wide = [gap for gap in gaps if not _narrow(*gap, num_weights)]
    if not wide:
        return None
    start, end = max(wide, key=lambda gap: gap[1] - gap[0])
    # Densities are compared by their ratio: between 90 and 99 %, the middle is 97 %.
    least = (1 - start) / _WIDEN**2 if end == 1.0 else 1 - end
    return 1 - math.sqrt((1 - start) * least)


def _narrow(low: float, high: float, num_weights: int) -> bool:
    """Whether two sparsities are so close that no mask between them is examined."""
    return (high - low) * num_weights < 2 or high - low <= min(_PRECISION, _FINER * (1 - low))
