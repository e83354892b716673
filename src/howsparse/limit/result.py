"""`PruningLimit`, the result of `pruning_limit`: the limit with its bracket, upper bound and prediction."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from howsparse.errors import UnsuitableNetwork
from howsparse.files import load_document, save_document
from howsparse.geometry import Magnitudes
from howsparse.limit.bounds import Bounds
from howsparse.limit.bracket import RESOLVED_WIDTH, Bracket, solve_bracket
from howsparse.limit.layers import LayerCost
from howsparse.limit.levels import Sampling
from howsparse.limit.options import FILTERS, LEAST_PRODUCTS, Curvature, Negative
from howsparse.limit.outlook import Look, Outlook, history, outlook_after
from howsparse.limit.predict import failure, num_kept, rise_holds
from howsparse.limit.prediction import LossCurve
from howsparse.limit.saved import pack, unpack
from howsparse.limit.summary import LimitSummary, limit_card, summarized
from howsparse.limit.views import Reported
from howsparse.linalg import Spectrum
from howsparse.pruning.masks import Mask, largest_mask
from howsparse.shown import Card
from howsparse.store import Kind

__all__ = ["LIMIT", "LimitSummary", "PruningLimit"]

_VERSION = 1


@dataclass(frozen=True, eq=False)
class PruningLimit(Bounds, Reported):
    """How sparse a network can be pruned, with the spectrum from which this was computed.

    Attributes:
        tolerance: allowed loss increase, the paper's epsilon.
        curvature: "hessian" or "ggn".
        negative: how negative curvature counts: "wall" (the paper's absolute value) or "unbounded".
        names: names of the weights under study.
        errors: the bracket and its half-widths: quadrature, probe and data.
        num_products: number of curvature products; a product over a part of the data counts as that part.
        stopped: why the computation stopped: "precision" (the bracket is as narrow as requested), "probe" (more probes
            would make it narrower, more steps would not), "max_products", "memory" or "exact".
        spectrum: spectrum of the curvature.
        removed_spectrum: spectrum of the block of removed weights, for the upper bound; None after `at`.
        magnitudes: magnitudes of the weights under study.
        losses: predicted loss increase of magnitude masks at every sparsity.
        random_losses: mean predicted loss increase of random masks at every sparsity.
        sampling: spectra over other samples, for the step to the population; None if the batches are all the data.
        rank_bound: largest possible number of nonzero eigenvalues of the GGN; None for the Hessian.
        checked_rise: measured loss increase of the mask at `predicted`, on the same batches; None if it was not
            measured, as after `at` with another tolerance.
        layers: sparsity and predicted cost of each layer in the mask at `predicted`; empty if they were not computed.
        seconds_per_product: measured time of one product; None if it was not measured.
        recoverable: two sparsities between which the predicted loss meets the tolerance once the kept weights have
            adapted, as in `howsparse.recoverable`; None if this was not computed, as after `at` with another tolerance.

    >>> import torch
    >>> from howsparse import pruning_limit
    >>> data = [(torch.eye(8).repeat(32, 1), torch.arange(8).repeat(32))]
    >>> found = pruning_limit(nn.Linear(8, 8), data, tolerance=0.05, max_products=64)
    >>> low, high = found.bracket
    >>> 0 <= low <= high <= 1, found.num_weights
    (True, 64)
    """

    tolerance: float
    curvature: Curvature
    negative: Negative
    names: tuple[str, ...] = field(repr=False)
    errors: Bracket
    num_products: int
    stopped: str
    spectrum: Spectrum = field(repr=False)
    removed_spectrum: Spectrum | None = field(repr=False)
    magnitudes: Magnitudes = field(repr=False)
    losses: LossCurve = field(repr=False)
    random_losses: LossCurve = field(repr=False)
    sampling: Sampling | None = field(repr=False, default=None)
    rank_bound: int | None = None
    checked_rise: float | None = None
    layers: tuple[LayerCost, ...] = field(repr=False, default=())
    seconds_per_product: float | None = field(repr=False, default=None)
    recoverable: tuple[float, float] | None = None

    def resolved_sparsity(self) -> float:
        """`sparsity`, for callers that need a number.

        Returns:
            A fraction in [0, 1].

        Raises:
            InputError: the bracket is not `resolved`.
        """
        if not self.resolved:
            more = self.outlook()
            advice = "a larger max_products" + (f": {more}" if more else "")
            if self.stopped == "probe":  # then more products of the same probes change nothing
                advice = "probes={} with max_products={}".format(*self.more_probes())
            raise UnsuitableNetwork(
                f"the limit is not resolved, its bracket is {self.errors}; use the measured sparsity, or {advice}"
            )
        return self.sparsity

    def more_probes(self) -> tuple[int, int]:
        """The options that halve the probe's part of the bracket: four times the probes and four times the products.

        Returns:
            ``probes`` and ``max_products`` for `LimitOptions`.
        """
        probes = 4 * len(self.spectrum.tridiagonals)
        return probes, max(4 * self.num_products, LEAST_PRODUCTS * probes)

    def history(self) -> tuple[Look, ...]:
        """The part of the bracket's width that comes from the number of steps, after numbers that grow by an eighth.

        Returns:
            The number of steps and the width, for each look.
        """
        return history(self._width_after, self.spectrum.num_steps)

    def outlook(self) -> Outlook | None:
        """The estimated bracket after more products: enough to resolve it; twice as many if that is far off or reached.

        Returns:
            An estimate that continues `history`; None if there is no basis for one, or if products do not help:
            the spectrum is exact, memory is full, or the probe or the data make the bracket as wide as it is.
        """
        if self.stopped in ("exact", "memory", "probe"):
            return None
        steps, probes = self.spectrum.num_steps, len(self.spectrum.tridiagonals)
        fixed = max(0.0, self.errors.width - 2 * self.errors.quadrature)
        wanted = None if self.resolved else RESOLVED_WIDTH
        return outlook_after(self._width_after, steps, fixed, wanted, probes, self.seconds_per_product)

    @property
    def predicted(self) -> float:
        """Largest sparsity whose magnitude mask has a predicted increase g'd + 1/2 d'Hd of at most the tolerance."""
        return self.losses.largest_within(self.tolerance)

    @property
    def prediction_holds(self) -> bool | None:
        """Whether the mask at `predicted` raises the measured loss by at most two tolerances; None if not checked.

        Two tolerances are allowed because a quadratic model is exact only for small changes, and the loss rises
        steeply.
        """
        return None if self.checked_rise is None else rise_holds(self.checked_rise, self.tolerance)

    @property
    def prediction_above_limit(self) -> bool:
        """Whether the prediction is above the limit's bracket.

        The prediction may still hold, because the limit is about random subspaces and a gradient of zero. A network
        that was trained with l1 has a gradient along which the removal of weights lowers the loss.
        """
        return self.predicted > self.errors.high

    def checked_prediction(self) -> float:
        """`predicted`, for callers that rely on it.

        Returns:
            A fraction in [0, 1].

        Raises:
            InputError: the prediction failed. A prediction that was not checked is returned.
        """
        if self.prediction_holds is False:
            assert self.checked_rise is not None
            raise UnsuitableNetwork(failure(self.checked_rise, self.tolerance))
        return self.predicted

    def at(self, *, tolerance: float | None = None, negative: Negative | None = None) -> "PruningLimit":
        """Compute the limit for another ``tolerance`` or ``negative`` from the same spectrum, without new products.

        The result has no upper bound, because that needs products with the block of weights that the new limit removes.
        If the tolerance is another one, its prediction is not checked, and ``recoverable`` is None.

        Args:
            tolerance: allowed loss increase; by default that of this limit.
            negative: how negative curvature counts; by default as in this limit.

        Returns:
            The other limit; this one if nothing changes.

        Raises:
            InputError: the tolerance is not positive.
        """
        tolerance = self.tolerance if tolerance is None else tolerance
        negative = self.negative if negative is None else negative
        if (tolerance, negative) == (self.tolerance, self.negative):
            return self
        errors = solve_bracket(self.spectrum, self.magnitudes, tolerance, FILTERS[negative], self.sampling)
        known: dict[str, Any] = {} if tolerance == self.tolerance else {"checked_rise": None, "recoverable": None}
        return replace(self, tolerance=tolerance, negative=negative, errors=errors, removed_spectrum=None, **known)

    def mask(self, model: nn.Module, sparsity: float | None = None) -> Mask:
        """The magnitude mask over the weights under study; other weights are not pruned.

        Args:
            model: the model for which the limit was computed.
            sparsity: fraction of these weights to remove, in [0, 1]; by default `predicted`. At least one weight stays.

        Returns:
            The mask, with True for each weight that stays.

        Raises:
            InputError: no sparsity is given and the prediction failed; the sparsity is outside [0, 1], or it is that of
                a limit that is not resolved; the model does not have these weights.
        """
        if sparsity is None:
            sparsity = self.checked_prediction()
        elif math.isnan(sparsity) and not self.resolved:
            sparsity = self.resolved_sparsity()
        return largest_mask(model, num_kept(sparsity, self.num_weights), self.names)

    def summary(self) -> LimitSummary:
        """The limit's numbers without the spectra.

        Returns:
            The numbers, as in records and in ``--json``.
        """
        return summarized(self)

    def card(self) -> Card:
        """The limit as a small table.

        Returns:
            The table. It prints as text, and a notebook shows it as HTML.
        """
        return limit_card(self.summary(), self.outlook())

    def _width_after(self, steps: int) -> float:
        """The part of the bracket's width that comes from the number of steps, after ``steps`` steps."""
        spectrum = self.spectrum.first(steps)
        errors = solve_bracket(spectrum, self.magnitudes, self.tolerance, FILTERS[self.negative])
        return 2 * errors.quadrature

    def save(self, path: str | Path) -> None:
        """Write the limit to one safetensors file with a JSON header. An interrupted call leaves no partial file.

        Args:
            path: path of the file; an existing file is replaced.
        """
        save_document(path, "limit", _VERSION, *pack(self))

    @classmethod
    def load(cls, path: str | Path) -> "PruningLimit":
        """Read a file that `save` wrote.

        Args:
            path: path of the file that `save` wrote.

        Returns:
            The limit that was saved.

        Raises:
            InputError: the file does not exist, has other contents, or is damaged.
        """
        fields, tensors = load_document(path, "limit", _VERSION)
        return cls(**unpack(fields, tensors))


LIMIT = Kind("limit", _VERSION, pack, lambda fields, tensors: PruningLimit(**unpack(fields, tensors)))
