"""Progress: bars for a person, nothing for a log, one line that says how long the work takes."""

import io
from typing import Any

import pytest
from rich.console import Console

import howsparse.progress
from howsparse import pruning_limit
from howsparse.progress import duration, reporting, stage_bars, work_ahead
from networks_for_tests import mlp_case


def terminal(monkeypatch: pytest.MonkeyPatch, watched: bool) -> io.StringIO:
    """A stderr that is a terminal, or not."""
    text = io.StringIO()

    def console() -> Console:
        return Console(file=text, force_terminal=watched, width=120)

    monkeypatch.setattr(howsparse.progress, "_stderr", console)
    return text


@pytest.mark.parametrize(
    ("watched", "options", "shows"), [(True, {}, True), (False, {}, False), (True, {"progress": False}, False)]
)
def test_a_limit_shows_bars_to_a_person_only(
    watched: bool, options: dict[str, Any], shows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = terminal(monkeypatch, watched)
    model, batches = mlp_case()
    pruning_limit(model, batches, tolerance=0.05, max_products=32, **options)
    assert ("bracket" in text.getvalue()) == shows


def test_a_function_gets_every_step() -> None:
    steps: list[tuple[str, int, int]] = []
    model, batches = mlp_case()
    pruning_limit(model, batches, tolerance=0.05, max_products=32, progress=lambda *step: steps.append(step))
    assert {stage for stage, *_ in steps} == {"recoverable", "bracket", "upper bound", "prediction"}
    assert [done for stage, done, _ in steps if stage == "bracket"] == list(
        range(1, 1 + sum(stage == "bracket" for stage, *_ in steps))
    )


def test_bars_within_bars_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    text = terminal(monkeypatch, watched=True)
    with reporting(None), reporting(None) as inner:
        inner("inner", 1, 2)
    assert "inner" not in text.getvalue()
    with reporting(None) as again:
        again("again", 1, 2)
    assert "again" in text.getvalue()


def test_the_time_is_said_after_the_second_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 3.0, 6.0])
    monkeypatch.setattr("howsparse.progress.time.monotonic", lambda: next(clock))
    said: list[str] = []
    with stage_bars(Console(file=io.StringIO()), on_step=said.append) as show:
        for done in (1, 2, 3):
            show("bracket", done, 200)
    assert said == [
        "bracket: 1 of 200",
        "bracket: 2 of 200; at most 200 steps of 3 s: 10 minutes",
        "bracket: 3 of 200; at most 200 steps of 3 s: 10 minutes",
    ]


def test_words_for_times() -> None:
    assert work_ahead(35, 2.0) == "at most 35 steps of 2 s: 70 seconds"
    assert work_ahead(40, 138.4) == "at most 40 steps of 138 s: 1.5 hours"
    assert work_ahead(100, 0.01) == ""
    assert [duration(t) for t in (0.2, 1.4, 89, 100, 7200)] == [
        "1 second", "1 second", "89 seconds", "2 minutes", "2.0 hours",
    ]  # fmt: skip
