"""What a limit is computed with, and the words for its answers."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, get_args

from howsparse.errors import InputError
from howsparse.geometry import FilterFactor, absolute_filter, clipped_filter

__all__ = ["FILTERS", "Answer", "Curvature", "LimitOptions", "Negative"]

Curvature = Literal["hessian", "ggn"]
Negative = Literal["wall", "unbounded"]

FILTERS: dict[Negative, FilterFactor] = {"wall": absolute_filter, "unbounded": clipped_filter}

_LEAST_PRODUCTS = 32  # for each probe


class Answer(StrEnum):
    """The answers to "how sparse?", one word each; where a sparsity is asked for, a word stands for its value."""

    MEASURED = "measured"
    PREDICTED = "predicted"
    LIMIT = "limit"


@dataclass(frozen=True)
class LimitOptions:
    """Everything that decides what limit is computed for a model, a loss and data.

    Attributes:
        curvature: "hessian", or "ggn" for the Gauss-Newton matrix, which has no negative eigenvalues.
        negative: what negative curvature does to the loss sublevel set: "wall" (the paper: as much as positive
            curvature of that size) or "unbounded" (nothing: the set has no end there).
        tolerance: loss increase allowed, the paper's epsilon; unless given, the standard deviation of the loss over
            mini-batches of 128.
        names: of the weights under study; unless given, all prunable weights that are not frozen.
        population: number of examples that the batches stand for, if they are a sample of them.
        precision: width of the bracket, in sparsity, at which to stop.
        max_products: curvature products to spend in all, at least 32 for each probe.
        probes: random vectors that share the products; one is enough for large networks.
        seed: of the probes.

    Raises:
        InputError: a value outside what is listed here.

    >>> LimitOptions(max_products=100).curvature
    'hessian'
    """

    curvature: Curvature = field(default="hessian", metadata={"help": "hessian, or ggn (Gauss-Newton)."})
    negative: Negative = field(
        default="wall",
        metadata={"help": "Negative curvature: wall (the paper's absolute value) or unbounded (clipped)."},
    )
    tolerance: float | None = field(
        default=None, metadata={"help": "Loss increase allowed; else the deviation over mini-batches of 128."}
    )
    names: tuple[str, ...] | None = None
    population: int | None = None
    precision: float = field(default=0.002, metadata={"help": "Width of the bracket to stop at."})
    max_products: int = field(default=400, metadata={"help": "Curvature products to spend at most."})
    probes: int = field(default=1, metadata={"help": "Random vectors that share the products."})
    seed: int = 0

    def __post_init__(self) -> None:
        if self.names is not None:
            object.__setattr__(self, "names", tuple(self.names))
        if self.curvature not in get_args(Curvature):
            raise InputError(f"curvature '{self.curvature}' is neither 'hessian' nor 'ggn'")
        if self.negative not in FILTERS:
            raise InputError(f"negative '{self.negative}' is neither 'wall' nor 'unbounded'")
        if self.tolerance is not None and not self.tolerance > 0:
            raise InputError(f"tolerance {self.tolerance:g} is not positive: it is the loss increase that is allowed")
        if not self.max_products >= _LEAST_PRODUCTS * self.probes >= _LEAST_PRODUCTS:
            raise InputError(
                f"max_products {self.max_products} is too few for {self.probes} probe(s):"
                f" take {_LEAST_PRODUCTS} for each, at least one"
            )

    @property
    def filter_factor(self) -> FilterFactor:
        """How much of a direction its curvature takes, by the reading of negative curvature."""
        return FILTERS[self.negative]
