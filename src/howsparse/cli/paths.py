"""The paths of a command, checked together before any work, so that a wrong path is found before a long computation.

Every command is checked in the same way, by the names and types of its options.
"""

import functools
import json
import os
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from howsparse.cli.terminal import check_output, check_writable
from howsparse.errors import InputError
from howsparse.files import writable_file
from howsparse.integrations.huggingface import hub_folder

__all__ = ["check_paths", "with_checked_paths"]

_READ = ("weights", "data", "held_out", "certificate", "change", "file")  # any other path of a file is written
_FOLDERS = ("folder", "keep")


def with_checked_paths(command: Callable[..., None]) -> Callable[..., None]:
    """A command that checks its paths before it begins.

    Args:
        command: a function that takes its parameters by name.
    """

    @functools.wraps(command)
    def checked(**given: Any) -> None:
        check_paths(given)
        command(**given)

    return checked


def check_paths(given: Mapping[str, Any]) -> None:
    """Check all paths that a command was given.

    Args:
        given: the values of its options by name.

    Raises:
        InputError: a file to write exists and ``force`` is not set, is no regular file, cannot be written, or has a
            suffix that pictures cannot have; a file of records holds something else; or two options name the same
            file, and one of them is written.
    """
    paths = {name: value for name, value in given.items() if isinstance(value, Path)}
    read = {name: _existing(given.get(name)) for name in _READ} | {
        "model": _existing(hub_folder(given.get("model", "")))
    }
    kept = {name: path for name, path in paths.items() if name in _FOLDERS}
    written = {name: path for name, path in paths.items() if name not in (*_READ, *_FOLDERS, "record")}
    for path in (each for name, each in paths.items() if name in _READ):
        _check_name(path)
    record = paths.get("record")
    _check_distinct(written | ({} if record is None else {"record": record}), read | kept)
    for name, path in written.items():
        if name == "output" and read["model"] is not None and _existing(path) is not None and path.is_dir():
            continue  # a model of Hugging Face is a folder, which the command checks
        check_output(path, given.get("force", False))
        if name == "plot":
            _check_picture(path)
    for path in kept.values():
        if _existing(path) is not None and not path.is_dir():
            raise InputError(f"{path} is a file; give a folder")
        check_writable(path / "entry")
    if record is not None:
        _check_record(record)


def _check_name(path: Path) -> None:
    """Refuse a name that no file can have, for example a very long one."""
    try:
        path.exists()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read {path}: {reason}; give another file") from error


def _existing(value: object) -> Path | None:
    """The file or folder that an option names, if it exists; None for any other name, such as a data set of the hub."""
    try:
        return Path(value) if isinstance(value, str | Path) and value and Path(value).exists() else None
    except (OSError, ValueError):
        return None


def _check_distinct(written: Mapping[str, Path], others: Mapping[str, Path | None]) -> None:
    pairs = [*combinations(written.items(), 2), *((a, b) for a in written.items() for b in others.items())]
    for (name, path), (other, second) in pairs:
        if second is not None and _same(path, second):
            told = " and ".join(f"--{each.replace('_', '-')}" for each in (name, other))
            raise InputError(f"{told.replace('--model', 'MODEL')} are the same file, {path}; give two")


def _same(path: Path, other: Path) -> bool:
    try:
        return os.path.realpath(path) == os.path.realpath(other) or path.samefile(other)
    except (OSError, ValueError):
        return False  # one of them does not exist


def _check_picture(path: Path) -> None:
    from matplotlib.backend_bases import FigureCanvasBase

    if path.suffix.lower().removeprefix(".") not in FigureCanvasBase.get_supported_filetypes():
        raise InputError(f"{path} has no suffix of a picture; give a file that ends in .png, .svg or .pdf")


def _check_record(path: Path) -> None:
    """Refuse a file of records that cannot be appended to, or that holds something else."""
    check_writable(writable_file(path))
    try:
        if not path.exists():
            return
        with path.open("r+b") as file:
            first = file.readline()
        line = json.loads(first.decode()) if first.strip() else {"kind": None}
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error.strerror}; give another --record") from error
    except (ValueError, RecursionError):
        line = None
    if not isinstance(line, dict) or "kind" not in line:
        raise InputError(f"{path} is no file of records: its first line is no record; give another --record")
