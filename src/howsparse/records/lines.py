"""Files of records with one JSON object in each line. Several processes can append; later versions can read them."""

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

    In a group of processes, only the first writes.

    Args:
        record: the record.
        path: path of the file; its folder is made if it does not exist.

    >>> from tempfile import TemporaryDirectory
    >>> from howsparse.records import Measurement, provenance
    >>> with TemporaryDirectory() as folder:
    ...     append_record(Measurement(kind="speed", made=provenance("bench"), seconds=0.5), f"{folder}/speed.jsonl")
    ...     [line["seconds"] for line in read_lines(f"{folder}/speed.jsonl")]
    [0.5]
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
    """Read the records of some kinds from files, in order. Of several records with the same hash, the first is read.

    Args:
        model: type of the records.
        kinds: kinds to read; other lines are ignored.
        *paths: the files; a missing file has no records.

    Returns:
        The records.

    Raises:
        InputError: a line is not a record, or a newer version wrote it.

    >>> from howsparse.records import TrainRecord
    >>> read_records(TrainRecord, ("train",), "no-such-file.jsonl")
    []
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
    """Read all lines of files as JSON values in the present schema. Of several with the same hash, the first is read.

    Args:
        *paths: the files; a missing file has no lines.

    Returns:
        One dictionary for each line, in the order of the files.

    Raises:
        InputError: a line is not a record, or a newer version wrote it.

    >>> read_lines("no-such-file.jsonl")
    []
    """
    return [line for _, line in _numbered(*paths)]


def _numbered(*paths: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """Lines in the present schema, each with its file and line number."""
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
