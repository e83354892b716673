"""Output of the commands: answers on stdout, progress and warnings on stderr. Also checks of output files."""

import io
import itertools
import json
import os
import re
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from howsparse.errors import InputError
from howsparse.progress import bars
from howsparse.progress import stage_bars as reported_bars

__all__ = [
    "check_output",
    "check_writable",
    "console",
    "folded",
    "free_name",
    "note",
    "patient_stdout",
    "print_json",
    "progress_bar",
    "resumable",
    "show_lines",
    "show_next",
    "show_table",
    "show_text",
    "stage_bars",
    "ticker",
]

console = Console(stderr=True)


class _PatientStream:
    """A stream that ignores a closed pipe, for example after ``| head``: later output is discarded without an error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._forget()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._forget()

    def _forget(self) -> None:
        """Discard all later output, so that the command goes on and writes its files."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def patient_stdout() -> Iterator[None]:
    """In this context, a closed stdout is no error, and the command does the rest of its work."""
    before = sys.stdout
    patient: Any = io.StringIO() if before is None else _PatientStream(before)
    sys.stdout = patient
    try:
        yield
    finally:
        patient.flush()
        sys.stdout = before


def free_name(path: Path) -> Path:
    """``path`` if it does not exist; else the first of name-2, name-3, ... that does not exist."""
    names = itertools.chain([path], (path.with_stem(f"{path.stem}-{n}") for n in itertools.count(2)))
    return next(name for name in names if not name.exists())


def check_output(path: Path, force: bool) -> None:
    """Raise an error if the file exists and ``force`` is False, or if it cannot be written or is no regular file."""
    from howsparse.files import refuse_to_overwrite, writable_file

    check_writable(writable_file(path))
    refuse_to_overwrite(path, force)


def check_writable(path: Path) -> None:
    """Raise an error if the file or its folder cannot be written to. Commands call this before long work."""
    try:
        path.exists()  # a name that is too long is an error here
        folder = next(parent for parent in path.absolute().parents if parent.exists())  # others are made when needed
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot write to {path.parent}: {reason}; choose another folder") from error


def progress_bar() -> Progress:
    """Progress bars on stderr, because stdout is for the answer. There are none if stderr is not a terminal."""
    return bars(console)


@contextmanager
def resumable(where: Path) -> Iterator[None]:
    """After Ctrl-C inside the context, print how to continue, and exit with code 130."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"stopped; run the same command again to continue from {where}")
        raise typer.Exit(130) from None


@contextmanager
def stage_bars() -> Iterator[Callable[[str, int, int], None]]:
    """One progress bar for each stage; if stderr is not a terminal, a line per minute."""
    with reported_bars(console, on_step=ticker()) as show:
        yield show


def ticker(every: float = 60.0) -> Callable[[str], None]:
    """A function that prints a line at most every ``every`` seconds if stderr is not a terminal, for example a log."""
    last = time.monotonic()

    def tick(text: str) -> None:
        nonlocal last
        if not console.is_terminal and time.monotonic() - last > every:
            last = time.monotonic()
            note(text)

    return tick


def show_table(table: Table) -> None:
    """Print a table on stdout, with a width of 160 characters if stdout is not a terminal."""
    width = None if sys.stdout.isatty() else 160
    Console(width=width).print(table)


def show_text(text: str) -> None:
    """Print a sentence on stdout. A terminal gets it in lines that end at words, and an empty line after it."""
    typer.echo(textwrap.fill(text, Console().width) + "\n" if sys.stdout.isatty() else text)


def show_next(lines: Iterable[str]) -> None:
    """Print lines with commands to paste, as `after_limit` makes them. A terminal gets long ones in several lines.

    Args:
        lines: lines such as "next: howsparse prune ...".
    """
    for line in lines:
        if sys.stdout.isatty():
            words, colon, command = line.partition(": howsparse ")
            typer.echo("\n" + (folded(words, f"howsparse {command}", Console().width) if colon else line))
        else:
            typer.echo(line)


def folded(words: str, command: str, width: int) -> str:
    """A command after some words, in lines of at most ``width`` characters that a shell reads as one.

    >>> print(folded("next", "howsparse prune net --sparsity 0.9 --output 'my net.pt'", 40))
    next:
      howsparse prune net --sparsity 0.9 \\
        --output 'my net.pt'
    """
    if len(words) + len(command) + 2 <= width:
        return f"{words}: {command}"
    lines = ["  "]
    for part in re.findall(r"(?:'[^']*'|\S)+(?: (?!--)(?:'[^']*'|\S)+)*", command):  # an option with its value
        if lines[-1].strip() and len(lines[-1]) + len(part) + 3 > width:
            lines.append("    ")
        lines[-1] += f" {part}" if lines[-1].strip() else part
    return f"{words}:\n" + " \\\n".join(lines)


def show_lines(lines: Iterable[str]) -> None:
    """Print lines on stdout as they are. A command in a line can be pasted, even if the terminal wraps it."""
    for line in lines:
        typer.echo(line)


def note(text: str) -> None:
    """Print one line on stderr."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def print_json(result: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
