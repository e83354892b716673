"""Learning-rate schedules: the factor of each epoch, from torch's own schedulers."""

import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, SequentialLR

__all__ = ["Schedule", "attach_schedule", "iteration_factor", "learning_rate_factors"]


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes from epoch to epoch.

    Attributes:
        kind: the shape after the warm-up. "constant" stays at 1; "cosine" falls from 1 towards 0 at the end of
            training, along half a cosine; "steps" is multiplied by ``gamma`` at each milestone.
        warmup_epochs: number of epochs in which the factor rises linearly to 1; epoch e has (e + 1) / warmup_epochs.
        milestones: epochs at which "steps" multiplies, counted from the start of training, warm-up included.
        gamma: factor of "steps" at each milestone.
        unit: "epoch", or "iteration" as in the code of the paper's authors. The factor then changes in each iteration
            (see `iteration_factor`), and milestones are numbers of iterations.

    >>> learning_rate_factors(Schedule("steps", milestones=(2,)), epochs=4)
    [1.0, 1.0, 0.1, 0.1]
    """

    kind: Literal["constant", "cosine", "steps"] = "constant"
    warmup_epochs: int = 0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    unit: Literal["epoch", "iteration"] = "epoch"


def learning_rate_factors(schedule: Schedule, epochs: int) -> list[float]:
    """The factors of the learning rate in each epoch, for the unit "epoch".

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


def iteration_factor(schedule: Schedule, epochs: int, steps: int, iteration: int) -> float:
    """The factor of the learning rate in an iteration, for the unit "iteration".

    The warm-up rises over its epochs, a bit in each iteration. After it, the numbers that are epochs for the unit
    "epoch" are iterations: "cosine" falls to 0 in as many iterations as the training has epochs, rises again, and so
    on; and milestones are counted in iterations from the start. A milestone inside of the warm-up has no effect,
    because the warm-up sets the rate anew in each iteration.

    Args:
        schedule: the shape of the schedule.
        epochs: number of epochs of the training.
        steps: number of iterations of an epoch.
        iteration: number of the iteration in the whole training, from 0.

    Returns:
        The factor.

    >>> schedule = Schedule("cosine", unit="iteration")
    >>> [round(iteration_factor(schedule, 200, 391, iteration), 3) for iteration in (0, 100, 200, 400)]
    [1.0, 0.5, 0.0, 1.0]
    """
    warmup = schedule.warmup_epochs * steps
    if iteration < warmup:
        return (iteration + 1) / warmup
    if schedule.kind == "cosine":
        return (1 + math.cos(math.pi * iteration / epochs)) / 2
    if schedule.kind == "steps":
        return schedule.gamma ** sum(warmup < milestone <= iteration for milestone in schedule.milestones)
    return 1.0


def attach_schedule(
    optimizer: torch.optim.Optimizer, schedule: Schedule, epochs: int, steps: int
) -> Callable[[int], None]:
    """Change the learning rates of ``optimizer`` before each step, for the unit "iteration".

    Args:
        optimizer: its present learning rates are those of factor 1.
        schedule: the shape of the schedule.
        epochs: number of epochs of the training.
        steps: number of iterations of an epoch.

    Returns:
        A function to call before each epoch with its number, so that a training can continue from any epoch.
    """
    learning_rates = [group["lr"] for group in optimizer.param_groups]
    iterations = itertools.count()

    def before_epoch(epoch: int) -> None:
        nonlocal iterations
        iterations = itertools.count(epoch * steps)

    def before_step(*_: object) -> None:
        factor = iteration_factor(schedule, epochs, steps, next(iterations))
        for group, learning_rate in zip(optimizer.param_groups, learning_rates, strict=True):
            group["lr"] = learning_rate * factor

    optimizer.register_step_pre_hook(before_step)
    return before_epoch


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
