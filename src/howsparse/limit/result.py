"""The answer of `pruning_limit`: a limit with its bracket, upper bound and prediction, saved and loaded as one file."""

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
from howsparse.linalg import Rule, Spectrum, Tridiagonal
from howsparse.pruning.masks import Mask, check_sparsity, largest_mask
from howsparse.store import Kind

__all__ = ["LIMIT", "LimitSummary", "PruningLimit"]

_VERSION = 1


@dataclass(frozen=True)
class LimitSummary:
    """The numbers of a limit, as records and ``--json`` hold them; sparsities as fractions.

    What a record of an earlier version does not tell is None.

    Attributes:
        limit, limit_low, limit_high: 1 - T at its fixed point, the middle and the ends of its bracket.
        predicted: largest sparsity whose magnitude mask is predicted to keep the loss within the tolerance.
        products: curvature products taken.
        upper_bound, upper_low, upper_high: 1 - U at the limit, the middle and the ends of its bracket.
        num_weights: weights under study.
        tolerance: loss increase allowed.
        curvature, negative: as in `LimitOptions`.
        error_quadrature, error_probe, error_data: half-widths that make up the bracket.
        stopped: why the bracket is no narrower.
        rank_bound: largest possible rank of the Gauss-Newton matrix of these data; None for the Hessian.
        radius: norm of the weights removed at the limit.
        scale: 2 tolerance / radius^2.
        effective_dimension: number of weights that must stay at the limit.
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


@dataclass(frozen=True, eq=False)
class PruningLimit:
    """How sparse a network can be pruned, and on what grounds.

    Attributes:
        tolerance: loss increase allowed, the paper's epsilon.
        curvature: "hessian" or "ggn".
        negative: how negative curvature counts: "wall" (the paper's absolute value) or "unbounded".
        names: of the weights under study.
        errors: the bracket, and the half-widths it is made of: quadrature, probe and data.
        num_products: products with the curvature taken in all.
        stopped: why the bracket is as wide as it is: "precision" (it is as narrow as asked), "probe" (more probes would
            make it narrower, more steps would not), "max_products", "memory" or "exact".
        spectrum: of the curvature, as far as it was resolved.
        removed_spectrum: of its block of removed weights, for the upper bound; None after `at`.
        magnitudes: of the weights under study.
        losses: predicted loss increase of magnitude masks, at every sparsity.
        random_losses: the same for random masks, on average.
        sampling: what is known of the error from sampled data; None if the batches are all the data.
        rank_bound: number of eigenvalues that can be other than zero at most, for the GGN.
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
        """Weights under study."""
        return self.magnitudes.num_weights

    @property
    def bracket(self) -> tuple[float, float]:
        """Where `sparsity` lies, as far as the work done can tell."""
        return self.errors.low, self.errors.high

    @property
    def sparsity(self) -> float:
        """1 - T at its fixed point (Corollary 1), the middle of the bracket.

        Random subspaces of fewer weights than that miss the sublevel set of the loss.
        """
        return sum(self.bracket) / 2

    @property
    def predicted(self) -> float:
        """Largest sparsity whose magnitude mask is predicted to keep the loss: g'd + 1/2 d'Hd within the tolerance."""
        return self.losses.largest_within(self.tolerance)

    @property
    def radius(self) -> float:
        """Norm of the weights removed at the limit, the paper's projection distance R."""
        return self.magnitudes.radius(1 - self.sparsity)

    @property
    def scale(self) -> float:
        """Curvature above which a direction counts, 2 tolerance / radius^2; infinite if nothing is removed."""
        return curvature_scale(self.tolerance, self.radius)

    @property
    def effective_dimension(self) -> float:
        """Number of directions in which curvature outweighs the tolerance."""
        return (1 - self.sparsity) * self.num_weights

    @property
    def upper_bound(self) -> float:
        """1 - U at the limit (Eq. 19), the middle of `upper_bracket`: the paper says that a solution exists there.

        Raises:
            InputError: as for `upper_bracket`.
        """
        return sum(self.upper_bracket) / 2

    @property
    def upper_bracket(self) -> tuple[float, float]:
        """Where 1 - U lies at this limit and for this probe, as far as the products with the removed block can tell.

        Raises:
            InputError: this limit comes from `at`, and the block of removed weights belongs to another one.
        """
        if self.removed_spectrum is None:
            raise InputError(
                "the upper bound needs products with the weights that this limit removes;"
                " call pruning_limit with this tolerance and reading"
            )
        scale, density, factor = self.scale, 1 - self.sparsity, FILTERS[self.negative]

        def existence(rule: Rule) -> float:
            return existence_density(rule.nodes, scale, density, rule.masses, factor)

        low = existence(self.removed_spectrum.lowest())
        high = existence(self.removed_spectrum.highest(lambda x: factor(x, scale)))
        # A block's singular values are at most the whole matrix's, so U is at most 2 T.
        return 1 - min(high, 2 * density), 1 - low

    @property
    def larsen_interval(self) -> tuple[float, float]:
        """Larsen et al.'s interval as sparsities, each end at its own fixed point; the paper takes the upper end."""
        low = solve_bracket(
            self.spectrum, self.magnitudes, self.tolerance, FILTERS[self.negative], width_factor=math.sqrt(2 / math.pi)
        )
        return (low.low + low.high) / 2, self.sparsity

    def at(self, *, tolerance: float | None = None, negative: Negative | None = None) -> "PruningLimit":
        """The limit under another tolerance or reading of negative curvature, from the same spectrum: no new products.

        The result has no upper bound, since that needs products with the weights that the new limit removes.

        Args:
            tolerance: loss increase allowed; this limit's unless given.
            negative: "wall" or "unbounded"; this limit's unless given.
        """
        tolerance = self.tolerance if tolerance is None else tolerance
        negative = self.negative if negative is None else negative
        if (tolerance, negative) == (self.tolerance, self.negative):
            return self
        errors = solve_bracket(self.spectrum, self.magnitudes, tolerance, FILTERS[negative], self.sampling)
        return replace(self, tolerance=tolerance, negative=negative, errors=errors, removed_spectrum=None)

    def mask(self, model: nn.Module, sparsity: float | None = None) -> Mask:
        """The mask that removes the smallest of the weights that this limit is about, and of no others.

        Args:
            model: the one that the limit was computed for.
            sparsity: fraction of these weights to remove, in [0, 1]; `predicted` unless given. One weight stays at
                least.

        Raises:
            InputError: sparsity outside [0, 1], or a model without these weights.
        """
        sparsity = self.predicted if sparsity is None else sparsity
        count = 1 if sparsity == 1 else round((1 - check_sparsity(sparsity)) * self.num_weights)
        return largest_mask(model, max(1, count), self.names)

    def summary(self) -> LimitSummary:
        """The limit's numbers, without the spectra they come from."""
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
        """Write the limit to one file (safetensors with a JSON header), whole or not at all; `load` reads it back."""
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
        """Read what `save` wrote.

        Raises:
            InputError: no such file, it holds something else, or it is damaged.
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
    """Put a spectrum's coefficients among the tensors; the rest of it is returned."""
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
