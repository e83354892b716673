"""The record of the limit along the steps of an iterative method, for Figure 4."""

from typing import Literal

from howsparse.records.types import Record, Strict

__all__ = ["IterationRecord", "IterationStep"]


class IterationStep(Strict):
    """The state before one step of a method: the density, and the fractions of weights that must stay and that stay.

    Attributes:
        density: fraction of the weights that stay, before the step.
        needed: fraction of the weights that must stay by the limit.
        needed_low: lower end of its interval.
        needed_high: upper end of its interval.
        stays: fraction of the weights that stay after the step.
    """

    density: float
    needed: float
    needed_low: float
    needed_high: float
    stays: float


class IterationRecord(Record):
    """Figure 4: the limit along the steps of an iterative method.

    Attributes:
        kind: "iteration".
        problem: name of the problem.
        epochs: number of epochs of each training.
        seed: seed of initialisation, batches and probes.
        examples: number of examples for limits; None if all were used.
        target: sparsity at the end.
        method: name of the method with its options.
        steps: the state before each step.
        accuracy: accuracy on the test data at the end.
    """

    kind: Literal["iteration"] = "iteration"
    problem: str
    epochs: int
    seed: int
    examples: int | None
    target: float
    method: str
    steps: list[IterationStep]
    accuracy: float | None
