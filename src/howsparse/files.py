"""Functions to write files in one step, with a description of their contents, and without overwriting user files.

A document is the one format of everything that is kept: a safetensors file whose header has the kind and the version
of its contents, for kept work also the key of what was computed, and a digest of all of this and of every tensor.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from howsparse.errors import InputError, first_line
from howsparse.parallel import is_first

__all__ = [
    "document_kind",
    "load_document",
    "refuse_to_overwrite",
    "save_document",
    "save_tensors",
    "writable_file",
    "write_whole",
]

_ABOUT = "howsparse"  # key of a document's header in the metadata of safetensors


def write_whole(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a file in a temporary folder beside ``path``, then move it to ``path`` in one step.

    In a group of processes, only the first writes. If ``path`` is a link, the file that it leads to is replaced. What a
    killed process left of ``path`` is removed.

    Raises:
        InputError: ``path`` is something else than a file: a folder, a device, a pipe, or a link to nothing; or it
            cannot be written, for example because the disk is full.
    """
    if not is_first():
        return
    path = writable_file(Path(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _unfinished(path) as temporary:
            write(temporary)
            with temporary.open("r+b") as written:  # Windows flushes only what is open for writing
                os.fsync(written.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
        raise InputError(f"cannot write {path}: {reason}; make room for it, or give another file") from error


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """The path of a new file in a temporary folder beside ``path``.

    The folder has all that a library writes on its way to the file. It is locked, so that others see whether its writer
    still runs: the operating system releases the lock of a process that was killed.
    """
    prefix = f".{path.stem[:50]}-unfinished-"
    with suppress(OSError):  # a folder that may not be listed
        for left in path.parent.iterdir():
            if left.name.startswith(prefix):
                _remove_unlocked(left)
    while True:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix))
        with _locked(folder):
            if folder.exists():  # else another process removed it before it was locked
                try:
                    yield folder / path.name
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                return


def _remove_unlocked(folder: Path) -> None:
    """Remove a temporary folder if its writer was killed."""
    with _locked(folder, wait=False) as locked:
        if locked:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Lock a folder. False if another process has locked it, if it is gone, or if folders have no locks here."""
    handle = None
    try:
        if fcntl is not None:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        locked = fcntl is not None
    except OSError:
        locked = False
    try:
        yield locked
    finally:
        if handle is not None:
            os.close(handle)


def writable_file(path: Path) -> Path:
    """The file that is written if ``path`` is given: the path itself, or the file that a link leads to.

    Raises:
        InputError: ``path`` is a folder, a device, a pipe, a socket, or a link to nothing.
    """
    try:
        if "\0" in str(path):
            raise InputError("cannot write to a file with a zero byte in its name; give another file")
        if path.is_symlink() and not path.exists():
            raise InputError(f"{path} is a link to {path.readlink()}, which does not exist; remove the link")
        if path.is_dir():
            raise InputError(f"{path} is a folder; give the name of a file")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is a device, a pipe or a socket, which is not replaced; give the name of a file")
        return path.resolve() if path.is_symlink() else path
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error.strerror}; give another file") from error


def save_tensors(tensors: Mapping[str, Tensor], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors. A tensor with two names (tied weights) is written twice.

    Args:
        tensors: tensors by name, of any shape and on any device.
        path: path of the file.
        metadata: texts for the file's header.
    """
    whole = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    write_whole(path, lambda file: save_file(whole, file, metadata))


def save_document(
    path: str | Path,
    kind: str,
    version: int,
    fields: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    key: str | None = None,
) -> None:
    """Write numbers and tensors to one safetensors file, with the kind, the version and a digest in its header.

    Args:
        path: path of the file.
        kind: kind of the contents, for example "limit".
        version: version of the kind's schema.
        fields: all values that are not tensors, as JSON values.
        tensors: tensors by name.
        key: for kept work, a digest of all that decides the contents.
    """
    about: dict[str, Any] = {"kind": kind, "schema_version": version, "fields": dict(fields)}
    if key is not None:
        about["key"] = key
    header = json.dumps(about | {"sha256": _content(about, tensors)})
    save_tensors(tensors, path, {_ABOUT: header})


def load_document(
    path: str | Path, kind: str, version: int, *, key: str | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file that `save_document` wrote, and check its digest. No code in the file is run.

    Args:
        path: path of the file.
        kind: expected kind of the contents.
        version: newest version of the kind's schema that can be read.
        key: expected key; None reads a file with any key or none.

    Returns:
        The fields and the tensors.

    Raises:
        InputError: the file does not exist, has another kind, another key or a newer version, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file at {path}; correct the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_ABOUT, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a readable file of tensors: {first_line(error)}; make it again") from error
    if not isinstance(header, dict) or header.get("kind") != kind:
        what = f"a {header['kind']}" if isinstance(header, dict) and "kind" in header else "something else"
        raise InputError(f"{path} holds {what}, not a {kind}; give the path of a {kind} file")
    found = header.pop("sha256", None)
    if found != _content(header, tensors):
        raise InputError(f"{path} is damaged: its checksum is wrong; restore it or make it again")
    if key is not None and header.get("key") != key:
        raise InputError(f"{path} is the {kind} of other inputs or options, perhaps a copied file; remove it")
    if header["schema_version"] > version:
        raise InputError(
            f"{path} was written by a newer howsparse (schema version {header['schema_version']}); upgrade"
        )
    return header["fields"], tensors


def document_kind(path: str | Path) -> str | None:
    """The kind of a file that `save_document` wrote; None for any other file."""
    try:
        with safe_open(Path(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_ABOUT, "null"))
    except (SafetensorError, OSError, ValueError):
        return None
    return header.get("kind") if isinstance(header, dict) else None


def refuse_to_overwrite(path: Path, force: bool) -> None:
    """Raise an error if the file exists and ``force`` is False. Commands call this before long work.

    Raises:
        InputError: the file exists and ``force`` is False.
    """
    if path.exists() and not force:
        raise InputError(f"{path} exists; choose another --output, or use --force to replace it")


def _content(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a document's header and tensors."""
    state = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return state.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
