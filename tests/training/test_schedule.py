"""Schedules against torch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from howsparse.training.schedule import learning_rate_factor


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)


def rates(schedule: lr_scheduler.LRScheduler, epochs: int) -> list[float]:
    """The rate torch's scheduler sets in each epoch, for a base rate of 1."""
    found = []
    for _ in range(epochs):
        found.append(float(schedule.get_last_lr()[0]))
        schedule.optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_cosine(warmup: int) -> None:
    ours = [learning_rate_factor(e, 12, "cosine", warmup_epochs=warmup) for e in range(12)]
    theirs = rates(lr_scheduler.CosineAnnealingLR(optimizer(), 12 - warmup), 12 - warmup)
    assert ours[warmup:] == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(("milestones", "gamma"), [((3, 7), 0.1), ((), 0.5), ((0, 4, 4), 0.5), ((9,), 2.0)])
def test_steps(milestones: tuple[int, ...], gamma: float) -> None:
    ours = [learning_rate_factor(e, 10, "steps", milestones=milestones, gamma=gamma) for e in range(10)]
    product = [1.0] * 10
    for milestone in milestones:
        product = [f * gamma if e >= milestone else f for e, f in enumerate(product)]
    assert ours == pytest.approx(product, rel=1e-12)
    if 0 not in milestones:  # torch applies a milestone of 0 never, having started there
        assert ours == pytest.approx(rates(lr_scheduler.MultiStepLR(optimizer(), list(milestones), gamma), 10))


@pytest.mark.parametrize("kind", ["constant", "cosine", "steps"])
@pytest.mark.parametrize("warmup", [2, 5])
def test_warmup_is_linear_and_reaches_the_full_rate(kind: str, warmup: int) -> None:
    ours = [learning_rate_factor(e, 10, kind, warmup_epochs=warmup, milestones=(9,)) for e in range(10)]
    theirs = rates(lr_scheduler.LinearLR(optimizer(), 1 / warmup, total_iters=warmup - 1), warmup)
    assert ours[:warmup] == pytest.approx(theirs)
    assert ours[warmup - 1] == ours[warmup] == 1.0


@given(
    epochs=st.integers(1, 60),
    kind=st.sampled_from(["constant", "cosine", "steps"]),
    warmup=st.integers(0, 70),
    milestones=st.lists(st.integers(0, 60), max_size=3),
)
@settings(deadline=None)
def test_rises_to_one_then_never_rises(epochs: int, kind: str, warmup: int, milestones: list[int]) -> None:
    factors = [learning_rate_factor(e, epochs, kind, warmup, milestones) for e in range(epochs)]
    assert all(0 < factor <= 1 for factor in factors)
    head, tail = factors[:warmup], factors[warmup:]
    assert head == sorted(head)
    assert tail == sorted(tail, reverse=True)
