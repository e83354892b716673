"""The factors against formulas and against lists written by hand."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.optimizer import register_optimizer_step_post_hook

from howsparse.training.schedule import Schedule, attach_schedule, iteration_factor, learning_rate_factors


@pytest.mark.parametrize("warmup", [0, 1, 3, 5])
@pytest.mark.parametrize("epochs", [1, 12, 200])
def test_cosine_falls_from_one_to_zero_at_the_end(warmup: int, epochs: int) -> None:
    found = learning_rate_factors(Schedule("cosine", warmup_epochs=warmup), epochs)
    length = epochs - warmup
    expected = [(e + 1) / warmup for e in range(min(warmup, epochs))]
    expected += [math.cos(math.pi * e / (2 * length)) ** 2 for e in range(length)]
    assert found == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(), [1, 1, 1, 1, 1, 1]),
        (Schedule(warmup_epochs=1), [1, 1, 1, 1, 1, 1]),
        (Schedule(warmup_epochs=4), [1 / 4, 1 / 2, 3 / 4, 1, 1, 1]),
        (Schedule(warmup_epochs=10), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),  # longer than the training
        (Schedule("cosine", warmup_epochs=10), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
        (Schedule("steps", milestones=(2, 4)), [1, 1, 0.1, 0.1, 0.01, 0.01]),
        (Schedule("steps", gamma=0.5), [1, 1, 1, 1, 1, 1]),
        (Schedule("steps", milestones=(3, 3), gamma=0.5), [1, 1, 1, 0.25, 0.25, 0.25]),
        (Schedule("steps", milestones=(4, 1), gamma=2.0), [1, 2, 2, 2, 4, 4]),
        (Schedule("steps", milestones=(0, 5), gamma=0.5), [0.5, 0.5, 0.5, 0.5, 0.5, 0.25]),
        (Schedule("steps", 2, (4,), 0.5), [0.5, 1, 1, 1, 0.5, 0.5]),  # counted from the start, not from the warm-up
        (Schedule("steps", 3, (0, 1, 5), 0.5), [1 / 3, 2 / 3, 1, 0.25, 0.25, 0.125]),  # passed during the warm-up
        (Schedule("steps", 3, (3,), 0.5), [1 / 3, 2 / 3, 1, 0.5, 0.5, 0.5]),
        (Schedule("steps", 2, (9,)), [0.5, 1, 1, 1, 1, 1]),
    ],
)
def test_factors_by_hand(schedule: Schedule, expected: list[float]) -> None:
    assert learning_rate_factors(schedule, 6) == pytest.approx(expected, rel=1e-12)


@given(
    epochs=st.integers(1, 40),
    kind=st.sampled_from(["constant", "cosine", "steps"]),
    warmup=st.integers(0, 50),
    milestones=st.lists(st.integers(0, 40), max_size=3),
)
@settings(deadline=None, max_examples=50)
def test_rises_to_one_then_never_rises(epochs: int, kind: str, warmup: int, milestones: list[int]) -> None:
    factors = learning_rate_factors(Schedule(kind, warmup, tuple(milestones)), epochs)  # type: ignore[arg-type]
    assert len(factors) == epochs
    assert all(0 < factor <= 1 + 1e-12 for factor in factors)
    head, tail = factors[:warmup], factors[warmup:]
    assert head == sorted(head)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(tail))


def test_hooks_on_all_optimizers_see_no_steps() -> None:
    steps: list[object] = []
    handle = register_optimizer_step_post_hook(lambda *arguments: steps.append(arguments))
    try:
        learning_rate_factors(Schedule("steps", 2, (3,)), 6)
    finally:
        handle.remove()
    assert steps == []


def test_by_iterations_half_a_cosine_takes_as_many_iterations_as_there_are_epochs() -> None:
    # torch's own scheduler with a step for each iteration, as the code of the paper's authors has it
    sgd = torch.optim.SGD([torch.zeros((), requires_grad=True)], lr=1.0)
    scheduler, expected = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 20), []
    for _ in range(100):
        expected.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    schedule = Schedule("cosine", unit="iteration")
    assert [iteration_factor(schedule, 20, 5, i) for i in range(100)] == pytest.approx(expected, abs=1e-12)


def test_by_iterations_the_warm_up_takes_its_epochs_and_hides_milestones() -> None:
    schedule = Schedule("steps", 2, (3, 13), 0.5, unit="iteration")
    factors = [iteration_factor(schedule, 200, 5, i) for i in range(15)]
    assert factors == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5])


def test_by_iterations_the_rates_do_not_depend_on_where_a_training_continues() -> None:
    def rates(first: int) -> list[float]:
        sgd = torch.optim.SGD([torch.zeros((), requires_grad=True)], lr=0.3)
        before_epoch, found = attach_schedule(sgd, Schedule("cosine", 1, unit="iteration"), 7, 4), []
        for epoch in range(first, 5):
            before_epoch(epoch)
            for _ in range(4):
                sgd.step()
                found.append(sgd.param_groups[0]["lr"])
        return found

    assert rates(2) == rates(0)[8:]
    assert rates(0)[:4] == pytest.approx([0.075, 0.15, 0.225, 0.3])
