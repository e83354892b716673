"""Fixed-sequence testing of masks and repaired networks: the statistics of `certify`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from howsparse.errors import InputError
from howsparse.limit.certificate import Step
from howsparse.limit.paired import Test, betting_p_value, paired_p_value, smallest_sample
from howsparse.pruning.masks import Mask
from howsparse.pruning.network import PrunedNetwork
from howsparse.pruning.restoring import restored
from howsparse.risk.outcomes import Outcomes

__all__ = [
    "Candidate",
    "Held",
    "Question",
    "as_mask",
    "check_confidence",
    "check_drop",
    "held_values",
    "run_tests",
]

Array = NDArray[np.float64]
Candidate = Mask | PrunedNetwork


@dataclass(frozen=True)
class Question:
    """What is to be certified.

    Attributes:
        max_drop: largest allowed drop of the mean score, as a fraction.
        tolerance: largest allowed rise of the mean loss; either this or ``max_drop`` is given.
        loss_bound: with ``tolerance``: the loss of one example counts as at most this.
        confidence: probability with which the certificate holds.

    Raises:
        InputError: the values do not fit together, or one is outside its range.

    >>> Question(tolerance=0.05, loss_bound=5.0).bound
    0.05
    """

    max_drop: float | None = None
    tolerance: float | None = None
    loss_bound: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if (self.max_drop is None) == (self.tolerance is None):
            raise InputError(
                "max_drop and tolerance are both given, or none; give max_drop, or tolerance with loss_bound"
            )
        check_confidence(self.confidence)
        if self.max_drop is not None:
            check_drop(self.max_drop)
        elif self.loss_bound is None:
            raise InputError("tolerance needs loss_bound; give the loss at which the loss of one example is cut off")
        elif not 0 < self.bound < self.loss_bound < np.inf:
            raise InputError(
                f"tolerance {self.bound:g} and loss_bound {self.loss_bound:g} do not fit;"
                " give 0 < tolerance < loss_bound"
            )

    @property
    def bound(self) -> float:
        """The allowed drop or rise."""
        return float(self.max_drop if self.max_drop is not None else self.tolerance or 0.0)

    @property
    def scale(self) -> float:
        """The largest value that one example can have."""
        return 1.0 if self.loss_bound is None else self.loss_bound

    @property
    def level(self) -> float:
        """Level of each test: 1 - confidence."""
        return round(1 - self.confidence, 12)


@dataclass(frozen=True)
class Held:
    """The value of each held-out example before pruning, and the test that fits these values.

    Attributes:
        counts: number of predictions of each example.
        used: which examples have a value.
        values: values of these examples: scores, or losses clipped to [0, loss_bound].
        test: name of the test.
    """

    counts: NDArray[np.int64]
    used: NDArray[np.bool_]
    values: Array
    test: Test


def held_values(found: Outcomes, question: Question) -> Held:
    """The value of each example before pruning, and the test that fits these values.

    Args:
        found: what the network does on the held-out examples before pruning.
        question: what is to be certified.

    Raises:
        InputError: no example has a value, a score is outside [0, 1], or the examples are too few to certify anything.

    >>> found = Outcomes(np.zeros(500), np.ones(500), np.ones(500, dtype=np.int64))
    >>> held_values(found, Question(max_drop=0.01)).test
    'exact paired'
    """
    raw = found.losses if question.max_drop is None else found.scores
    assert raw is not None  # checked by `certify`
    used = (found.counts > 0) & ~np.isnan(raw)
    if not used.any():
        raise InputError("no held-out example has a prediction that counts; check labels and loss")
    values = raw[used]
    test: Test = "betting"
    if question.max_drop is None:
        values = np.clip(values, 0.0, question.scale)
    else:
        _check_scores(values)
        single = bool((found.counts[used] == 1).all())  # of several predictions, the mean can be any number
        test = "exact paired" if single and set(np.unique(values)) <= {0.0, 1.0} else "betting"
    needed = smallest_sample(question.bound / question.scale, question.level, test)
    if len(values) < needed:
        what = "rise" if question.max_drop is None else "drop"
        raise InputError(
            f"{len(values):,} held-out examples are too few to certify a {what} of at most {question.bound:g} with"
            f" {100 * question.confidence:g} % confidence; give at least {needed:,}"
        )
    return Held(found.counts, used, values, test)


def _check_scores(scores: Array) -> None:
    if scores.min() < 0 or scores.max() > 1:
        raise InputError(
            f"the metric has values from {scores.min():g} to {scores.max():g}; a certificate needs values in [0, 1]"
        )


def run_tests(
    model: nn.Module,
    sequence: Iterable[Candidate],
    look: Callable[[], Outcomes],
    held: Held,
    question: Question,
    on_point: Callable[[Step], None],
) -> tuple[list[Step], Candidate | None]:
    """Test masks, or networks that were pruned and repaired, until one does not pass.

    Args:
        model: any module; it comes back as it was.
        sequence: what is tested, in this order. Neither the order nor the masks or networks may depend on the held-out
            examples.
        look: evaluates ``model`` as it is on the held-out examples.
        held: the values before pruning.
        question: what is to be certified.
        on_point: called with each test.

    Returns:
        All tests that were made, and the last candidate that passed; None if the first one did not pass.

    Raises:
        InputError: the examples differ from pass to pass, or a score does not fit those before pruning.

    >>> same = Outcomes(np.zeros(500), np.ones(500), np.ones(500, dtype=np.int64))
    >>> question, mask = Question(max_drop=0.01), Mask(weight=nn.Linear(2, 1).weight.new_tensor([[1, 0]]).bool())
    >>> steps, certified = run_tests(
    ...     nn.Linear(2, 1), [mask], lambda: same, held_values(same, question), question, lambda step: None
    ... )
    >>> steps[0].sparsity, certified is mask
    (0.5, True)
    """
    steps: list[Step] = []
    certified: Candidate | None = None
    for candidate in sequence:
        with restored(model):
            candidate.apply_(model)
            after = look()
        step = replace(_step(held, after, question), sparsity=candidate.sparsity)
        steps.append(step)
        on_point(step)
        if step.p_value > question.level:
            break
        certified = candidate
    return steps, certified


def as_mask(candidate: Candidate) -> Mask:
    """The mask of a candidate.

    >>> as_mask(Mask()) == Mask()
    True
    """
    return candidate.mask if isinstance(candidate, PrunedNetwork) else candidate


def _step(held: Held, after: Outcomes, question: Question) -> Step:
    """The test of one pruned network. A value that is NaN after pruning counts as the worst possible value."""
    if not np.array_equal(after.counts, held.counts):
        raise InputError("held_out differs from pass to pass; turn shuffling and augmentation off, or pass a list")
    if question.max_drop is None:
        values = np.clip(np.nan_to_num(after.losses[held.used], nan=question.scale), 0.0, question.scale)
        drops = (values - held.values) / question.scale
    else:
        assert after.scores is not None
        values = np.nan_to_num(after.scores[held.used], nan=0.0)
        _check_scores(values)
        drops = held.values - values
    lost, won = int((drops > 0).sum()), int((drops < 0).sum())
    if held.test == "betting":
        p_value = betting_p_value(drops, question.bound / question.scale, question.level)
    elif set(np.unique(values)) <= {0.0, 1.0}:
        p_value = paired_p_value(lost, won, len(drops), question.bound, question.level)
    else:
        raise InputError("the metric is 0 or 1 before pruning, but not after; use one that is 0 or 1 for every network")
    return Step(0.0, lost, won, float(values.mean()), p_value)


def check_drop(max_drop: float) -> None:
    """Raise an `InputError` if ``max_drop`` is outside (0, 1).

    >>> check_drop(0.01)
    """
    if not 0 < max_drop < 1:
        raise InputError(f"max_drop {max_drop:g} is outside (0, 1); give a fraction: 0.01 for one point")


def check_confidence(confidence: float) -> None:
    """Raise an `InputError` if ``confidence`` is outside (0.5, 1).

    >>> check_confidence(0.95)
    """
    if not 0.5 < confidence < 1:
        raise InputError(f"confidence {confidence:g} is outside (0.5, 1); give a fraction, for example 0.95")
