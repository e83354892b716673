"""`LimitSummary`, the numbers of a limit without its spectra, and the table that shows them."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from howsparse.limit.options import Curvature, Negative
from howsparse.limit.outlook import Outlook
from howsparse.limit.predict import verdict
from howsparse.shown import Card

if TYPE_CHECKING:
    from howsparse.limit.result import PruningLimit

__all__ = ["LimitSummary", "limit_card", "summarized", "with_error"]


@dataclass(frozen=True)
class LimitSummary:
    """The numbers of a limit, as in records and in ``--json``. Sparsities are fractions.

    A field is None if a record of an earlier version does not contain it.

    Attributes:
        limit, limit_low, limit_high: 1 - T at its fixed point: the middle and the ends of its bracket. The middle is
            None if the bracket is not resolved.
        predicted: largest sparsity whose magnitude mask has a predicted loss increase of at most the tolerance.
        products: number of curvature products.
        upper_bound, upper_low, upper_high: 1 - U at the limit: the middle and the ends of its bracket; None if the
            limit is not resolved. The middle is also None if `PruningLimit.upper_bound` is NaN.
        num_weights: number of weights under study.
        tolerance: allowed loss increase.
        curvature, negative: as in `LimitOptions`.
        error_quadrature, error_probe, error_data, error_rounding: half-widths of the bracket, as in `Bracket`.
        typical_error: the error of the middle that nine of ten small networks with known spectra stay below; None if
            the bracket is not resolved.
        stopped: why the computation stopped, as in `PruningLimit`.
        rank_bound: largest possible rank of the Gauss-Newton matrix of these data; None for the Hessian.
        radius: norm of the weights removed at the limit.
        scale: 2 tolerance / radius^2.
        effective_dimension: effective dimension at the limit.
        resolved: whether the bracket is at most ten points wide.
        predicted_rise: measured loss increase of the predicted mask.
        predicted_holds: whether the prediction held when its mask was measured, as in `PruningLimit`.
        predicted_above_limit: whether the prediction is above the limit's bracket.
        recoverable_low, recoverable_high: the bracket of the sparsity that is predicted to be recoverable, as in
            `PruningLimit`.
    """

    limit: float | None
    limit_low: float
    limit_high: float
    predicted: float
    products: int
    upper_bound: float | None = None
    upper_low: float | None = None
    upper_high: float | None = None
    num_weights: int | None = None
    tolerance: float | None = None
    curvature: Curvature | None = None
    negative: Negative | None = None
    error_quadrature: float | None = None
    error_probe: float | None = None
    error_data: float | None = None
    error_rounding: float | None = None
    typical_error: float | None = None
    stopped: str | None = None
    rank_bound: int | None = None
    radius: float | None = None
    scale: float | None = None
    effective_dimension: float | None = None
    resolved: bool | None = None
    predicted_rise: float | None = None
    predicted_holds: bool | None = None
    predicted_above_limit: bool | None = None
    recoverable_low: float | None = None
    recoverable_high: float | None = None


def summarized(limit: "PruningLimit") -> LimitSummary:
    """The numbers of a limit. If the bracket is not resolved, the numbers that need it are None."""
    known = limit.resolved and limit.removed_spectrum is not None
    upper = limit.upper_bracket if known else (None, None)
    upper_bound = limit.upper_bound if known else math.nan
    return LimitSummary(
        limit=limit.sparsity if limit.resolved else None,
        limit_low=limit.errors.low,
        limit_high=limit.errors.high,
        predicted=limit.predicted,
        products=limit.num_products,
        upper_bound=None if math.isnan(upper_bound) else upper_bound,
        upper_low=upper[0],
        upper_high=upper[1],
        num_weights=limit.num_weights,
        tolerance=limit.tolerance,
        curvature=limit.curvature,
        negative=limit.negative,
        error_quadrature=limit.errors.quadrature,
        error_probe=limit.errors.probe,
        error_data=limit.errors.data,
        error_rounding=limit.errors.rounding,
        typical_error=limit.errors.typical_error if limit.resolved else None,
        stopped=limit.stopped,
        rank_bound=limit.rank_bound,
        radius=limit.radius if limit.resolved else None,
        scale=limit.scale if limit.resolved and limit.radius else None,
        effective_dimension=limit.effective_dimension if limit.resolved else None,
        resolved=limit.resolved,
        predicted_rise=limit.checked_rise,
        predicted_holds=limit.prediction_holds,
        predicted_above_limit=limit.prediction_above_limit,
        recoverable_low=None if limit.recoverable is None else limit.recoverable[0],
        recoverable_high=None if limit.recoverable is None else limit.recoverable[1],
    )


def limit_card(answer: LimitSummary, outlook: Outlook | None = None) -> Card:
    """The table that a limit prints.

    Args:
        answer: the limit's numbers.
        outlook: what more products would give, shown if the limit is not resolved.

    >>> answer = LimitSummary(None, 0.3, 0.99, 0.89, 48, predicted_rise=0.12, tolerance=0.02)
    >>> print(limit_card(answer))
    Pruning limit
      limit      not resolved: a bracket of 30.0 % to 99.0 %
      predicted  89.0 %, FAILED: its mask raises the loss by 6.0 tolerances
      tolerance  0.02
      products   48
    >>> print(limit_card(LimitSummary(0.9816, 0.979, 0.984, 0.985, 300, typical_error=0.00021)))
    Pruning limit
      limit      98.16 %, typical error 0.02, bracket 97.9 % to 98.4 %
      predicted  98.5 %, not checked
      products   300
    """
    bracket = f"{_percent(answer.limit_low)} to {_percent(answer.limit_high)}"
    limit = f"not resolved: a bracket of {bracket}"
    if answer.limit is not None:
        limit = f"{with_error(answer.limit, answer.typical_error)}, bracket {bracket}"
    checked = verdict(answer.predicted_rise, answer.tolerance or 1.0, answer.predicted_above_limit)
    rows = [("limit", limit), ("predicted", f"{_percent(answer.predicted)}, {checked}")]
    if answer.recoverable_low is not None and answer.recoverable_high is not None:
        between = f"{_percent(answer.recoverable_low)} to {_percent(answer.recoverable_high)}"
        rows.append(("recoverable", f"{between}, if the kept weights adapt (predicted)"))
    if answer.upper_bound is not None:
        rows.append(("upper bound", _percent(answer.upper_bound)))
    elif answer.upper_low is not None and answer.upper_high is not None:
        rows.append(("upper bound", f"{_percent(answer.upper_low)} to {_percent(answer.upper_high)}"))
    if answer.tolerance is not None:
        rows.append(("tolerance", f"{answer.tolerance:.4g}"))
    if answer.num_weights is not None:
        rows.append(("weights", f"{answer.num_weights:,}"))
    rows.append(("products", str(answer.products)))
    notes = (str(outlook),) if outlook is not None and answer.limit is None else ()
    return Card("Pruning limit", tuple(rows), notes)


def with_error(limit: float, error: float | None) -> str:
    """The limit, rounded to the precision of its typical error, and this error in points.

    Args:
        limit: the limit, as a sparsity.
        error: its typical error; None if it is not known.

    >>> with_error(0.98163, 0.0002), with_error(0.98163, 0.002), with_error(0.98163, None)
    ('98.16 %, typical error 0.02', '98.2 %, typical error 0.2', '98.2 %')
    """
    if error is None:
        return _percent(limit)
    digits = 1 if error >= 0.0005 else 2
    return f"{100 * limit:.{digits}f} %, typical error {max(100 * error, 0.01):.{digits}f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
