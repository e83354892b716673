"""Estimates of what a limit will cost, made before it starts: products, time and memory.

Products take nearly all of the time, and the largest number of products is known. So a product is timed on a few
examples, and the work with vectors is timed on a matrix whose products cost nothing. A limit may need fewer products:
this depends on the spectrum, which is not known before.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from time import perf_counter
from typing import Any

from torch import nn

from howsparse.errors import InputError
from howsparse.limit.budget import basis_room, plan_budget
from howsparse.limit.options import LimitOptions
from howsparse.limit.rates import Clock, rates_of, vector_work, warm_up
from howsparse.limit.samples import Samples, risk_with_samples
from howsparse.memory import available_memory
from howsparse.progress import duration
from howsparse.risk.alone import alone
from howsparse.risk.batches import is_half
from howsparse.risk.guard import guarded
from howsparse.risk.losses import Loss, SplitLoss, cross_entropy
from howsparse.risk.weights import select_weights

__all__ = ["LimitCost", "limit_cost"]

_PASSES = 4  # over all data: tolerance, gradient, and the check of the prediction; none takes longer than the graphs
_SOLVING = 0.5  # seconds, for all brackets together
_WITHOUT_STEP = 14  # products of the prediction, which are no Lanczos steps
# Memory that comes and goes with a product, in graphs of a batch: if it is kept, and if it is built for each product.
_KEPT, _REBUILT = 1.0, 2.0
# Memory for each weight: vectors of products and of Lanczos; beside them, in bytes, sorted magnitudes, the float64 sums
# of their squares, an index and a mask of the rows that are not zero.
_VECTORS, _INDICES = 21, 21


@dataclass(frozen=True)
class LimitCost:
    """The largest cost of a limit. It costs less if its bracket is narrow enough earlier.

    Attributes:
        products: number of curvature products.
        before: seconds for all but products: passes over the data, and building the graphs that are kept.
        each: seconds of a product, and of the work with its vector.
        graphs: bytes of graphs.
        vectors: bytes of the Lanczos vectors that are stored.
        weights: bytes of everything else, in proportion to the number of weights.
        example: bytes of one example's graph.
        longest: number of examples in the longest batch.
        available: bytes that are free now.

    >>> sizes = {"graphs": 0, "vectors": 4000, "weights": 8000, "example": 0, "longest": 9, "available": 0}
    >>> cost = LimitCost(100, before=2.0, each=0.1, **sizes)
    >>> round(cost.seconds, 6), cost.bytes
    (12.0, 12000)
    """

    products: int
    before: float
    each: float
    graphs: int
    vectors: int
    weights: int
    example: float
    longest: int
    available: int

    @property
    def seconds(self) -> float:
        """Time, in seconds."""
        return self.before + self.products * self.each

    @property
    def bytes(self) -> int:
        """Largest memory that is in use at one time, beside what the process uses now."""
        return self.graphs + self.vectors + self.weights

    @property
    def most(self) -> str:
        """What takes the most memory."""
        sizes = {"graphs": self.graphs, "Lanczos vectors": self.vectors, "the weights and vectors": self.weights}
        return max(sizes, key=lambda name: sizes[name])

    def __str__(self) -> str:
        return (
            f"at most {self.products} products, {duration(self.seconds)} and {_size(self.bytes)} of memory, mostly"
            f" for {self.most}; {_size(self.available)} are free"
        )

    def check(self) -> None:
        """Refuse a limit that does not fit into the memory that is free.

        Raises:
            InputError: it does not fit; the message names a size of batches that fits, if there is one.
        """
        if self.bytes <= self.available:
            return
        # A third of the memory may hold graphs between products. What is left is for those that are built again.
        left = 2 * self.available / 3 - (self.bytes - self.graphs)
        size = int(left / (_REBUILT * self.example)) if self.example else 0
        smaller = f"use batches of {size} examples (--batch-size {size} on the command line)"
        mend = smaller if 1 <= size < self.longest else "free some memory, or study fewer weights by their names"
        raise InputError(
            f"the limit needs {_size(self.bytes)} of memory, mostly for {self.most}, but {_size(self.available)} are"
            f" free; {mend}"
        )


@alone
@guarded
def limit_cost(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss = cross_entropy,
    options: LimitOptions | None = None,
    memory: int | None = None,
    clock: Clock = perf_counter,
) -> LimitCost:
    """Estimate time and memory of `pruning_limit`, from a few products on the first examples.

    Args:
        model: any module; it is not changed.
        batches: training batches, which can be read several times.
        loss: ``loss(model, batch)``, mean over the batch.
        options: options of the limit; by default the defaults of `LimitOptions`.
        memory: bytes for stored graphs between products; by default a third of the free memory.
        clock: gives the time in seconds; `time.process_time` counts only this process, on one thread.

    Returns:
        The cost of the largest number of products.

    Raises:
        InputError: the model, the data or an option is not valid; see `EmpiricalRisk`.

    >>> import torch
    >>> cost = limit_cost(nn.Linear(8, 8), [(torch.eye(8), torch.arange(8))], options=LimitOptions(max_products=64))
    >>> cost.products, cost.bytes < 100 << 20
    (64, True)
    """
    options = options or LimitOptions()
    names = select_weights(model, options.names)
    risk, samples = risk_with_samples(model, batches, loss, names, options.population, options.sample)
    room, flat, lengths = available_memory(risk.device), risk.flat_weights(), risk.lengths
    memory = room // 3 if memory is None else memory
    probes = options.probes_of(risk.num_weights)
    planned = plan_budget(options.max_products, probes, len(samples.ends) > 1).bracket
    steps, storage = basis_room(flat, planned, probes)
    examples, most, turns = _examples(samples, options.max_products, probes * planned, planned)
    loaded = warm_up(risk.device)
    recovering = options.curvature == "hessian" and isinstance(risk.loss, SplitLoss)  # with the GGN
    rates, work = rates_of(risk, options, recovering, room, clock), vector_work(flat, steps, storage, clock)
    fitting = [total for total in accumulate(lengths) if rates.example * total <= memory]
    kept = min(fitting[-1], most) if fitting and memory > 0 else 0
    built = 2 if recovering else 1
    passes = rates.graph * (_PASSES * risk.num_examples + built * kept) + built * rates.prepared
    streamed = rates.graph * max(0.0, examples - kept)
    return LimitCost(
        products=options.max_products - probes * (planned - steps),
        before=passes + work.prediction - _WITHOUT_STEP * work.step + _SOLVING,
        each=rates.product * examples + rates.fixed + streamed + turns * work.step,
        graphs=int(rates.example * (kept + (_KEPT if kept == most else _REBUILT) * max(lengths))),
        vectors=probes * steps * flat.numel() * storage.itemsize,
        weights=(_VECTORS * flat.element_size() + _INDICES) * flat.numel() + loaded + _in_float32(model),
        example=rates.example,
        longest=max(lengths),
        available=room,
    )


def _examples(samples: Samples, products: int, in_bracket: int, steps: int) -> tuple[float, int, float]:
    """The mean and the largest number of examples of a product, and the Lanczos steps on all samples per base step."""
    above = list(samples.above(steps))
    base, others = samples.examples[samples.base] * (1 + len(above)), samples.examples[samples.enough]
    most = samples.examples[max([samples.base, samples.enough, *(i for i, _ in above)])]
    mean = (in_bracket * base + (products - in_bracket) * others) / products
    return mean, most, 1 + sum(fewer for _, fewer in above) / steps


def _in_float32(model: nn.Module) -> int:
    """Bytes of the copies in float32 of weights that have half precision."""
    return sum(4 * p.numel() for p in model.parameters() if is_half(p))


def _size(number: int) -> str:
    """A number of bytes as text, in a suitable unit."""
    return f"{number / (1 << 20):.0f} MiB" if number < 1 << 30 else f"{number / (1 << 30):.1f} GiB"
