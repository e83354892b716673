"""`LimitSummary`, the numbers of a limit without its spectra."""

from dataclasses import dataclass

from howsparse.limit.options import Curvature, Negative

__all__ = ["LimitSummary"]


@dataclass(frozen=True)
class LimitSummary:
    """The numbers of a limit, as in records and in ``--json``. Sparsities are fractions.

    A field is None if a record of an earlier version does not contain it.

    Attributes:
        limit, limit_low, limit_high: 1 - T at its fixed point: the middle and the ends of its bracket.
        predicted: largest sparsity whose magnitude mask has a predicted loss increase of at most the tolerance.
        products: number of curvature products.
        upper_bound, upper_low, upper_high: 1 - U at the limit: the middle and the ends of its bracket.
        num_weights: number of weights under study.
        tolerance: allowed loss increase.
        curvature, negative: as in `LimitOptions`.
        error_quadrature, error_probe, error_data: half-widths of the bracket, as in `Bracket`.
        stopped: why the computation stopped, as in `PruningLimit`.
        rank_bound: largest possible rank of the Gauss-Newton matrix of these data; None for the Hessian.
        radius: norm of the weights removed at the limit.
        scale: 2 tolerance / radius^2.
        effective_dimension: effective dimension at the limit.
    """

    limit: float
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
    stopped: str | None = None
    rank_bound: int | None = None
    radius: float | None = None
    scale: float | None = None
    effective_dimension: float | None = None
