r"""`directional_limit`: the limit with the direction of the removed weights and the gradient in it.

The least loss increase on a random subspace of density p through the pruned weights, which are at d, is

.. math:: g'd + \tfrac12 d'Gd - \tfrac12\, r'(G + \kappa)^{-1}r, \qquad r = g + Gd,

where the spectrum of the curvature G decides the stiffness :math:`\kappa` of the subspace (`subspace_loss`). Two
Lanczos runs bound it from both sides. A run from a random probe bounds :math:`\kappa`. A run from r bounds the last
term, because :math:`1/(\lambda + \kappa)` is completely monotone: the Gauss rule is a lower bound and the Gauss-Radau
rule with a node at 0 is an upper bound, for a matrix without negative eigenvalues and for every :math:`\kappa`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.geometry import Magnitudes, absolute_filter
from howsparse.geometry.spectra import check_tolerance
from howsparse.limit.bracket import RESOLVED_WIDTH, solve_bracket
from howsparse.limit.budget import basis_room
from howsparse.limit.subspace import SubspaceLoss
from howsparse.limit.tolerance import default_tolerance
from howsparse.linalg import Operator, Spectrum, grow_spectrum
from howsparse.progress import Progress, reporting
from howsparse.risk import GGN, EmpiricalRisk
from howsparse.risk.alone import alone
from howsparse.risk.guard import guarded
from howsparse.risk.losses import Loss, SplitLoss, as_loss, cross_entropy
from howsparse.risk.weights import select_weights
from howsparse.shown import Card, Shown

__all__ = ["DirectionalLimit", "check_directional", "directional_limit"]

_PROBED_WEIGHTS = 50_000  # probes are drawn until they have about so many entries: their deviation is then small
_MOST_PROBES = 8
_RESOLUTION = 5e-4  # the search for an end of the bracket stops at this width, in sparsity
_LEAST_PRODUCTS = 64


@dataclass(frozen=True, eq=False)
class DirectionalLimit(Shown):
    """The largest sparsity at which a random subspace through the pruned weights meets the tolerance, as a bracket.

    Attributes:
        tolerance: allowed loss increase.
        low: at this sparsity the subspace meets the tolerance.
        high: at this sparsity it does not; 1 if it always does.
        num_products: number of products with the GGN.
        names: names of the weights under study.
        num_weights: number of weights under study.

    >>> DirectionalLimit(0.05, low=0.90, high=0.92, num_products=60, names=("weight",), num_weights=1000).sparsity
    0.91
    """

    tolerance: float
    low: float
    high: float
    num_products: int
    names: tuple[str, ...] = field(repr=False)
    num_weights: int

    @property
    def sparsity(self) -> float:
        """The middle of the bracket; NaN if the bracket is wider than ten points."""
        return (self.low + self.high) / 2 if self.high - self.low <= RESOLVED_WIDTH else math.nan

    def card(self) -> Card:
        """The limit as a small table.

        Returns:
            The table. It prints as text, and a notebook shows it as HTML.
        """
        rows = (
            ("directional limit", "not resolved" if math.isnan(self.sparsity) else f"{100 * self.sparsity:.1f} %"),
            ("bracket", f"{100 * self.low:.1f} % to {100 * self.high:.1f} %"),
            ("tolerance", f"{self.tolerance:.4g}"),
            ("weights", f"{self.num_weights:,}"),
            ("products", str(self.num_products)),
        )
        return Card("Directional limit", rows)


@alone
@guarded
def directional_limit(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    tolerance: float | None = None,
    loss: Loss = cross_entropy,
    names: Iterable[str] | None = None,
    max_products: int = 800,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress | bool | None = None,
) -> DirectionalLimit:
    r"""The largest sparsity at which a random subspace through the magnitude-pruned weights meets the tolerance.

    Unlike the limit of `pruning_limit`, it contains the direction of the removed weights and the gradient. It is the
    largest sparsity s at which the least loss increase on a random subspace of density 1 - s is within the tolerance.
    The curvature is the GGN, which has no negative eigenvalues. With the negative eigenvalues of a Hessian, the
    quadratic model has no least value. The model is not changed.

    The bracket holds for these data in the quadratic model, with 99 % probability over the probes, up to rounding.

    Args:
        model: any module with linear, convolutional, embedding, attention or recurrent weights.
        batches: training batches, which can be read several times.
        tolerance: allowed loss increase; by default `default_tolerance`.
        loss: a `SplitLoss`, for example `cross_entropy`, because the GGN needs one.
        names: names of the weights under study; by default all prunable weights that are not frozen.
        max_products: largest number of products, at least 64. Half of them are for the spectrum.
        seed: seed of the probes.
        memory: bytes for stored graphs between products; by default a third of the free memory.
        progress: as for `pruning_limit`.

    Returns:
        The limit as a bracket.

    Raises:
        InputError: the model, the data or an option is not valid; see `EmpiricalRisk`.

    Source: docs/theory.md, "With the gradient in it".

    >>> import torch
    >>> examples = torch.eye(8).repeat(32, 1), torch.arange(8).repeat(32)
    >>> found = directional_limit(nn.Linear(8, 8), [examples], tolerance=0.05)
    >>> 0 < found.low <= found.high <= 1
    True
    """
    check_tolerance(tolerance)
    check_directional(model, loss, max_products)
    risk = EmpiricalRisk(model, batches, loss, select_weights(model, names))
    matrix = GGN(risk, memory)
    allowed = default_tolerance(risk)[0] if tolerance is None else tolerance
    weights = risk.flat_weights()
    with reporting(progress) as report:

        def on_product() -> None:
            report("directional limit", matrix.num_products, max_products)

        spectrum = _resolved_spectrum(matrix, weights, allowed, max_products // 2, seed, on_product)
        model_loss = SubspaceLoss(matrix, weights, risk.gradient(), spectrum, allowed, max_products, on_product)
        low, high = _search(model_loss.interval, allowed, weights.numel())
    return DirectionalLimit(allowed, low, high, matrix.num_products, tuple(risk.names), weights.numel())


def check_directional(model: nn.Module, loss: Loss, max_products: int) -> None:
    """Check the arguments of `directional_limit` before any work.

    Args:
        model, loss, max_products: as for `directional_limit`.

    Raises:
        InputError: the loss has not two parts, or the products are too few.
    """
    if max_products < _LEAST_PRODUCTS:
        raise InputError(
            f"max_products {max_products} is too few for a directional limit; use at least {_LEAST_PRODUCTS}"
        )
    if not isinstance(as_loss(loss, model), SplitLoss):
        raise InputError("the directional limit needs the GGN, and so a loss of two parts; give a howsparse SplitLoss")


def _resolved_spectrum(
    matrix: Operator, weights: Tensor, tolerance: float, products: int, seed: int, on_product: Callable[[], None]
) -> Spectrum:
    """The spectrum, with as many steps as make the bracket narrower; the rest of its width comes from the probes."""
    probes = min(_MOST_PROBES, max(1, round(_PROBED_WEIGHTS / weights.numel())), max(1, (products - 1) // 16))
    magnitudes = Magnitudes(weights.cpu().numpy())
    steps, storage = basis_room(weights, (products - 1) // probes, probes)
    for spectrum in grow_spectrum(matrix, weights, probes=probes, seed=seed, storage=storage):
        on_product()
        if spectrum.num_steps >= steps:
            break
        if spectrum.num_steps % 8 == 0:
            bracket = solve_bracket(spectrum, magnitudes, tolerance, absolute_filter, search=False)
            if bracket.quadrature < max(_RESOLUTION / 2, bracket.probe / 5):
                break
    return spectrum


def _search(
    interval: Callable[[int], tuple[float, float] | None], tolerance: float, num_weights: int
) -> tuple[float, float]:
    """The largest sparsity that surely meets the tolerance, and the smallest that surely does not."""
    seen = {0: (-math.inf, 0.0)}  # with no weight removed, the loss does not rise

    def narrow(low: int, high: int, met: Callable[[tuple[float, float]], bool], end: int) -> tuple[int, int]:
        while high - low > max(1, _RESOLUTION * num_weights):
            at = _between(low, high, seen, tolerance, end)
            found = seen[at] if at in seen else interval(at)
            if found is None:
                break
            seen[at] = found
            low, high = (at, high) if met(found) else (low, at)
        return low, high

    last = num_weights - 1
    found = interval(last)
    if found is not None:
        seen[last] = found
        if found[1] <= tolerance:
            return 1.0, 1.0
    met, _ = narrow(0, num_weights, lambda bounds: bounds[1] <= tolerance, end=1)
    above = min([n for n, bounds in seen.items() if bounds[0] > tolerance and n > met], default=num_weights)
    _, failed = narrow(met, above, lambda bounds: bounds[0] <= tolerance, end=0)
    return met / num_weights, failed / num_weights


def _between(low: int, high: int, seen: dict[int, tuple[float, float]], tolerance: float, end: int) -> int:
    """The next sparsity: where a straight line between two bounds meets the tolerance, kept away from both ends."""
    share = 0.5
    if low in seen and high in seen:
        rise, least = seen[high][end] - seen[low][end], tolerance - seen[low][end]
        if math.isfinite(rise) and rise > 0:
            share = min(max(least / rise, 0.2), 0.8)
    return min(high - 1, max(low + 1, round(low + share * (high - low))))
