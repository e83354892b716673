"""By what command, commit, machine and versions something was made."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path, PurePath

import torch
from pydantic import BaseModel, ConfigDict

__all__ = ["Machine", "Provenance", "portable_command", "provenance"]


class Machine(BaseModel):
    """The machine that something was computed on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    processor: str
    cores: int | None
    system: str
    accelerator: str | None = None


class Provenance(BaseModel):
    """What is needed to make something again.

    Attributes:
        command: as it was typed, but for folders of the machine.
        commit: of the checkout, with "-dirty" if files had changed since; None outside of one.
        machine: that it ran on.
        versions: of Python and of the packages that decide the numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str
    commit: str | None
    machine: Machine
    versions: dict[str, str]


def provenance(command: str | None = None) -> Provenance:
    """Command, commit, machine and versions of this process.

    Args:
        command: as it was typed; taken from the process unless given.
    """
    return Provenance(
        command=portable_command(["howsparse", *sys.argv[1:]]) if command is None else command,
        commit=_commit(),
        machine=Machine(
            processor=_processor(),
            cores=os.cpu_count(),
            system=platform.platform(terse=True),
            accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        ),
        versions={"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("howsparse", "torch", "numpy", "scipy")},
    )


def portable_command(words: Sequence[str]) -> str:
    """A command as records hold it: of a path that is absolute or starts with ``..``, only the last part.

    >>> portable_command(["howsparse", "limit", "--data", "../shared/cifar10", "--weights=/home/me/fc5.safetensors"])
    'howsparse limit --data cifar10 --weights=fc5.safetensors'
    """
    return shlex.join(map(_without_folder, words))


def _without_folder(word: str) -> str:
    option, equals, value = word.rpartition("=")
    path = PurePath(value)
    return option + equals + (path.name if path.is_absolute() or path.parts[:1] == ("..",) else value)


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
