"""Spectra that are stored when they are complete, with their products until then, so that a stopped run continues."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from howsparse.linalg import Operator, Remembered, Spectrum, Tridiagonal, grow_spectrum
from howsparse.store import Kind, Store

__all__ = ["kept_spectrum", "probed_spectrum"]


def kept_spectrum(
    keep: Path | None, operator: Operator, inputs: dict[str, object], compute: Callable[[Operator], Spectrum]
) -> Spectrum:
    """The spectrum that ``compute`` returns for the operator, or the stored one of the same inputs.

    Args:
        keep: folder of the store; None stores nothing.
        operator: the matrix.
        inputs: all that decides the spectrum: matrix, weights, images, seed and steps.
        compute: receives the operator whose products are stored while it works.
    """

    def of(workspace: Path | None) -> Spectrum:
        return compute(Remembered(operator, Store(workspace), "whole"))

    return Store(keep).get(_SPECTRUM, inputs, {}, of)


def probed_spectrum(operator: Operator, like: torch.Tensor, *, seed: int, steps: int, name: str) -> Spectrum:
    """The spectrum after ``steps`` steps of one probe, or after fewer if it is complete before; with progress."""
    for spectrum in grow_spectrum(operator, like, seed=seed):
        if spectrum.num_steps % 16 == 0:
            print(f"{name}: {spectrum.num_steps} of {steps} steps", file=sys.stderr)
        if spectrum.num_steps == steps:
            break
    return spectrum


def _pack(spectrum: Spectrum) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    tensors: dict[str, torch.Tensor] = {}
    for i, part in enumerate(spectrum.tridiagonals):
        tensors |= {f"{i}.diagonal": torch.tensor(part.diagonal), f"{i}.off_diagonal": torch.tensor(part.off_diagonal)}
    return {"size": spectrum.size, "num_zero": spectrum.num_zero, "positive": spectrum.positive}, tensors


def _unpack(fields: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Spectrum:
    parts = [
        Tridiagonal(tensors[f"{i}.diagonal"].numpy(), tensors[f"{i}.off_diagonal"].numpy())
        for i in range(len(tensors) // 2)
    ]
    return Spectrum(tuple(parts), **fields)


_SPECTRUM = Kind("spectrum", 1, _pack, _unpack)
