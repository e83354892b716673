"""The options of a limit, and the names of the answers."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, get_args

from howsparse.errors import InputError
from howsparse.geometry import FilterFactor, absolute_filter, clipped_filter
from howsparse.geometry.spectra import check_tolerance

__all__ = ["FILTERS", "Answer", "Curvature", "LimitOptions", "Negative", "check_curvature"]

Curvature = Literal["hessian", "ggn"]
Negative = Literal["wall", "unbounded"]

FILTERS: dict[Negative, FilterFactor] = {"wall": absolute_filter, "unbounded": clipped_filter}

_LEAST_PRODUCTS = 32  # for each probe


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
        precision: stop when the bracket is at most this wide, in sparsity.
        max_products: largest number of curvature products, at least 32 for each probe.
        probes: number of random vectors; the products are divided between them. One is enough for large networks.
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
    precision: float = field(default=0.002, metadata={"help": "Stop when the bracket is this narrow."})
    max_products: int = field(default=400, metadata={"help": "Largest number of curvature products."})
    probes: int = field(default=1, metadata={"help": "Random vectors to divide the products between."})
    seed: int = 0

    def __post_init__(self) -> None:
        if self.names is not None:
            object.__setattr__(self, "names", tuple(self.names))
        check_curvature(self.curvature)
        if self.negative not in FILTERS:
            raise InputError(f"negative '{self.negative}' is not known; use 'wall' or 'unbounded'")
        check_tolerance(self.tolerance)
        if not self.max_products >= _LEAST_PRODUCTS * self.probes >= _LEAST_PRODUCTS:
            raise InputError(
                f"max_products {self.max_products} is too few for a bracket with {self.probes} probe(s);"
                f" use at least one probe, and at least {_LEAST_PRODUCTS} products for each;"
                " howsparse.predict takes 11 products, and howsparse.measure takes none"
            )

    @property
    def filter_factor(self) -> FilterFactor:
        """The filter factor that belongs to ``negative``."""
        return FILTERS[self.negative]


def check_curvature(curvature: str) -> None:
    """Refuse a curvature that is not one of `Curvature`.

    Raises:
        InputError: the name is unknown.
    """
    if curvature not in get_args(Curvature):
        raise InputError(f"curvature '{curvature}' is not known; use 'hessian' or 'ggn'")
