"""How fast this machine is with a network: seconds and bytes of gradients, products and vectors, measured on a little.

A time grows with the number of examples as a line does: two pieces of the first batch give it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from howsparse.geometry import Magnitudes
from howsparse.limit.bracket import solve_bracket
from howsparse.limit.moved import curvature_of
from howsparse.limit.options import Curvature, LimitOptions
from howsparse.limit.prediction import predict_losses
from howsparse.linalg import Operator, Spectrum, grow_spectrum
from howsparse.linalg.quadrature import Tridiagonal
from howsparse.memory import available_memory
from howsparse.risk import EmpiricalRisk
from howsparse.risk.batches import batch_length, can_split, split_batch
from howsparse.risk.curvature import GGN, Hessian

__all__ = ["REBUILT", "DataRates", "MatrixRates", "VectorRates", "data_rates", "vector_rates"]

Clock = Callable[[], float]

_LEAST_EXAMPLES = 8
_REPEATS, _ENOUGH = 3, 0.1  # times of one thing, and the seconds after which it is not done again
_SHORT = 0.1  # seconds; pieces that take less are timed together
_LONG = 1.0  # seconds; a larger piece is timed only if it takes less
# Memory that comes and goes within a product, as a multiple of a batch's graph: with the graph kept; and with the graph
# built again, while the one before it is still there.
TEMPORARY, REBUILT = 0.5, 2.5
_TIMED_NUMBERS = 1 << 21  # vectors are timed at this length at most
_TIMED_STEPS = 24
_TOLERANCE = 0.1  # of the timed bracket and prediction, whose values do not matter


@dataclass(frozen=True)
class MatrixRates:
    """Time and memory of one matrix over all data.

    Attributes:
        begin: seconds until the graphs that are kept are built.
        product: seconds of a product.
        half: seconds of a product over the first half of the batches.
        kept: bytes of the graphs that are kept.
        work: bytes that come and go within a product.
        example: bytes of one example's graph.
    """

    begin: float
    product: float
    half: float
    kept: int
    work: int
    example: float


@dataclass(frozen=True)
class DataRates:
    """Seconds of one pass over all data, without and with a gradient; and the matrices in the order of their use."""

    forward: float
    gradient: float
    kinds: tuple[MatrixRates, ...]


@dataclass(frozen=True)
class VectorRates:
    """Seconds of the work beside products.

    Attributes:
        step: of a Lanczos step.
        pair: of making one Lanczos vector orthogonal to another.
        solving: of solving for the bracket, for each pair of steps.
        prediction: of the predicted curve, with all of its products.
    """

    step: float
    pair: float
    solving: float
    prediction: float


@dataclass(frozen=True)
class _Line:
    """Seconds or bytes as a function of the number of examples."""

    examples: int
    value: float
    slope: float

    def at(self, examples: int) -> float:
        return max(0.0, self.value + self.slope * (examples - self.examples))


def data_rates(risk: EmpiricalRisk, kinds: Sequence[Curvature], memory: int, clock: Clock) -> DataRates:
    """Time gradients and products on pieces of the first batch; scale them to all batches.

    Args:
        risk: the empirical risk; its model is not changed.
        kinds: the matrices.
        memory: bytes for stored graphs.
        clock: gives the time in seconds.
    """
    first = next(iter(risk.all_batches))
    lengths = risk.lengths
    small = _piece(risk, first, _LEAST_EXAMPLES)
    timed, found = [batch_length(small)], [_measured(risk, small, kinds, clock)]
    largest = max(max(1.0, found[0][f"{kind} bytes"]) for kind in kinds)
    slowest = max(max(1e-6, value) for name, value in found[0].items() if not name.endswith("bytes"))
    larger = int(timed[0] * min(_LONG / slowest, available_memory(risk.device) / (16 * largest)))
    larger = min(larger, batch_length(first))
    copies = max(1, min(len(lengths), int(_SHORT / slowest)))
    if larger > timed[0] or copies > 1:
        again = larger <= timed[0]
        timed, found = ([], []) if again else (timed, found)
        piece = small if again else _piece(risk, first, larger)
        found.append(_measured(risk, piece, kinds, clock, copies))
        timed.append(batch_length(piece))
    lines = {name: _line(timed, [each[name] for each in found]) for name in found[0]}
    matrices = tuple(_over_all(lengths, memory, lines, kind) for kind in kinds)
    return DataRates(_sum(lines["forward"], lengths), _sum(lines["gradient"], lengths), matrices)


def vector_rates(risk: EmpiricalRisk, options: LimitOptions, sampled: bool, clock: Clock) -> VectorRates:
    """Time Lanczos steps, a bracket and a predicted curve on a diagonal matrix.

    Args:
        risk: the empirical risk.
        options: options of the limit.
        sampled: whether the bracket also has the error of sampled data.
        clock: gives the time in seconds.
    """
    flat = risk.flat_weights()
    vector = flat[:_TIMED_NUMBERS]
    share = flat.numel() / vector.numel()
    free = _Diagonal(torch.linspace(0, 1, vector.numel(), dtype=flat.dtype, device=flat.device).pow_(8))

    def lanczos(steps: int) -> None:
        for _ in islice(grow_spectrum(free, vector), steps):
            pass

    half, whole = (_timed(clock, partial(lanczos, steps)) for steps in (_TIMED_STEPS // 2, _TIMED_STEPS))
    pairs = [count * (count - 1) / 2 for count in (_TIMED_STEPS // 2, _TIMED_STEPS)]
    pair = max(0.0, (whole - 2 * half) / (pairs[1] - 2 * pairs[0]))
    step = max(0.0, (whole - pair * pairs[1]) / _TIMED_STEPS)
    prediction = _timed(clock, partial(predict_losses, free, vector, vector, _TOLERANCE))
    solving = _solving(vector, options, clock) * (2 if sampled else 1)
    return VectorRates(share * step, share * pair, solving, share * prediction)


class _Diagonal(Operator):
    """A diagonal matrix. Its products cost next to nothing."""

    def __init__(self, values: Tensor) -> None:
        self._values = values

    @property
    def shape(self) -> tuple[int, int]:
        return self._values.numel(), self._values.numel()

    @property
    def dtype(self) -> torch.dtype:
        return self._values.dtype

    @property
    def device(self) -> torch.device:
        return self._values.device

    @property
    def num_products(self) -> int:
        return 0

    def _matvec(self, vector: Tensor) -> Tensor:
        return self._values * vector


def _solving(weights: Tensor, options: LimitOptions, clock: Clock) -> float:
    """Seconds of solving for the bracket, for each pair of steps.

    It is solved again whenever the steps have become an eighth more, so at k steps these solutions add up to about four
    times the last one, which has k eigenvalues and takes a time in proportion to the square of k. The last is searched.
    """
    steps = max(8, min(128, options.max_products * 3 // 4 // options.probes))
    generator = np.random.default_rng(0)
    tridiagonal = Tridiagonal(generator.uniform(0.4, 0.6, steps), np.full(steps, 0.2))
    spectrum = Spectrum((tridiagonal,) * options.probes, weights.numel())
    magnitudes = Magnitudes(weights.cpu().numpy())
    solve = partial(solve_bracket, spectrum, magnitudes, _TOLERANCE, options.filter_factor)
    seconds = 4 * _timed(clock, partial(solve, search=False)) + 2 * _timed(clock, partial(solve, search=True))
    return seconds / (steps * (steps - 1) / 2)


def _measured(
    risk: EmpiricalRisk, piece: Any, kinds: Sequence[Curvature], clock: Clock, copies: int = 1
) -> dict[str, float]:
    """Seconds and bytes on one piece of a batch; short ones on some copies, as a product has fixed costs of its own."""
    own = EmpiricalRisk(risk.model, [piece] * copies, risk.loss, risk.names)
    vector = own.flat_weights()

    def timed(call: Callable[[], object]) -> float:
        return _timed(clock, call) / copies

    found = {"forward": timed(own.value), "gradient": timed(own.gradient)}
    for kind in kinds:
        matrix: Hessian | GGN = curvature_of(own, kind, memory=1 << 60)
        found[f"{kind} bytes"] = matrix.graph_bytes() * batch_length(piece)
        matrix @ vector
        found[f"{kind} product"] = timed(partial(matrix.__matmul__, vector))
        del matrix
        rebuilt = curvature_of(own, kind, memory=0)
        found[f"{kind} graph"] = max(0.0, timed(partial(rebuilt.__matmul__, vector)) - found[f"{kind} product"])
    return found


def _timed(clock: Clock, call: Callable[[], object]) -> float:
    """The median of a few times; of a single one if it is long. The first call can be slower and does not count."""
    call()
    seconds: list[float] = []
    while len(seconds) < _REPEATS and sum(seconds) < _ENOUGH:
        began = clock()
        call()
        seconds.append(clock() - began)
    return median(seconds)


def _over_all(lengths: Sequence[int], memory: int, lines: dict[str, _Line], kind: Curvature) -> MatrixRates:
    """One matrix over all batches: as many graphs are kept as fit into ``memory``."""
    graph, product = lines[f"{kind} graph"], lines[f"{kind} product"]
    example = lines[f"{kind} bytes"].at(lengths[0]) / lengths[0]
    kept = sum(example * count <= memory for count in accumulate(lengths)) if memory > 0 else 0
    half = len(lengths) // 2
    largest = example * max(lengths)
    work = largest * (TEMPORARY if kept == len(lengths) else REBUILT)
    counted = graph.at(lengths[0]) if memory > 0 else 0.0  # the first batch's is built once more, to count its bytes
    return MatrixRates(
        _sum(graph, lengths[:kept]) + counted,
        _sum(product, lengths) + _sum(graph, lengths[kept:]),
        _sum(product, lengths[:half]) + _sum(graph, lengths[kept:half]),
        int(example * sum(lengths[:kept])),
        int(work),
        example,
    )


def _piece(risk: EmpiricalRisk, batch: Any, size: int) -> Any:
    """The first examples of a batch, with a label that counts; all of them, if it cannot be split."""
    while can_split(batch) and batch_length(batch) > size:
        piece = split_batch(batch, size)[0]
        if risk.weight_of(piece):
            return piece
        size *= 2
    return batch


def _line(examples: Sequence[int], values: Sequence[float]) -> _Line:
    """The line through two points; through the origin if there is only one."""
    if len(examples) == 1:
        return _Line(examples[0], values[0], values[0] / examples[0])
    slope = (values[1] - values[0]) / (examples[1] - examples[0])
    return _Line(examples[1], values[1], max(0.0, slope))


def _sum(line: _Line, lengths: Sequence[int]) -> float:
    return sum(line.at(length) for length in lengths)
