"""Learning-rate schedules as one function of the epoch."""

import math
from collections.abc import Sequence

__all__ = ["learning_rate_factor"]


def learning_rate_factor(
    epoch: int,
    epochs: int,
    kind: str = "constant",
    warmup_epochs: int = 0,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
) -> float:
    """What the learning rate is multiplied by in ``epoch`` (from 0) of ``epochs``.

    >>> [learning_rate_factor(e, 10, "steps", milestones=(4, 8)) for e in (0, 4, 9)]
    [1.0, 0.1, 0.010000000000000002]
    >>> learning_rate_factor(0, 10, warmup_epochs=5)
    0.2
    """
    if epoch < warmup_epochs:
        return (epoch + 1) / warmup_epochs
    if kind == "cosine":
        done = (epoch - warmup_epochs) / max(1, epochs - warmup_epochs)
        return (1 + math.cos(math.pi * done)) / 2
    if kind == "steps":
        return gamma ** sum(epoch >= milestone for milestone in milestones) * 1.0
    return 1.0
