"""Files of records with one JSON object in each line. Several processes can append; later versions can read them."""

import json
import os
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import filelock
from pydantic import ValidationError

from howsparse.errors import InputError, first_line
from howsparse.parallel import is_first
from howsparse.records.types import Record
from howsparse.records.upgrade import upgrade

__all__ = ["append_record", "read_lines", "read_records"]

_BEGINNING = b'{"'  # of every line that is written here

SomeRecord = TypeVar("SomeRecord", bound=Record)


def append_record(record: Record, path: str | Path) -> None:
    """Append one line. Several writers on one machine wait for each other.

    If the file has a record with the same hash, nothing is written: two processes may have made the same run, for
    example if a worker of a killed sweep finished its run. In a group of processes, only the first writes. If the last
    line is unfinished, because its writer was killed, it is removed first. Its run is not recorded, so it will be
    repeated.

    Args:
        record: the record.
        path: path of the file; its folder is made if it does not exist.

    Raises:
        InputError: the file ends with an unfinished line that is no record, or cannot be written.

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
    line = json.dumps(record.model_dump(mode="json"), allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_name(f".{path.name}.lock")), path.open("ab") as file:
            if _is_recorded(record, path):
                return
            file.write(_repaired_end(path, file) + line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error.strerror}; make room, or give another file") from error


def _is_recorded(record: Record, path: Path) -> bool:
    known = getattr(record, "hash", None)
    return known is not None and f'"hash": {json.dumps(known)}'.encode() in path.read_bytes()


def _repaired_end(path: Path, file: BinaryIO) -> bytes:
    """The bytes to write before the next line. An unfinished record at the end of the file is removed."""
    whole, _, tail = path.read_bytes().rpartition(b"\n")
    if not tail.strip():
        return b""
    if _is_record(tail):
        return b"\n"
    if not _is_unfinished(tail):
        raise InputError(f"{path} ends with a line that is no record; finish or remove that line")
    file.truncate(len(whole) + 1 if whole else 0)
    return b""


def _is_unfinished(line: bytes) -> bool:
    return line.startswith(_BEGINNING[: len(line)]) and not _is_record(line)


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


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
        lines = _content(path).split(b"\n")
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            if not line.strip() or (number == len(lines) and _is_unfinished(line)):
                continue  # an unfinished last line: its writer was killed, or is writing
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where}, is not a record: {_reason(error)}; remove that line") from error
            if not isinstance(record, dict):
                raise InputError(f"{where}, is not a record: it is no JSON object; remove that line")
            try:
                record = upgrade(record)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
            except (KeyError, TypeError) as error:
                raise InputError(f"{where}, is not a record: it lacks {error}; remove that line") from error
            except (AttributeError, ValueError) as error:  # a field of an older version that holds something else
                raise InputError(f"{where}, is not a record: {_reason(error)}; remove that line") from error
            key = record.get("hash", where)
            if not isinstance(key, str):
                raise InputError(f"{where}, is not a record: its hash is no text; remove that line")
            found.setdefault(key, (where, record))
    return list(found.values())


def _content(path: Path) -> bytes:
    """The bytes of a regular file; none if there is no file. A pipe is not opened: that could take forever."""
    try:
        if path.is_file():
            return path.read_bytes()
        if not path.exists():
            return b""
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}; give another file"
        ) from error
    raise InputError(f"{path} is no regular file; give a file of records")


def _reason(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else first_line(error)
