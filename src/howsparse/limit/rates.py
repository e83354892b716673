"""Seconds and bytes of the parts of a limit, timed before it starts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from howsparse.limit.budget import plan_budget
from howsparse.limit.moved import curvature_of
from howsparse.limit.options import LimitOptions
from howsparse.linalg import Lanczos
from howsparse.linalg.basis import Basis
from howsparse.memory import resident_memory
from howsparse.risk import GGN, EmpiricalRisk, Hessian
from howsparse.risk.batches import FirstExamples, split_batch

__all__ = ["Clock", "Rates", "VectorWork", "rates_of", "vector_work", "warm_up"]

Clock = Callable[[], float]

_SHORT = 0.05  # seconds; if a product over some examples takes less, more examples are timed
_FIRST = 32  # examples that are timed first; their graphs show how many fit into memory
_SHARE = 0.01  # of all products' examples: so many are timed at most; as much time may go into repeating the product
_LEAST, _MOST, _ENOUGH = 2, 9, 0.1  # times that one thing is timed; seconds after which it is timed no more
_LANCZOS, _STEPS, _STORED = 1 << 20, 3, 16  # length of the vectors of Lanczos steps that are timed, and their numbers
_SORTED, _SORTS = 1 << 18, 4.5  # length of the vector that is sorted; sorts that the prediction and the layers take
_READS = (
    0.3  # of all stored vectors in each step, to restore orthogonality; 0.13 to 0.45 on the networks of docs/cost.md
)
_LATER = 40 << 20  # bytes of code, and of buffers of the libraries, that come after the first product
_LIBRARIES = 64 << 20  # bytes that torch and SciPy load when they are first used, where the system does not say


@dataclass(frozen=True)
class Rates:
    """Seconds and bytes of graphs and products.

    Attributes:
        prepared: seconds before the first graph: trying convolutions, counting bytes.
        graph: seconds of one example's graph.
        product: mean seconds of one example in a product.
        fixed: seconds of a product without examples.
        example: bytes of an example's graph.
    """

    prepared: float
    graph: float
    product: float
    fixed: float
    example: float


@dataclass(frozen=True)
class VectorWork:
    """Seconds of the vector operations.

    Attributes:
        step: of a Lanczos step, in the mean over all steps.
        prediction: of the prediction and the costs of the layers, which sort the weights.
    """

    step: float
    prediction: float


def warm_up(device: torch.device) -> int:
    """Let torch load the code that second derivatives need, which takes longer than a product of a small network.

    Returns:
        Bytes that a limit loads, with those that were loaded here.
    """
    before = resident_memory()
    with torch.random.fork_rng(devices=[]):
        model = nn.Linear(2, 2).to(device)
    _multiply(Hessian(EmpiricalRisk(model, [(torch.eye(2), torch.arange(2))])))
    after = resident_memory()
    return _LIBRARIES if before is None or after is None else max(0, after - before) + _LATER


def rates_of(risk: EmpiricalRisk, options: LimitOptions, recovering: bool, room: int, clock: Clock) -> Rates:
    """Time graphs and products of a whole batch, or of more if that is short.

    This is a small part of the limit's work, and fits into memory. The GGN comes first, as in the limit: later graphs
    then reuse the memory of the process, which makes a product up to 1.5 times faster.

    Args:
        risk: the empirical risk.
        options: options of the limit.
        recovering: whether the recovery takes the GGN, and the rest takes the Hessian.
        room: bytes that are free.
        clock: gives the time in seconds.
    """
    share = _SHARE * options.max_products * risk.num_examples
    most = max(1, min(int(share), risk.num_examples))
    count = max(_first_that_counts(risk), min(_FIRST, most, risk.lengths[0]))
    kind = "ggn" if recovering else options.curvature
    while True:
        own = EmpiricalRisk(risk.model, FirstExamples(risk.all_batches, count), risk.loss, risk.names)
        count, matrix = own.num_examples, curvature_of(own, kind, memory=1 << 60)
        prepared, first = _first(matrix, clock)
        wanted = most if _again(matrix, clock) <= _SHORT else min(most, risk.lengths[0])
        larger = min(4 * count, wanted, int(room / (8 * matrix.graph_bytes() + 1)))
        if larger <= count:
            break
        count = larger
    times = max(_LEAST, int(share / count))
    product = other = _again(matrix, clock, _LEAST if recovering else times)
    if recovering:
        matrix = curvature_of(own, options.curvature, memory=1 << 60)  # the GGN's graphs go
        prepared, first = _first(matrix, clock)
        product = _again(matrix, clock, times)
    fixed = _timed(lambda: _multiply(matrix, 0), clock)
    part = plan_budget(options.max_products, 1, False).recovery / options.max_products
    mean = (1 - part) * product + part * other
    graph = max(0.0, first - product) / count
    return Rates(prepared, graph, max(0.0, mean - fixed) / count, fixed, matrix.graph_bytes())


def vector_work(like: Tensor, steps: int, storage: torch.dtype, clock: Clock) -> VectorWork:
    """Time the vector operations on shorter vectors, with a matrix whose products cost nothing.

    Args:
        like: the weights, ``(n,)``.
        steps: number of Lanczos steps of each probe.
        storage: dtype of the stored vectors.
        clock: gives the time in seconds.
    """
    start, few = like[:_LANCZOS], like[:_SORTED]
    diagonal = torch.linspace(0, 1, start.numel(), dtype=like.dtype, device=like.device)
    basis = Basis(start, storage)
    for _ in range(min(steps, _STORED)):
        basis.append(start)

    def run() -> None:
        lanczos = Lanczos(lambda vector: diagonal * vector, start, storage, (start, start))
        for _ in range(_STEPS):
            lanczos.step()

    step = _timed(run, clock) / _STEPS
    read = _timed(lambda: basis.remove_from([start.clone(), start.clone()], len(basis)), clock) / (2 * len(basis))
    sort = _timed(lambda: float(few.abs().argsort(stable=True)[0]), clock)
    longer = like.numel() / few.numel() * math.log2(like.numel() + 1) / math.log2(few.numel() + 1)
    return VectorWork((step + _READS * steps * read) * like.numel() / start.numel(), _SORTS * sort * longer)


def _first(matrix: Hessian | GGN, clock: Clock) -> tuple[float, float]:
    """Seconds before the first graph, and of the graphs with their first product."""
    return _timed(matrix.graph_bytes, clock, 1), _timed(lambda: _multiply(matrix), clock, 1)


def _again(matrix: Hessian | GGN, clock: Clock, times: int = 1) -> float:
    """Seconds of a product through graphs that exist."""
    return _timed(lambda: _multiply(matrix), clock, times)


def _multiply(matrix: Hessian | GGN, batches: int | None = None) -> float:
    """Multiply over the first batches, by default all. A value is read at the end, because a GPU computes later."""
    count = len(matrix.risk.lengths) if batches is None else batches
    return float(matrix.over_first(count, matrix.risk.flat_weights())[0])


def _first_that_counts(risk: EmpiricalRisk) -> int:
    """The first examples: the smallest power of two with a label that counts; else the first batch."""
    batch, count = next(iter(risk.all_batches)), 1
    while count < risk.lengths[0] and not risk.weight_of(split_batch(batch, count)[0]):
        count *= 2
    return count


def _timed(call: Callable[[], object], clock: Clock, times: int = _LEAST) -> float:
    """The median of this number of times, or of more if they are short; one time if one is asked for."""
    seconds: list[float] = []
    while len(seconds) < times or (times > 1 and sum(seconds) < _ENOUGH):
        began = clock()
        call()
        seconds.append(clock() - began)
        if len(seconds) == _MOST:
            break
    return median(seconds)
