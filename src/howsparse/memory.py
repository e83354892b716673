"""The free memory of a device, and the memory that this process uses."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch

__all__ = ["available_memory", "resident_memory"]

_UNKNOWN = 4 << 30  # assumed free memory if the system does not report it


def available_memory(device: torch.device, root: Path = Path("/")) -> int:
    """Number of bytes that are free on ``device`` now.

    On Linux this is the machine's available memory. It is less if a control group, for example of a container or a
    batch job, limits the memory of this process.

    Args:
        device: a CUDA device; any other device means the machine's memory.
        root: folder in which the Linux folders ``proc`` and ``sys`` are.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min((max(0, room) for room in (*_of_machine(root), *_of_groups(root))), default=_UNKNOWN)


def resident_memory(root: Path = Path("/")) -> int | None:
    """Number of bytes of this process that are in the machine's memory now; None if the system does not say it.

    Args:
        root: folder in which the Linux folder ``proc`` is.
    """
    lines = _lines(root / "proc/self/statm")
    return int(lines[0].split()[1]) * os.sysconf("SC_PAGE_SIZE") if lines else None


def _of_machine(root: Path) -> Iterator[int]:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _of_groups(root: Path) -> Iterator[int]:
    """Free memory in each control group (version 1 or 2) of this process that has a limit."""
    for line in _lines(root / "proc/self/cgroup"):
        hierarchy, controllers, path = line.split(":", 2)
        inside = PurePosixPath(path.lstrip("/"))
        if hierarchy == "0":
            base, files = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # A group's limit also applies to the groups inside it. In a container the path may be that of the host, of
        # which only the last group is mounted, at the base.
        for group in (inside, *inside.parents):
            yield from _of_group(base / group, *files)


def _of_group(group: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    most, used = _number(group / limit), _number(group / usage)
    if most is not None and used is not None:
        # The cache of files that were read counts as used memory, but the system frees it when needed.
        cached = [int(line.split()[1]) for line in _lines(group / "memory.stat") if line.split()[0] == reclaimable]
        yield most - used + sum(cached)


def _number(file: Path) -> int | None:
    """The number in a file; None if the file does not exist or contains 'max'."""
    lines = _lines(file)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except OSError:
        return []
