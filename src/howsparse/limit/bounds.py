"""The bounds T and U of the paper, as sparsities with brackets, and the quantities that belong to them."""

import math

from howsparse.errors import InputError
from howsparse.geometry import Magnitudes, curvature_scale
from howsparse.limit.bracket import RESOLVED_WIDTH, Bracket, existence_bracket, solve_bracket
from howsparse.limit.options import FILTERS, Negative
from howsparse.linalg import Spectrum

__all__ = ["Bounds"]


class Bounds:
    """The properties of `PruningLimit` that follow from a solved bracket."""

    tolerance: float
    negative: Negative
    errors: Bracket
    spectrum: Spectrum
    removed_spectrum: Spectrum | None
    magnitudes: Magnitudes

    @property
    def num_weights(self) -> int:
        """Number of weights under study."""
        return self.magnitudes.num_weights

    @property
    def bracket(self) -> tuple[float, float]:
        """Lower and upper end of the interval that contains the limit."""
        return self.errors.low, self.errors.high

    @property
    def resolved(self) -> bool:
        """Whether the bracket is at most ten points wide. If it is wider, no single number is given for the limit."""
        return self.errors.resolved

    @property
    def sparsity(self) -> float:
        """1 - T at its fixed point (Corollary 1): the middle of the bracket; NaN if the bracket is not `resolved`.

        At a larger sparsity, a random subspace does not meet the sublevel set of the loss.
        """
        return self.errors.estimate

    @property
    def radius(self) -> float:
        """Norm of the weights removed at the limit, the paper's projection distance R; NaN if it is not `resolved`."""
        return self.magnitudes.radius(1 - self.sparsity) if self.resolved else math.nan

    @property
    def scale(self) -> float:
        """The scale 2 tolerance / radius^2, in loss per squared weight; infinite if no weight is removed.

        It is NaN if the limit is not `resolved`.
        """
        return curvature_scale(self.tolerance, self.radius) if self.resolved else math.nan

    @property
    def effective_dimension(self) -> float:
        """Effective dimension at the limit: the density T times the number of weights; NaN if it is not `resolved`."""
        return (1 - self.sparsity) * self.num_weights

    @property
    def upper_bound(self) -> float:
        """1 - U at the limit (Eq. 19): the middle of `upper_bracket`. According to the paper, a solution exists there.

        It is NaN if that bracket is more than ten points wide, or if its lower end is only 1 - 2 T, which always holds.

        Raises:
            InputError: as for `upper_bracket`.
        """
        low, high = self.upper_bracket
        found = low > 1 - 2 * (1 - self.sparsity) and high - low <= RESOLVED_WIDTH
        return (low + high) / 2 if found else math.nan

    @property
    def upper_bracket(self) -> tuple[float, float]:
        """Lower and upper end of the interval that contains 1 - U at this limit, for the probe that was drawn.

        Both are NaN if the limit is not `resolved`.

        Raises:
            InputError: `at` computed this limit, so there are no products with its block of removed weights.
        """
        if self.removed_spectrum is None:
            raise InputError(
                "a limit from at() has no upper bound, which needs products of its own;"
                " call pruning_limit with this tolerance and negative"
            )
        if not self.resolved:
            return math.nan, math.nan
        return existence_bracket(self.removed_spectrum, self.scale, 1 - self.sparsity, FILTERS[self.negative])

    @property
    def larsen_interval(self) -> tuple[float, float]:
        """Larsen et al.'s interval as sparsities, each end at its own fixed point; the paper uses the upper end.

        Both ends are NaN if the limit is not `resolved`.
        """
        if not self.resolved:
            return math.nan, math.nan
        low = solve_bracket(
            self.spectrum, self.magnitudes, self.tolerance, FILTERS[self.negative], width_factor=math.sqrt(2 / math.pi)
        )
        return (low.low + low.high) / 2, self.sparsity
