"""Progress of long computations: bars on stderr in a terminal and in a notebook, nothing in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from howsparse.parallel import is_first

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ["Progress", "bars", "duration", "is_watched", "reporting", "stage_bars", "work_ahead"]

Progress = Callable[[str, int, int], None]

_WORTH_SAYING = 10.0  # seconds; shorter stages are over before a person has read how long they take

_shown: list[str] = []  # the stages of the bars on the screen; rich cannot show two sets of bars at once


def is_watched(console: "Console | None" = None) -> bool:
    """Whether a person can see stderr: whether it is a terminal, or the output of a notebook.

    Args:
        console: a console of rich on stderr; by default a new one.
    """
    console = _stderr() if console is None else console
    return is_first() and (console.is_terminal or console.is_jupyter)


def bars(console: "Console | None" = None) -> "Bars":
    """Progress bars of rich on stderr. They are switched off if nobody sees stderr, and disappear at their end.

    Args:
        console: a console of rich on stderr; by default a new one.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = _stderr() if console is None else console
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        transient=True,
        disable=not is_watched(console),
    )


@contextmanager
def stage_bars(
    console: "Console | None" = None, on_step: Callable[[str], None] = lambda text: None
) -> Iterator[Progress]:
    """One progress bar for each stage that reports progress. A stage may end before its total.

    After a stage's second step, its bar says how long the stage takes at most.

    Args:
        console: a console of rich on stderr; by default a new one.
        on_step: called with one line of text at each step, for logs.

    Yields:
        The function to call as ``progress(stage, done, total)``.
    """
    with bars(console) as shown:
        rows: dict[str, tuple[TaskID, float, int]] = {}

        def show(stage: str, done: int, total: int) -> None:
            now = time.monotonic()
            if stage not in rows:
                for row, *_ in rows.values():
                    shown.update(row, visible=False)
                rows[stage] = shown.add_task(stage, total=total), now, done
            row, began, first = rows[stage]
            ahead = work_ahead(total, (now - began) / (done - first)) if done > first else ""
            on_step(f"{stage}: {done} of {total}" + (f"; {ahead}" if ahead else ""))
            shown.update(row, completed=done, total=total, description=f"{stage}, {ahead}" if ahead else stage)

        yield show


@contextmanager
def reporting(progress: Progress | bool | None) -> Iterator[Progress]:
    """The function with which a computation reports its progress.

    Args:
        progress: a function, which is called as ``progress(stage, done, total)``; None for bars if somebody sees
            stderr and no other bars are shown; False for no report.

    Yields:
        The function to call as ``progress(stage, done, total)``.

    >>> with reporting(print) as report:
    ...     report("bracket", 1, 40)
    bracket 1 40
    """
    if callable(progress):
        yield progress
    elif progress is False or _shown or not is_watched():
        yield lambda stage, done, total: None
    else:
        _shown.append("library")
        try:
            with stage_bars() as show:
                yield show
        finally:
            _shown.clear()


def work_ahead(total: int, seconds: float) -> str:
    """How long a stage takes at most, in words; empty for a stage of a few seconds.

    Args:
        total: largest number of its steps.
        seconds: time of one step.

    >>> work_ahead(360, 2.0)
    'at most 360 steps of 2 s: 12 minutes'
    """
    if total * seconds < _WORTH_SAYING:
        return ""
    each = f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"
    return f"at most {total} steps of {each} s: {duration(total * seconds)}"


def duration(seconds: float) -> str:
    """A time as text, in a suitable unit.

    >>> duration(42.0), duration(1200.0), duration(5400.0)
    ('42 seconds', '20 minutes', '1.5 hours')
    """
    if seconds < 90:
        count = max(1, round(seconds))
        return f"{count} second{'s' if count > 1 else ''}"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


def _stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True)
