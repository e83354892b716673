"""What a limit will cost, said before it starts: products, time and memory.

The parts of a limit and their largest numbers of products are known in advance. A part can end earlier, because nobody
knows the spectrum before. Gradients, graphs and products are timed on a few examples of the first batch. Vector work is
timed on a matrix whose products cost nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from torch import nn

from howsparse.errors import InputError
from howsparse.limit.budget import basis_room, plan_budget
from howsparse.limit.options import LimitOptions, probes_for
from howsparse.limit.prediction import MAX_PRODUCTS as PREDICTION_PRODUCTS
from howsparse.limit.rates import REBUILT, DataRates, VectorRates, data_rates, vector_rates
from howsparse.memory import available_memory
from howsparse.progress import duration
from howsparse.risk import EmpiricalRisk
from howsparse.risk.batches import is_half
from howsparse.risk.losses import Loss, SplitLoss, cross_entropy
from howsparse.risk.weights import select_weights

__all__ = ["LimitCost", "Part", "limit_cost"]

_OTHER_PRODUCTS = 3  # two for the costs of the layers, one for random masks
_PASSES = 3  # over all data without a gradient: one for the tolerance, two that check the prediction
# Bytes for each weight, beside its own. _HELD: sorted magnitudes, and the float64 sums of their squares. _LANCZOS: an
# index and a mask of the rows that are not zero. _PREDICTION: three indices, and three vectors in float64.
_HELD, _LANCZOS, _PREDICTION = 12, 9, 48
# Vectors of a product: its sum, its part of one batch, flat and in layers. Of Lanczos: a Gaussian vector and its
# product, with and without the rows that are zero; three in a step, and two for the rows.
_PRODUCT_VECTORS, _LANCZOS_VECTORS = 3, 9
_LIBRARIES = 56 << 20  # code and buffers that torch and SciPy load when they are first used


@dataclass(frozen=True)
class Part:
    """One part of a limit, as `pruning_limit` reports its progress.

    Attributes:
        name: its name there.
        steps: largest number of steps.
        products: products of one step: one for each probe.
        extra: products before the first step.
        begin: seconds before the first step.
        each: seconds of a step, without work that grows with the number of steps.
        pair: seconds for each pair of steps.
        bytes: memory for all but the stored Lanczos vectors.
        step_bytes: memory for the Lanczos vectors that a step stores.
    """

    name: str
    steps: int
    products: int
    extra: int
    begin: float
    each: float
    pair: float
    bytes: int
    step_bytes: int

    @property
    def seconds(self) -> float:
        """Time of all steps."""
        return self.begin + self.steps * self.each + self.steps * (self.steps - 1) / 2 * self.pair

    @property
    def peak(self) -> int:
        """Memory after the last step, in bytes."""
        return self.bytes + self.steps * self.step_bytes


@dataclass(frozen=True)
class LimitCost:
    """What a limit takes at most.

    Attributes:
        parts: its parts, one after the other.
        before: seconds before the first part, and for evaluating the network.
        held: bytes that all parts need, for example for the weights.
        graphs: bytes of graphs in the part with the largest memory.
        example: bytes of one example's graph.
        available: bytes that are free now.
        batch: number of examples in the longest batch.
    """

    parts: tuple[Part, ...]
    before: float
    held: int
    graphs: int
    example: float
    available: int
    batch: int

    @property
    def products(self) -> int:
        """Largest number of curvature products."""
        return sum(part.extra + part.steps * part.products for part in self.parts)

    @property
    def seconds(self) -> float:
        """Time, in seconds."""
        return self.before + sum(part.seconds for part in self.parts)

    @property
    def bytes(self) -> int:
        """Largest memory that is in use at one time, beside what the process uses now."""
        return self.held + self._largest.peak

    @property
    def most(self) -> str:
        """What takes the most memory."""
        largest = self._largest
        vectors = largest.steps * largest.step_bytes
        return "Lanczos vectors" if vectors > largest.bytes else "graphs" if largest.bytes > self.held else "weights"

    @property
    def fits(self) -> bool:
        """Whether the memory that is free now is enough."""
        return self.bytes <= self.available

    @property
    def _largest(self) -> Part:
        return max(self.parts, key=lambda part: part.peak)

    def __str__(self) -> str:
        return (
            f"at most {self.products} products, {duration(self.seconds)} and {size_of(self.bytes)} of memory, mostly"
            f" for {self.most}; {size_of(self.available)} are free"
        )

    def check(self) -> None:
        """Refuse a limit that does not fit into the memory that is free.

        Raises:
            InputError: it does not fit; the message names a size of batches that fits, if there is one.
        """
        if self.fits:
            return
        # A third of the memory may hold graphs between products. What is left is for those that are built again.
        left = 2 * self.available / 3 - (self.bytes - self.graphs)
        size = int(left / (REBUILT * self.example)) if self.example else 0
        smaller = f"use batches of {size} examples (--batch-size {size} on the command line)"
        mend = smaller if 1 <= size < self.batch else "free some memory, or study fewer weights by their names"
        raise InputError(
            f"the limit needs {size_of(self.bytes)} of memory, mostly for {self.most}, but {size_of(self.available)}"
            f" are free; {mend}"
        )


def size_of(number: int) -> str:
    """A number of bytes in the unit that a person would use.

    >>> size_of(300 << 20), size_of(3 << 29)
    ('300 MiB', '1.5 GiB')
    """
    return f"{number / (1 << 20):.0f} MiB" if number < 1 << 30 else f"{number / (1 << 30):.1f} GiB"


def limit_cost(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss = cross_entropy,
    options: LimitOptions | None = None,
    memory: int | None = None,
    clock: Callable[[], float] = perf_counter,
) -> LimitCost:
    """Estimate time and memory of `pruning_limit`, from a few gradients and products on the first batch.

    Args:
        model: any module; it is not changed.
        batches: training batches, which can be read several times.
        loss: ``loss(model, batch)``, mean over the batch.
        options: options of the limit; by default the defaults of `LimitOptions`.
        memory: bytes for stored graphs between products; by default a third of the free memory.
        clock: gives the time in seconds; `time.process_time` counts only this process, on one thread.

    Returns:
        The cost with all products. A limit that needs fewer products costs less.

    Raises:
        InputError: the model, the data or an option is not valid; see `EmpiricalRisk`.

    >>> import torch
    >>> cost = limit_cost(nn.Linear(8, 8), [(torch.eye(8), torch.arange(8))], options=LimitOptions(max_products=64))
    >>> cost.products <= 64, cost.fits
    (True, True)
    """
    options = options or LimitOptions()
    risk = EmpiricalRisk(model, batches, loss, select_weights(model, options.names))
    room = available_memory(risk.device)
    memory = room // 3 if memory is None else memory
    kinds = [options.curvature]
    if options.curvature == "hessian" and isinstance(risk.loss, SplitLoss):
        kinds.insert(0, "ggn")
    rates = data_rates(risk, kinds, memory, clock)
    sampled = options.population is not None and options.population > risk.num_examples
    vectors = vector_rates(risk, options, sampled, clock)
    parts = _parts(risk, options, rates, vectors, sampled)
    numbers = risk.num_weights * risk.leaves[0].element_size()
    halves = sum(4 * p.numel() for p in model.parameters() if is_half(p))
    held = 2 * numbers + _HELD * risk.num_weights + halves + _LIBRARIES
    before = rates.gradient + _PASSES * rates.forward
    graphs = max(matrix.kept + matrix.work for matrix in rates.kinds)
    example = max(matrix.example for matrix in rates.kinds)
    return LimitCost(parts, before, held, graphs, example, room, max(risk.lengths))


def _parts(
    risk: EmpiricalRisk, options: LimitOptions, rates: DataRates, vectors: VectorRates, sampled: bool
) -> tuple[Part, ...]:
    """The parts of `pruning_limit`, in their order."""
    n = risk.num_weights
    probes = options.probes or probes_for(n, options.max_products)
    budget = plan_budget(options.max_products, probes, sampled)
    number = risk.leaves[0].element_size()
    steps, storage = basis_room(risk.flat_weights(), budget.bracket, probes)
    first, whole = rates.kinds[0], rates.kinds[-1]
    product = whole.kept + whole.work + _PRODUCT_VECTORS * number * n
    lanczos = product + (_LANCZOS_VECTORS * number + _LANCZOS) * n
    recovering = first.kept + first.work + lanczos - whole.kept - whole.work
    # The graphs of the recovery's matrix go before the Hessian's are built.
    building = whole.begin if len(rates.kinds) > 1 else 0.0
    step = whole.product + vectors.step
    return (
        Part("recoverable", budget.recovery, 1, 0, first.begin, first.product + vectors.step, 0.0, recovering, 0),
        Part(
            "bracket",
            steps,
            probes,
            1,
            building + whole.product,
            probes * step,
            probes * vectors.pair + vectors.solving,
            lanczos,
            probes * n * storage.itemsize,
        ),
        Part(
            "half the data",
            budget.half_sample_after(steps) if sampled else 0,
            probes,
            int(sampled),
            whole.half if sampled else 0.0,
            probes * (whole.half + vectors.step),
            probes * vectors.pair,
            lanczos,
            probes * n * number,
        ),
        Part(
            "upper bound",
            budget.upper_bound_after(steps),
            1,
            1,
            whole.product,
            step,
            vectors.pair,
            lanczos,
            n * number,
        ),
        Part(
            "prediction",
            PREDICTION_PRODUCTS,
            1,
            0,
            vectors.prediction,
            whole.product,
            0.0,
            product + _PREDICTION * n,
            0,
        ),
        Part("layers", _OTHER_PRODUCTS, 1, 0, 0.0, whole.product, 0.0, product, 0),
    )
