"""Symmetric operators, Lanczos, quadrature rules and spectra. This package does not depend on models."""

from howsparse.linalg.lanczos import Lanczos
from howsparse.linalg.operators import Block, Operator
from howsparse.linalg.quadrature import (
    Rule,
    Tridiagonal,
    gauss,
    gauss_radau,
    steepest_rule,
)
from howsparse.linalg.remembered import Remembered
from howsparse.linalg.rows import RowSample, sample_rows
from howsparse.linalg.spectrum import Spectrum, grow_spectrum

__all__ = [
    "Block",
    "Lanczos",
    "Operator",
    "Remembered",
    "RowSample",
    "Rule",
    "Spectrum",
    "Tridiagonal",
    "gauss",
    "gauss_radau",
    "grow_spectrum",
    "sample_rows",
    "steepest_rule",
]
