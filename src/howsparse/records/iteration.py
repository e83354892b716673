"""The record of the limit along the steps of an iterative method, for Figure 4."""

from typing import Literal

from howsparse.records.types import Record, Strict

__all__ = ["IterationRecord", "IterationStep"]


class IterationStep(Strict):
    """One step of a method: the density before it, the fraction of weights that must stay, and the fraction that stays.

    Attributes:
        density: fraction of the weights that stay, before the step.
        needed: fraction of the weights that must stay according to the limit.
        needed_low: lower end of its interval.
        needed_high: upper end of its interval.
        stays: fraction of the weights that stay after the step.

    >>> IterationStep(density=0.5, needed=0.1, needed_low=0.09, needed_high=0.11, stays=0.4).stays
    0.4
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

    >>> from howsparse.records import provenance
    >>> first = IterationStep(density=1.0, needed=0.2, needed_low=0.19, needed_high=0.21, stays=0.5)
    >>> second = IterationStep(density=0.5, needed=0.3, needed_low=0.29, needed_high=0.31, stays=0.25)
    >>> about = {"problem": "digits", "method": "lottery_ticket", "epochs": 5, "seed": 0, "examples": None}
    >>> record = IterationRecord(made=provenance(), **about, target=0.75, steps=[first, second], accuracy=0.9)
    >>> [step.stays >= step.needed for step in record.steps]  # the second step removes more than the limit allows
    [True, False]
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
