"""The command, commit, machine and versions that made a record."""

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

_HUB = "hf:"  # before the folder of a Hugging Face model

__all__ = ["Machine", "Provenance", "portable_command", "provenance"]


class Machine(BaseModel):
    """The machine on which a record was computed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    processor: str
    cores: int | None
    system: str
    accelerator: str | None = None


class Provenance(BaseModel):
    """The data that are needed to repeat a computation.

    Attributes:
        command: the command, without folders of the machine.
        commit: commit of the checkout, with "-dirty" if files have changed; None outside a checkout.
        machine: the machine of the computation.
        versions: versions of Python and of the packages that can change the numbers.

    >>> made = provenance("howsparse demo")
    >>> Provenance.model_validate_json(made.model_dump_json()) == made
    True
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str
    commit: str | None
    machine: Machine
    versions: dict[str, str]


def provenance(command: str | None = None) -> Provenance:
    """Command, commit, machine and versions of this process.

    Args:
        command: the command; by default that of this process.

    Returns:
        All data that are needed to repeat the computation.

    >>> provenance("howsparse demo").command
    'howsparse demo'
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
    """A command for records. Of each path that is absolute or starts with ``..``, only the last part remains.

    >>> portable_command(["howsparse", "limit", "--data", "../data/cifar10", "--weights=/home/me/fc5.safetensors"])
    'howsparse limit --data cifar10 --weights=fc5.safetensors'
    >>> portable_command(["howsparse", "measure", "hf:/home/me/my-bert"])
    'howsparse measure hf:my-bert'
    """
    return shlex.join(map(_without_folder, words))


def _without_folder(word: str) -> str:
    if word.startswith(_HUB):
        return _HUB + _without_folder(word.removeprefix(_HUB))
    option, equals, value = word.rpartition("=")
    path = PurePath(value)
    return option + equals + (path.name if path.is_absolute() or path.parts[:1] == ("..",) else value)


def _commit() -> str | None:
    """The commit of this checkout, with "-dirty" if files have changed; None outside a checkout."""
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
