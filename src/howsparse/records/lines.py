"""Files of records, one JSON object a line: appended to safely by several writers, read back by later versions."""

import json
import os
from pathlib import Path
from typing import Any, TypeVar

import filelock
from pydantic import ValidationError

from howsparse.errors import InputError
from howsparse.parallel import is_first
from howsparse.records.types import Record
from howsparse.records.upgrade import upgrade

__all__ = ["append_record", "read_lines", "read_records"]

SomeRecord = TypeVar("SomeRecord", bound=Record)


def append_record(record: Record, path: str | Path) -> None:
    """Append one line. Several writers on one machine wait for each other.

    Of several processes that share the work, the first writes.
    """
    if not is_first():
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record.model_dump(mode="json"), allow_nan=False) + "\n"
    with filelock.FileLock(path.with_name(f".{path.name}.lock")), path.open("a") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_records(model: type[SomeRecord], kinds: tuple[str, ...], *paths: str | Path) -> list[SomeRecord]:
    """The records of some kinds in some files, in order; of two with one hash, the first.

    Args:
        model: what a line of these kinds holds.
        kinds: to read; other lines are passed over.
        *paths: of the files; a missing file has no records.

    Raises:
        InputError: a line that is not a record, or was written by a newer version.
    """
    records = []
    for number, line in _numbered(*paths):
        if line.get("kind") in kinds:
            try:
                records.append(model.model_validate(line))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                raise InputError(f"{number}, field '{where}': {first['msg']}; remove that line") from None
    return records


def read_lines(*paths: str | Path) -> list[dict[str, Any]]:
    """Every line of some files as plain JSON, in the schema of today; of two with one hash, the first.

    Raises:
        InputError: a line that is not a record, or was written by a newer version.
    """
    return [line for _, line in _numbered(*paths)]


def _numbered(*paths: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """Lines in the schema of today, each with where it stands."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in map(Path, paths):
        text = path.read_text() if path.exists() else ""
        for number, line in enumerate(text.splitlines(), 1):
            where = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{where}, is not a record: {error.msg}; remove that line") from error
            if not isinstance(record, dict):
                raise InputError(f"{where}, is not a record: it is no JSON object; remove that line")
            try:
                record = upgrade(record)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
            except (KeyError, TypeError) as error:
                raise InputError(f"{where}, is not a record: it lacks {error}; remove that line") from error
            found.setdefault(record.get("hash", where), (where, record))
    return list(found.values())
