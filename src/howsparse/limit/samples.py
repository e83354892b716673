"""Nested samples of the data of a limit: their sizes, their numbers of steps, and their matrices."""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from howsparse.errors import InputError
from howsparse.linalg import Operator, Remembered
from howsparse.risk import GGN, EmpiricalRisk, Hessian, Sample
from howsparse.risk.losses import Loss
from howsparse.risk.spread import nested
from howsparse.store import Store

__all__ = ["LEAST_STEPS", "Samples", "risk_with_samples", "sample_sizes"]

_RATIO = 4  # between the numbers of examples of neighbours
LEAST_STEPS = 32  # of a sample above the base; fewer show less than the ratios of the smaller samples do
_ENOUGH = 2048  # examples for products that have no chain of samples: prediction, recovery, upper bound


def sample_sizes(num_examples: int, base: int) -> tuple[int, ...]:
    """Sizes of the nested samples, without that of all examples; empty if the base is half of them or more.

    The second is the base, which takes most steps. The first is a quarter of it and shows how ratios change with steps.

    >>> sample_sizes(16_000, 1000), sample_sizes(50_000, 1000), sample_sizes(1500, 1000)
    ((250, 1000, 4000), (250, 1000, 4000, 16000), ())
    """
    sizes = [base // _RATIO]
    while 2 * _RATIO * sizes[-1] < num_examples:
        sizes.append(_RATIO * sizes[-1])
    return tuple(sizes) if len(sizes) > 1 else ()


@dataclass(frozen=True)
class Samples:
    """Nested samples: each is the first batches of a risk, and the last is all of them.

    Attributes:
        ends: number of batches in each sample, increasing.
        examples: number of examples in each.
    """

    ends: tuple[int, ...]
    examples: tuple[int, ...]

    @property
    def base(self) -> int:
        """The sample that takes most steps: the second one, if there are several."""
        return min(1, len(self.ends) - 1)

    @property
    def enough(self) -> int:
        """The smallest sample from the base on that has enough examples, for parts of a limit that use one sample."""
        last = len(self.ends) - 1
        return next((i for i in range(self.base, last) if self.examples[i] >= _ENOUGH), last)

    def above(self, steps: int) -> Iterator[tuple[int, int]]:
        """The samples above the base, and their steps if the base takes ``steps``. All samples cost the same.

        If a sample would get fewer than 32 steps, this sample and all larger ones take none.
        """
        for i in range(self.base + 1, len(self.ends)):
            if (fewer := steps * self.examples[self.base] // self.examples[i]) >= LEAST_STEPS:
                yield i, fewer

    def matrix(self, curvature: Hessian | GGN, i: int, store: Store, name: str) -> Remembered:
        """The matrix of sample ``i``, whose products are stored under ``name`` and the sample's number of examples."""
        if i == len(self.ends) - 1:
            return Remembered(curvature, store, name)
        return Remembered(Sample(curvature, self.ends[i]), store, f"{name} {self.examples[i]}")

    def products(self, made: Iterable[tuple[int, Operator]]) -> int:
        """The number of products over all examples that cost as much as the products of all samples together."""
        return math.ceil(sum(matrix.num_products * self.examples[i] for i, matrix in made) / self.examples[-1])


def risk_with_samples(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    names: Iterable[str],
    population: int | None = None,
    sample: int | None = None,
) -> tuple[EmpiricalRisk, Samples]:
    """The empirical risk, and nested samples of its data.

    Args:
        model: the network; it is not changed.
        batches: batches that can be read several times.
        loss: ``loss(model, batch)``, mean over the batch.
        names: names of the weights under study.
        population: number of examples in the population, as in `LimitOptions`. If it is more than there are, there is
            one sample: the first half of the batches.
        sample: number of examples of the base, as in `LimitOptions`. The examples are then put into another order, so
            that each sample is spread over all of them.

    Raises:
        InputError: a larger population is given, but there is only one batch; or as for `EmpiricalRisk`.
    """
    risk = EmpiricalRisk(model, batches, loss, names)
    sizes = () if sample is None else sample_sizes(risk.num_examples, sample)
    if sizes:
        reordered, ends = nested(batches, sizes)
        if ends[0] > 0 and all(a < b for a, b in itertools.pairwise(ends)):
            risk = EmpiricalRisk(model, reordered, loss, names)
            return risk, _samples(risk, (*ends, len(risk.lengths)))
    count = len(risk.lengths)
    if population is None or population <= risk.num_examples:
        return risk, _samples(risk, (count,))
    if count < 2:
        raise InputError(
            "the data are one batch, but the sampling error needs two; pass smaller batches, or no population"
        )
    return risk, _samples(risk, (count // 2, count))


def _samples(risk: EmpiricalRisk, ends: tuple[int, ...]) -> Samples:
    return Samples(ends, tuple(sum(risk.lengths[:end]) for end in ends))
