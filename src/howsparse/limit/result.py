"""`PruningLimit`, the result of `pruning_limit`: the limit with its bracket, upper bound and prediction."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.files import load_document, save_document
from howsparse.geometry import Magnitudes, curvature_scale, existence_density
from howsparse.limit.bracket import Bracket, Sampling, solve_bracket
from howsparse.limit.options import FILTERS, Curvature, Negative
from howsparse.limit.prediction import LossCurve
from howsparse.limit.summary import LimitSummary
from howsparse.linalg import Rule, Spectrum, Tridiagonal
from howsparse.pruning.masks import Mask, check_sparsity, largest_mask
from howsparse.store import Kind

__all__ = ["LIMIT", "LimitSummary", "PruningLimit"]

_VERSION = 1


@dataclass(frozen=True, eq=False)
class PruningLimit:
    """How sparse a network can be pruned, with the spectrum from which this was computed.

    Attributes:
        tolerance: allowed loss increase, the paper's epsilon.
        curvature: "hessian" or "ggn".
        negative: how negative curvature counts: "wall" (the paper's absolute value) or "unbounded".
        names: names of the weights under study.
        errors: the bracket and its half-widths: quadrature, probe and data.
        num_products: number of curvature products; a product over half of the data counts as half.
        stopped: why the computation stopped: "precision" (the bracket is as narrow as requested), "probe" (more probes
            would make it narrower, more steps would not), "max_products", "memory" or "exact".
        spectrum: spectrum of the curvature.
        removed_spectrum: spectrum of the block of removed weights, for the upper bound; None after `at`.
        magnitudes: magnitudes of the weights under study.
        losses: predicted loss increase of magnitude masks at every sparsity.
        random_losses: mean predicted loss increase of random masks at every sparsity.
        sampling: the half sample's spectrum, for the data error; None if the batches are all the data.
        rank_bound: largest possible number of nonzero eigenvalues of the GGN; None for the Hessian.
    """

    tolerance: float
    curvature: Curvature
    negative: Negative
    names: tuple[str, ...]
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

    @property
    def num_weights(self) -> int:
        """Number of weights under study."""
        return self.magnitudes.num_weights

    @property
    def bracket(self) -> tuple[float, float]:
        """Lower and upper end of the interval that contains `sparsity`."""
        return self.errors.low, self.errors.high

    @property
    def sparsity(self) -> float:
        """1 - T at its fixed point (Corollary 1): the middle of the bracket.

        At a larger sparsity, a random subspace does not meet the sublevel set of the loss.
        """
        return sum(self.bracket) / 2

    @property
    def predicted(self) -> float:
        """Largest sparsity whose magnitude mask has a predicted increase g'd + 1/2 d'Hd of at most the tolerance."""
        return self.losses.largest_within(self.tolerance)

    @property
    def radius(self) -> float:
        """Norm of the weights removed at the limit, the paper's projection distance R."""
        return self.magnitudes.radius(1 - self.sparsity)

    @property
    def scale(self) -> float:
        """The scale 2 tolerance / radius^2, in loss per squared weight; infinite if no weight is removed."""
        return curvature_scale(self.tolerance, self.radius)

    @property
    def effective_dimension(self) -> float:
        """Effective dimension at the limit: the density T times the number of weights."""
        return (1 - self.sparsity) * self.num_weights

    @property
    def upper_bound(self) -> float:
        """1 - U at the limit (Eq. 19): the middle of `upper_bracket`. According to the paper, a solution exists there.

        Raises:
            InputError: as for `upper_bracket`.
        """
        return sum(self.upper_bracket) / 2

    @property
    def upper_bracket(self) -> tuple[float, float]:
        """Lower and upper end of the interval that contains 1 - U at this limit, for the probe that was drawn.

        Raises:
            InputError: `at` computed this limit, so there are no products with its block of removed weights.
        """
        if self.removed_spectrum is None:
            raise InputError(
                "a limit from at() has no upper bound, which needs products of its own;"
                " call pruning_limit with this tolerance and negative"
            )
        scale, density, factor = self.scale, 1 - self.sparsity, FILTERS[self.negative]

        def existence(rule: Rule) -> float:
            return existence_density(rule.nodes, scale, density, rule.masses, factor)

        low = existence(self.removed_spectrum.lowest())
        high = existence(self.removed_spectrum.highest(lambda x: factor(x, scale)))
        # The block's singular values are at most those of the whole matrix, so U is at most 2 T.
        return 1 - min(high, 2 * density), 1 - low

    @property
    def larsen_interval(self) -> tuple[float, float]:
        """Larsen et al.'s interval as sparsities, each end at its own fixed point; the paper uses the upper end."""
        low = solve_bracket(
            self.spectrum, self.magnitudes, self.tolerance, FILTERS[self.negative], width_factor=math.sqrt(2 / math.pi)
        )
        return (low.low + low.high) / 2, self.sparsity

    def at(self, *, tolerance: float | None = None, negative: Negative | None = None) -> "PruningLimit":
        """Compute the limit for another ``tolerance`` or ``negative`` from the same spectrum, without new products.

        The result has no upper bound, because that needs products with the block of weights that the new limit removes.
        """
        tolerance = self.tolerance if tolerance is None else tolerance
        negative = self.negative if negative is None else negative
        if (tolerance, negative) == (self.tolerance, self.negative):
            return self
        errors = solve_bracket(self.spectrum, self.magnitudes, tolerance, FILTERS[negative], self.sampling)
        return replace(self, tolerance=tolerance, negative=negative, errors=errors, removed_spectrum=None)

    def mask(self, model: nn.Module, sparsity: float | None = None) -> Mask:
        """The magnitude mask over the weights under study; other weights are not pruned.

        Args:
            model: the model for which the limit was computed.
            sparsity: fraction of these weights to remove, in [0, 1]; by default `predicted`. At least one weight stays.

        Raises:
            InputError: the sparsity is outside [0, 1], or the model does not have these weights.
        """
        sparsity = self.predicted if sparsity is None else sparsity
        count = 1 if sparsity == 1 else round((1 - check_sparsity(sparsity)) * self.num_weights)
        return largest_mask(model, max(1, count), self.names)

    def summary(self) -> LimitSummary:
        """The limit's numbers without the spectra."""
        upper = (None, None) if self.removed_spectrum is None else self.upper_bracket
        return LimitSummary(
            limit=self.sparsity,
            limit_low=self.errors.low,
            limit_high=self.errors.high,
            predicted=self.predicted,
            products=self.num_products,
            upper_bound=None if self.removed_spectrum is None else self.upper_bound,
            upper_low=upper[0],
            upper_high=upper[1],
            num_weights=self.num_weights,
            tolerance=self.tolerance,
            curvature=self.curvature,
            negative=self.negative,
            error_quadrature=self.errors.quadrature,
            error_probe=self.errors.probe,
            error_data=self.errors.data,
            stopped=self.stopped,
            rank_bound=self.rank_bound,
            radius=self.radius,
            scale=self.scale if self.radius else None,
            effective_dimension=self.effective_dimension,
        )

    def save(self, path: str | Path) -> None:
        """Write the limit to one safetensors file with a JSON header. An interrupted call leaves no partial file."""
        plain = ("tolerance", "curvature", "negative", "names", "num_products", "stopped", "rank_bound")
        fields: dict[str, Any] = {name: getattr(self, name) for name in plain} | {"errors": asdict(self.errors)}
        tensors = {"magnitudes": torch.from_numpy(self.magnitudes.sizes)}
        for name, curve in (("losses", self.losses), ("random_losses", self.random_losses)):
            tensors[f"{name}.sparsities"] = torch.from_numpy(curve.sparsities)
            tensors[f"{name}.increases"] = torch.from_numpy(curve.increases)
        spectra = {"spectrum": self.spectrum, "removed_spectrum": self.removed_spectrum}
        if self.sampling is not None:
            spectra["half"] = self.sampling.half
            fields["doublings"], fields["tolerance_error"] = self.sampling.doublings, self.sampling.tolerance_error
        for name, spectrum in spectra.items():
            if spectrum is not None:
                fields[name] = _write_spectrum(name, spectrum, tensors)
        save_document(path, "limit", _VERSION, fields, tensors)

    @classmethod
    def load(cls, path: str | Path) -> "PruningLimit":
        """Read a file that `save` wrote.

        Raises:
            InputError: the file does not exist, has other contents, or is damaged.
        """
        fields, tensors = load_document(path, "limit", _VERSION)
        sampling = None
        if "half" in fields:
            half = _read_spectrum("half", fields["half"], tensors)
            sampling = Sampling(half, fields["doublings"], fields["tolerance_error"])
        removed = fields.get("removed_spectrum")
        return cls(
            tolerance=fields["tolerance"],
            curvature=fields["curvature"],
            negative=fields["negative"],
            names=tuple(fields["names"]),
            errors=Bracket(**fields["errors"]),
            num_products=fields["num_products"],
            stopped=fields["stopped"],
            spectrum=_read_spectrum("spectrum", fields["spectrum"], tensors),
            removed_spectrum=None if removed is None else _read_spectrum("removed_spectrum", removed, tensors),
            magnitudes=Magnitudes(tensors["magnitudes"].numpy()),
            losses=_read_curve("losses", tensors),
            random_losses=_read_curve("random_losses", tensors),
            sampling=sampling,
            rank_bound=fields["rank_bound"],
        )


LIMIT = Kind("limit", _VERSION, PruningLimit.save, PruningLimit.load)


def _write_spectrum(name: str, spectrum: Spectrum, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Add a spectrum's coefficients to ``tensors``; return its other fields."""
    for i, tridiagonal in enumerate(spectrum.tridiagonals):
        both = np.stack([tridiagonal.diagonal, tridiagonal.off_diagonal])
        tensors[f"{name}.{i}"] = torch.from_numpy(both)
    return {
        "probes": len(spectrum.tridiagonals),
        "size": spectrum.size,
        "num_zero": spectrum.num_zero,
        "positive": spectrum.positive,
    }


def _read_spectrum(name: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Spectrum:
    found = (tensors[f"{name}.{i}"].numpy() for i in range(about["probes"]))
    return Spectrum(tuple(Tridiagonal(*both) for both in found), about["size"], about["num_zero"], about["positive"])


def _read_curve(name: str, tensors: Mapping[str, Tensor]) -> LossCurve:
    return LossCurve(tensors[f"{name}.sparsities"].numpy(), tensors[f"{name}.increases"].numpy())
