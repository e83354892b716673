"""What a limit will cost, said before it starts: products, time and memory.

Nearly all of the time is that of products, and the largest number of products is known. So one product is timed on a
few examples, and the vector work of a Lanczos step on a matrix whose products cost nothing. A limit can need fewer
products, because nobody knows the spectrum before.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.limit.budget import basis_room, plan_budget
from howsparse.limit.moved import curvature_of
from howsparse.limit.options import LimitOptions
from howsparse.linalg import Lanczos
from howsparse.linalg.basis import Basis
from howsparse.memory import available_memory
from howsparse.progress import duration
from howsparse.risk import GGN, EmpiricalRisk, Hessian
from howsparse.risk.batches import FirstExamples, is_half, split_batch
from howsparse.risk.losses import Loss, SplitLoss, cross_entropy
from howsparse.risk.weights import select_weights

__all__ = ["LimitCost", "limit_cost"]

Clock = Callable[[], float]

_PASSES = 4  # over all data: tolerance, gradient, and the check of the prediction; none takes longer than the graphs
_SOLVING = 0.5  # seconds, for all brackets together
_SHORT = 0.05  # seconds; if graphs and product of some examples take less, more examples are timed
_FIRST = 32  # examples that are timed first; their graphs show how many fit into memory
_SHARE = 0.01  # of all products' examples: so many are timed at most
_REPEATS, _ENOUGH = 3, 0.2  # times of one thing, and the seconds after which it is not done again
_NUMBERS, _STEPS = 1 << 18, 6  # length of the vectors that are timed, and number of Lanczos steps
_READS = 0.5  # of all stored vectors in each step, at most, to restore orthogonality
# Memory that comes and goes with a product, in graphs of a batch: if it is kept, and if it is built for each product.
_KEPT, _REBUILT = 0.5, 1.5
# Memory for each weight: vectors of products and of Lanczos; beside them, in bytes, sorted magnitudes, the float64 sums
# of their squares, an index and a mask of the rows that are not zero.
_VECTORS, _INDICES = 21, 21
_LIBRARIES = 80 << 20  # code and buffers that torch and SciPy load when they are first used


@dataclass(frozen=True)
class LimitCost:
    """What a limit takes at most. It takes less if its bracket is good enough earlier.

    Attributes:
        products: number of curvature products.
        before: seconds for all but products: passes over the data, and building the graphs that are kept.
        each: seconds of a product, and of the work with its vector.
        graphs: bytes of graphs.
        vectors: bytes of the Lanczos vectors that are stored.
        weights: bytes of all else, which grow with the number of weights.
        example: bytes of one example's graph.
        longest: number of examples in the longest batch.
        available: bytes that are free now.
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

    >>> cost = limit_cost(nn.Linear(8, 8), [(torch.eye(8), torch.arange(8))], options=LimitOptions(max_products=64))
    >>> cost.products, cost.bytes < 100 << 20
    (64, True)
    """
    options = options or LimitOptions()
    risk = EmpiricalRisk(model, batches, loss, select_weights(model, options.names))
    room, flat, lengths = available_memory(risk.device), risk.flat_weights(), risk.lengths
    memory = room // 3 if memory is None else memory
    probes = options.probes_of(risk.num_weights)
    sampled = options.population is not None and options.population > risk.num_examples
    planned = plan_budget(options.max_products, probes, sampled).bracket
    steps, storage = basis_room(flat, planned, probes)
    graph, product, vectors, example = _rates(risk, options, room, clock)
    vectors += _of_vectors(flat, steps, storage, clock)
    fitting = [total for total in accumulate(lengths) if example * total <= memory]
    kept = fitting[-1] if fitting and memory > 0 else 0
    built = 2 if options.curvature == "hessian" and isinstance(risk.loss, SplitLoss) else 1  # the GGN for the recovery
    whole = kept == risk.num_examples
    return LimitCost(
        products=options.max_products - probes * (planned - steps),
        before=graph * (_PASSES * risk.num_examples + built * kept) + _SOLVING,
        each=product * risk.num_examples + graph * (risk.num_examples - kept) + vectors,
        graphs=int(example * (kept + (_KEPT if whole else _REBUILT) * max(lengths))),
        vectors=probes * steps * flat.numel() * storage.itemsize,
        weights=(_VECTORS * flat.element_size() + _INDICES) * flat.numel() + _LIBRARIES + _in_float32(model),
        example=example,
        longest=max(lengths),
        available=room,
    )


def _rates(risk: EmpiricalRisk, options: LimitOptions, room: int, clock: Clock) -> tuple[float, float, float, float]:
    """Seconds of one example's graph and product, of a product without examples, and bytes of an example's graph.

    A whole batch is timed, or more if that is short, but no large part of the limit's work, and no more than fits into
    memory. The products with the GGN, which the recovery takes, count as those with the Hessian.
    """
    _warm_up(risk.device)
    most = max(1, min(int(_SHARE * options.max_products * risk.num_examples), risk.num_examples))
    count = max(_first_that_counts(risk), min(_FIRST, most, risk.lengths[0]))
    while True:
        own = EmpiricalRisk(risk.model, FirstExamples(risk.all_batches, count), risk.loss, risk.names)
        matrix = curvature_of(own, options.curvature, memory=1 << 60)
        example, count = matrix.graph_bytes(), own.num_examples
        began = clock()
        _multiply(matrix)
        first = clock() - began
        wanted = most if first <= _SHORT else min(most, risk.lengths[0])
        larger = min(4 * count, wanted, int(room / (4 * example + 1)))
        if larger <= count:
            break
        count = larger
    product, fixed = _timed(lambda: _multiply(matrix), clock), _timed(lambda: _multiply(matrix, 0), clock)
    return max(0.0, first - product) / count, max(0.0, product - fixed) / count, fixed, example


def _warm_up(device: torch.device) -> None:
    """Let torch load the code that second derivatives need, which takes longer than a product of a small network."""
    with torch.random.fork_rng(devices=[]):
        model = nn.Linear(2, 2).to(device)
    _multiply(Hessian(EmpiricalRisk(model, [(torch.eye(2), torch.arange(2))])))


def _multiply(matrix: Hessian | GGN, batches: int | None = None) -> float:
    """Multiply over the first batches, by default all. A GPU computes later, unless a value is asked for."""
    count = len(matrix.risk.lengths) if batches is None else batches
    return float(matrix.over_first(count, matrix.risk.flat_weights())[0])


def _first_that_counts(risk: EmpiricalRisk) -> int:
    """The smallest power of two of first examples of which one has a label that counts; or the first batch."""
    batch, count = next(iter(risk.all_batches)), 1
    while count < risk.lengths[0] and not risk.weight_of(split_batch(batch, count)[0]):
        count *= 2
    return count


def _of_vectors(like: Tensor, steps: int, storage: torch.dtype, clock: Clock) -> float:
    """Seconds of the work with vectors in a Lanczos step, at most; in the mean over some steps."""
    start = like[:_NUMBERS]
    diagonal = torch.linspace(0, 1, start.numel(), dtype=like.dtype, device=like.device)
    basis = Basis(start, storage)
    for _ in range(_STEPS):
        basis.append(start)

    def run() -> None:
        lanczos = Lanczos(lambda vector: diagonal * vector, start, storage, (start, start))
        for _ in range(_STEPS):
            lanczos.step()

    step = _timed(run, clock) / _STEPS
    read = _timed(lambda: basis.remove_from([start.clone(), start.clone()], _STEPS), clock) / (2 * _STEPS)
    return (step + _READS * steps / 2 * read) * like.numel() / start.numel()


def _timed(call: Callable[[], object], clock: Clock) -> float:
    """The shortest of a few times, as other work of the machine makes some longer; a single one if it is long."""
    seconds: list[float] = []
    while len(seconds) < _REPEATS and sum(seconds) < _ENOUGH:
        began = clock()
        call()
        seconds.append(clock() - began)
    return min(seconds)


def _in_float32(model: nn.Module) -> int:
    """Bytes of the copies in float32 of weights that have half precision."""
    return sum(4 * p.numel() for p in model.parameters() if is_half(p))


def _size(number: int) -> str:
    """A number of bytes in the unit that a person would use."""
    return f"{number / (1 << 20):.0f} MiB" if number < 1 << 30 else f"{number / (1 << 30):.1f} GiB"
