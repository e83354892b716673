"""A record: one run as one JSON line, with all that is needed to run it again."""

import fcntl
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from howsparse.errors import InputError
from howsparse.parallel import is_first

__all__ = ["append_record", "key_hash", "provenance", "read_records"]


def provenance() -> dict[str, object]:
    """Command, commit, machine and versions of this process."""
    return {
        "command": shlex.join(["howsparse", *sys.argv[1:]]),
        "commit": _commit(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": platform.platform(terse=True),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("howsparse", "torch", "numpy", "scipy")},
    }


def append_record(record: dict[str, object], path: str | Path) -> None:
    """Append one line; safe with several writers on one machine. Of processes that share one run, the first writes."""
    if not is_first():
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, allow_nan=False) + "\n"
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_records(*paths: str | Path) -> list[dict[str, Any]]:
    """Every line of files of records; a missing file has none. Of runs that several writers made, the first counts.

    Raises:
        InputError: a line that is not a record.
    """
    records: dict[str, dict[str, Any]] = {}
    for path in map(Path, paths):
        for number, line in enumerate(path.read_text().splitlines() if path.exists() else (), 1):
            try:
                record: dict[str, Any] = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {number}, is not a record: {error.msg}; remove that line") from error
            records.setdefault(record.get("hash", f"{path}:{number}"), record)
    return list(records.values())


def key_hash(key: dict[str, object]) -> str:
    """Short fingerprint of what makes a run this one, by which records are merged.

    >>> key_hash({"task": "digits", "seed": 0}) == key_hash({"seed": 0, "task": "digits"})
    True
    """
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _commit() -> str | None:
    """The commit this code was checked out from, marked if files have changed since; None outside a checkout."""
    folder = Path(__file__).parent
    asked = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
