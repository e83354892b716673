"""Learning-rate schedules: the factor of each epoch, from torch's own schedulers."""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, SequentialLR

__all__ = ["Schedule", "learning_rate_factors"]


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes from epoch to epoch.

    Attributes:
        kind: the shape after the warm-up. "constant" stays at 1; "cosine" falls from 1 towards 0 at the end of
            training, along half a cosine; "steps" is multiplied by ``gamma`` at each milestone.
        warmup_epochs: number of epochs in which the factor rises linearly to 1; epoch e has (e + 1) / warmup_epochs.
        milestones: epochs at which "steps" multiplies, counted from the start of training, warm-up included.
        gamma: factor of "steps" at each milestone.

    >>> learning_rate_factors(Schedule("steps", milestones=(2,)), epochs=4)
    [1.0, 1.0, 0.1, 0.1]
    """

    kind: Literal["constant", "cosine", "steps"] = "constant"
    warmup_epochs: int = 0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1


def learning_rate_factors(schedule: Schedule, epochs: int) -> list[float]:
    """The factors of the learning rate in each epoch.

    Args:
        schedule: the shape of the schedule.
        epochs: number of epochs of the training.

    Returns:
        One factor for each epoch.

    >>> factors = learning_rate_factors(Schedule("steps", warmup_epochs=2, milestones=(3, 5)), 6)
    >>> [round(factor, 6) for factor in factors]
    [0.5, 1.0, 1.0, 0.1, 0.1, 0.01]
    """
    optimizer = torch.optim.SGD([torch.zeros((), requires_grad=True)], lr=1.0)
    factors = []
    with warnings.catch_warnings():
        # The optimizer takes no steps, because global optimizer hooks would run; torch warns of the missing steps.
        warnings.simplefilter("ignore", UserWarning)
        scheduler = _scheduler(schedule, epochs, optimizer)
        for _ in range(epochs):
            factors.append(float(optimizer.param_groups[0]["lr"]))
            scheduler.step()
    return _with_passed_milestones(factors, schedule)


def _scheduler(schedule: Schedule, epochs: int, optimizer: torch.optim.Optimizer) -> LRScheduler:
    warmup = schedule.warmup_epochs
    after: LRScheduler
    if schedule.kind == "cosine":
        after = CosineAnnealingLR(optimizer, max(1, epochs - warmup))
    elif schedule.kind == "steps":
        later = [milestone - warmup for milestone in schedule.milestones if milestone > warmup]
        after = MultiStepLR(optimizer, later, schedule.gamma)
    else:
        after = ConstantLR(optimizer, factor=1.0, total_iters=0)
    if not warmup:
        return after
    rise = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
    return SequentialLR(optimizer, [rise, after], [warmup])


def _with_passed_milestones(factors: list[float], schedule: Schedule) -> list[float]:
    """Apply the milestones before the end of the warm-up, which torch would ignore."""
    warmup = schedule.warmup_epochs
    if schedule.kind != "steps":
        return factors
    passed = schedule.gamma ** sum(milestone <= warmup for milestone in schedule.milestones)
    return factors[:warmup] + [factor * passed for factor in factors[warmup:]]
