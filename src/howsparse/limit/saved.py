"""A limit as the fields and tensors of a file."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from howsparse.geometry import Magnitudes
from howsparse.limit.bracket import Bracket
from howsparse.limit.layers import LayerCost
from howsparse.limit.levels import Level, Sampling
from howsparse.limit.prediction import LossCurve
from howsparse.linalg import Spectrum, Tridiagonal

if TYPE_CHECKING:
    from howsparse.limit.result import PruningLimit

__all__ = ["pack", "unpack"]

_PLAIN = ("tolerance", "curvature", "negative", "num_products", "stopped", "rank_bound")
_LATER = ("checked_rise", "seconds_per_product")  # files of earlier versions do not have these
_SAMPLED = ("examples", "population", "tolerance_error")
_CURVES, _SPECTRA = ("losses", "random_losses"), ("spectrum", "removed_spectrum")


def pack(limit: "PruningLimit") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON fields and the tensors of a limit's file."""
    fields: dict[str, Any] = {name: getattr(limit, name) for name in (*_PLAIN, *_LATER)}
    fields |= {"names": limit.names, "errors": asdict(limit.errors), "recoverable": limit.recoverable}
    fields["layers"] = [asdict(layer) for layer in limit.layers]
    tensors = {"magnitudes": torch.from_numpy(limit.magnitudes.sizes)}
    for name in _CURVES:
        curve: LossCurve = getattr(limit, name)
        tensors[f"{name}.sparsities"] = torch.from_numpy(curve.sparsities)
        tensors[f"{name}.increases"] = torch.from_numpy(curve.increases)
    spectra = {name: getattr(limit, name) for name in _SPECTRA}
    if limit.sampling is not None:
        spectra |= {f"level{i}": level.spectrum for i, level in enumerate(limit.sampling.levels)}
        fields["levels"] = [level.examples for level in limit.sampling.levels]
        fields |= {name: getattr(limit.sampling, name) for name in _SAMPLED}
    for name, spectrum in spectra.items():
        if spectrum is not None:
            fields[name] = _write_spectrum(name, spectrum, tensors)
    return fields, tensors


def unpack(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The attributes of the limit that `pack` wrote."""
    spectra = {name: _read_spectrum(name, fields[name], tensors) for name in _SPECTRA if name in fields}
    recoverable = fields.get("recoverable")  # files of earlier versions do not have it
    return {
        **{name: fields[name] for name in _PLAIN},
        **{name: fields.get(name) for name in _LATER},
        "names": tuple(fields["names"]),
        "errors": Bracket(**fields["errors"]),
        "recoverable": None if recoverable is None else tuple(recoverable),
        "layers": tuple(LayerCost(**layer) for layer in fields.get("layers", [])),
        "magnitudes": Magnitudes(tensors["magnitudes"].numpy()),
        **{name: spectra.get(name) for name in _SPECTRA},
        **{
            name: LossCurve(tensors[f"{name}.sparsities"].numpy(), tensors[f"{name}.increases"].numpy())
            for name in _CURVES
        },
        "sampling": _read_sampling(fields, tensors),
    }


def _read_sampling(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Sampling | None:
    """The samples of the data; a file of an earlier version has the first half of them and a number of doublings."""
    if "half" in fields:
        half = Level(0.5, _read_spectrum("half", fields["half"], tensors))
        return Sampling((half,), 1.0, 2 ** fields["doublings"], fields["tolerance_error"])
    if "levels" not in fields:
        return None
    names = [f"level{i}" for i in range(len(fields["levels"]))]
    spectra = [_read_spectrum(name, fields[name], tensors) for name in names]
    levels = tuple(Level(*level) for level in zip(fields["levels"], spectra, strict=True))
    return Sampling(levels, **{name: fields[name] for name in _SAMPLED})


def _write_spectrum(name: str, spectrum: Spectrum, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Add a spectrum's coefficients to ``tensors``; return its other fields."""
    for i, tridiagonal in enumerate(spectrum.tridiagonals):
        rows = [tridiagonal.diagonal, tridiagonal.off_diagonal]
        rows += [] if tridiagonal.residuals is None else [tridiagonal.residuals]
        tensors[f"{name}.{i}"] = torch.from_numpy(np.stack(rows))
    return {
        "probes": len(spectrum.tridiagonals),
        "size": spectrum.size,
        "num_zero": spectrum.num_zero,
        "positive": spectrum.positive,
    }


def _read_spectrum(name: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Spectrum:
    """The spectrum that `_write_spectrum` wrote under ``name``."""
    found = (tensors[f"{name}.{i}"].numpy() for i in range(about["probes"]))
    return Spectrum(tuple(Tridiagonal(*rows) for rows in found), about["size"], about["num_zero"], about["positive"])
