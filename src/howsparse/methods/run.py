"""`Run` and `Sparsity`: the arguments that every method takes besides a problem and a seed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from howsparse.errors import InputError
from howsparse.limit.options import Answer, LimitOptions
from howsparse.methods.ticket import Stage
from howsparse.progress import Progress
from howsparse.pruning.masks import Mask, check_sparsity
from howsparse.training import Epoch

__all__ = ["Run", "Sparsity", "parse_sparsity"]

Sparsity = float | str  # a fraction in [0, 1), or "limit" or "predicted" for a computed sparsity

_WORDS = (Answer.LIMIT, Answer.PREDICTED)


@dataclass(frozen=True)
class Run:
    """Settings of a run that do not change the method: the folder, the options of limits, and callbacks.

    Attributes:
        folder: folder in which trainings and limits are stored. All methods read stored entries instead of computing
            them again. A training or limit that was stopped continues and gives the same bits.
        examples: number of training examples for limits; by default all.
        limit: options of limits. The method's seed replaces their seed. The default tolerance is the standard deviation
            of the loss over mini-batches of 128 of all training examples.
        on_epoch: called as ``on_epoch(stage, epoch)`` after each epoch.
        on_stage: called as ``on_stage(stage, model, mask)`` after each training.
        on_limit: progress of limits, called as ``on_limit(stage, done, total)``.

    >>> run = Run(examples=1000, limit=LimitOptions(max_products=100))
    >>> run.folder is None
    True
    """

    folder: Path | None = None
    examples: int | None = None
    limit: LimitOptions = field(default=LimitOptions())
    on_epoch: Callable[[str, Epoch], None] = lambda stage, epoch: None
    on_stage: Callable[[Stage, nn.Module, Mask], None] = lambda stage, model, mask: None
    on_limit: Progress = lambda stage, done, total: None


def parse_sparsity(sparsity: Sparsity) -> float | Answer:
    """Read a sparsity: a fraction in [0, 1), or the name of an answer that is computed.

    Raises:
        InputError: ``sparsity`` is neither of these.

    >>> parse_sparsity("0.9"), parse_sparsity("limit")
    (0.9, <Answer.LIMIT: 'limit'>)
    """
    if sparsity in _WORDS:
        return Answer(str(sparsity))
    try:
        fraction = float(sparsity)
    except ValueError:
        raise InputError(
            f"sparsity '{sparsity}' is neither a fraction in [0, 1) nor {', '.join(_WORDS)}; correct it"
        ) from None
    return check_sparsity(fraction)
