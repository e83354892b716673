"""`Run` and `Sparsity`: what every method takes besides a problem and a seed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from howsparse.errors import InputError
from howsparse.limit.compute import Progress
from howsparse.limit.options import Answer, LimitOptions
from howsparse.methods.ticket import Stage
from howsparse.pruning.masks import Mask, check_sparsity
from howsparse.training import Epoch

__all__ = ["Run", "Sparsity", "parse_sparsity"]

Sparsity = float | str  # a fraction, or a word of `Answer` for one that is computed

_WORDS = (Answer.LIMIT, Answer.PREDICTED)


@dataclass(frozen=True)
class Run:
    """How a method is run, as opposed to what it does.

    Attributes:
        folder: where trainings and limits are kept. One that is there already is not computed again, whichever method
            asks for it, and one that was stopped goes on to the same bits.
        examples: training examples for limits; all unless given.
        limit: options of limits. Their seed is the method's; their tolerance, unless given, is the deviation of the
            loss over mini-batches of 128 of all training examples.
        on_epoch: called as ``on_epoch(stage, epoch)`` after each epoch.
        on_stage: called as ``on_stage(stage, model, mask)`` after each training.
        on_limit: progress of limits, called as ``on_limit(stage, done, total)``.
    """

    folder: Path | None = None
    examples: int | None = None
    limit: LimitOptions = field(default=LimitOptions())
    on_epoch: Callable[[str, Epoch], None] = lambda stage, epoch: None
    on_stage: Callable[[Stage, nn.Module, Mask], None] = lambda stage, model, mask: None
    on_limit: Progress = lambda stage, done, total: None


def parse_sparsity(sparsity: Sparsity) -> float | Answer:
    """A fraction in [0, 1), or the word for one that is computed.

    Raises:
        InputError: something else.

    >>> parse_sparsity("0.9"), parse_sparsity("limit")
    (0.9, <Answer.LIMIT: 'limit'>)
    """
    if sparsity in _WORDS:
        return Answer(str(sparsity))
    try:
        fraction = float(sparsity)
    except ValueError:
        raise InputError(f"sparsity '{sparsity}' is neither a fraction in [0, 1) nor {', '.join(_WORDS)}") from None
    return check_sparsity(fraction)
