"""Files that are written whole or not at all, and never over something a user has."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from howsparse.errors import InputError
from howsparse.parallel import is_first

__all__ = ["one_at_a_time", "refuse_to_overwrite", "save_checkpoint", "save_tensors", "write_whole"]


def write_whole(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it there in one step; one process does."""
    if not is_first():
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    try:
        write(Path(name))
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def one_at_a_time(path: Path | None) -> Iterator[None]:
    """Wait until no other process is within for the same file, so that what it makes is found and not made twice.

    The lock is the system's and falls with its process. Where a disk has none, work may be done twice, never wrongly.
    """
    if path is None or not is_first():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def save_tensors(tensors: dict[str, Tensor], path: str | Path) -> None:
    """Write tensors as safetensors; a tensor under two names (tied weights) is written twice."""
    whole = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    write_whole(path, lambda file: save_file(whole, file))


def save_checkpoint(state: dict[str, object], path: str | Path) -> None:
    """Write a training state that `torch.load(weights_only=True)` reads back."""
    write_whole(path, lambda file: torch.save(state, file))


def refuse_to_overwrite(path: Path, force: bool) -> None:
    """Stop before work starts that would end in writing over a file.

    Raises:
        InputError: the file is there and ``force`` is not set.
    """
    if path.exists() and not force:
        raise InputError(f"{path} exists; choose another --output, or say --force to replace it")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
