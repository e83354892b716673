"""The options of a limit, and the names of the answers."""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, get_args

from howsparse.errors import InputError
from howsparse.geometry import FilterFactor, absolute_filter, clipped_filter
from howsparse.geometry.spectra import check_tolerance

__all__ = [
    "FILTERS",
    "LEAST_PRODUCTS",
    "Answer",
    "Curvature",
    "LimitOptions",
    "Negative",
    "check_curvature",
    "probes_for",
]

Curvature = Literal["hessian", "ggn"]
Negative = Literal["wall", "unbounded"]

FILTERS: dict[Negative, FilterFactor] = {"wall": absolute_filter, "unbounded": clipped_filter}

LEAST_PRODUCTS = 32  # for each probe
LEAST_SAMPLE = 8  # a quarter of it is the smallest sample

_PROBE_HALF_WIDTH = 0.01  # of the bracket at T = 1/2: probes that make it narrower are not drawn
_MOST_PROBES = 16
# Products that a probe needs before another one is better than more steps, as a share of the weights. Measured on
# networks of 112 to 6,464 weights that were trained without l1; with l1, fewer are enough.
_PRODUCTS_PER_WEIGHT = 1 / 6


class Answer(StrEnum):
    """The names of the answers to "how sparse?". Functions that take a sparsity also accept one of these names."""

    MEASURED = "measured"
    PREDICTED = "predicted"
    LIMIT = "limit"


@dataclass(frozen=True)
class LimitOptions:
    """The options that decide which limit is computed for a model, a loss and data.

    Attributes:
        curvature: "hessian", or "ggn" for the Gauss-Newton matrix, which has no negative eigenvalues.
        negative: how negative curvature counts. "wall": as positive curvature of the same size, as in the paper.
            "unbounded": as no curvature, so the loss sublevel set is unbounded in these directions.
        tolerance: allowed loss increase, the paper's epsilon; by default the standard deviation of the mean loss of 128
            examples.
        names: names of the weights under study; by default all prunable weights that are not frozen.
        population: number of examples in the population, if the batches are a sample of it.
        sample: if given, most products are over a sample of about this many examples of the batches, and a few over
            larger samples estimate the change from the sample to all examples (`howsparse.limit.levels`). By default
            every product is over all examples.
        precision: stop when the bracket is at most this wide, in sparsity.
        max_products: largest number of curvature products, at least 32 for each probe. With a ``sample``, these are
            products over the sample; each larger sample costs as much again.
        probes: number of random vectors; the products are divided between them. None: as many as `probes_for` gives,
            several for small networks and one for large ones.
        seed: seed of the probes.

    Raises:
        InputError: a value is not one of those listed here.

    >>> LimitOptions(max_products=100).curvature
    'hessian'
    """

    curvature: Curvature = field(default="hessian", metadata={"help": "hessian, or ggn (Gauss-Newton)."})
    negative: Negative = field(
        default="wall",
        metadata={"help": "Negative curvature: wall (the paper's absolute value) or unbounded (clipped)."},
    )
    tolerance: float | None = field(
        default=None,
        metadata={"help": "Allowed loss increase; default: standard deviation of the mean loss of 128 examples."},
    )
    names: tuple[str, ...] | None = None
    population: int | None = None
    sample: int | None = field(
        default=None,
        metadata={"help": "Take most products over this number of examples; default: over all examples."},
    )
    precision: float = field(default=0.002, metadata={"help": "Stop when the bracket is this narrow."})
    max_products: int = field(default=400, metadata={"help": "Largest number of curvature products."})
    probes: int | None = field(
        default=None,
        metadata={"help": "Number of random vectors, which share the products; default: by the number of weights."},
    )
    seed: int = 0

    def __post_init__(self) -> None:
        if self.names is not None:
            object.__setattr__(self, "names", tuple(self.names))
        check_curvature(self.curvature)
        if self.negative not in FILTERS:
            raise InputError(f"negative '{self.negative}' is not known; use 'wall' or 'unbounded'")
        check_tolerance(self.tolerance)
        if self.sample is not None and self.sample < LEAST_SAMPLE:
            raise InputError(f"a sample of {self.sample} example(s) is too small; use at least {LEAST_SAMPLE}, or none")
        probes = 1 if self.probes is None else self.probes
        if not self.max_products >= LEAST_PRODUCTS * probes >= LEAST_PRODUCTS:
            raise InputError(
                f"max_products {self.max_products} is too few for a bracket with {probes} probe(s);"
                f" use at least one probe, and at least {LEAST_PRODUCTS} products for each;"
                " howsparse.predict takes 11 products, and howsparse.measure takes none"
            )

    @property
    def filter_factor(self) -> FilterFactor:
        """The filter factor that belongs to ``negative``."""
        return FILTERS[self.negative]

    def probes_of(self, num_weights: int) -> int:
        """The number of probes for so many weights under study.

        Args:
            num_weights: number of weights under study.

        Returns:
            `probes` if it is set; else a number that is larger for fewer weights.
        """
        return self.probes or probes_for(num_weights, self.max_products)


def probes_for(num_weights: int, max_products: int) -> int:
    r"""The number of probes that makes the bracket of a limit narrow, if they share ``max_products`` products.

    More probes make the probe's part of the bracket narrower. But each probe then has fewer steps, which makes the
    quadrature's part wider. So each probe gets at least 32 products, and at least one for every six weights. The number
    of probes stops growing when the probe's part has a half-width of 0.01 where it is widest, at T = 1/2. There it is
    at most :math:`\sqrt{\log(200) / (nN)}` for N probes of n weights (`Spectrum.probe_interval`, with 99 % confidence).

    Args:
        num_weights: number of weights under study, n.
        max_products: largest number of products for all probes together.

    Returns:
        A number of probes between 1 and 16.

    >>> [probes_for(size, 400) for size in (100, 500, 1000, 10_000, 10_000_000)]
    [12, 4, 2, 1, 1]
    >>> probes_for(10_000, 100_000)  # enough products, so the half-width of 0.01 decides
    6
    """
    wanted = math.ceil(math.log(200) / (num_weights * _PROBE_HALF_WIDTH**2))
    each = max(LEAST_PRODUCTS, num_weights * _PRODUCTS_PER_WEIGHT)
    return max(1, min(_MOST_PROBES, wanted, int(max_products / each)))


def check_curvature(curvature: str) -> None:
    """Refuse a curvature that is not one of `Curvature`.

    Raises:
        InputError: the name is unknown.
    """
    if curvature not in get_args(Curvature):
        raise InputError(f"curvature '{curvature}' is not known; use 'hessian' or 'ggn'")
