"""Curvature of an empirical risk: products, Lanczos, rules, spectra."""

from howsparse.curvature.lanczos import (
    Lanczos,
    Rule,
    Tridiagonal,
    averaged_gauss,
    gauss,
    gauss_radau,
    markov_bracket,
    steepest_rule,
)
from howsparse.curvature.operators import GGN, Block, Hessian, Sample
from howsparse.curvature.remembered import Remembered
from howsparse.curvature.risk import EmpiricalRisk
from howsparse.curvature.rows import RowSample, sample_rows
from howsparse.curvature.spectrum import Spectrum, grow_spectrum

__all__ = [
    "GGN",
    "Block",
    "EmpiricalRisk",
    "Hessian",
    "Lanczos",
    "Remembered",
    "RowSample",
    "Rule",
    "Sample",
    "Spectrum",
    "Tridiagonal",
    "averaged_gauss",
    "gauss",
    "gauss_radau",
    "grow_spectrum",
    "markov_bracket",
    "sample_rows",
    "steepest_rule",
]
