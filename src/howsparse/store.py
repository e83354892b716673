"""`Store`, the only cache of this package: trainings, products, limits and studies, stored in a folder.

A store is a folder of documents (`howsparse.files`). The key of a document is a digest of everything that decides the
value: the kind, the version of the format, the inputs and all options. If one of these changes, the value gets a new
file. The key is in the file's name and in the file, and the file has a digest of its contents. So a damaged file, or a
copy of another file, is never used: the value is computed again, with a warning.
"""

import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar

import filelock
import torch
from torch import Tensor

from howsparse.errors import InputError
from howsparse.files import load_document, save_document
from howsparse.parallel import from_first, is_first

__all__ = ["Kind", "Store", "digest"]

Value = TypeVar("Value")


@dataclass(frozen=True)
class Kind(Generic[Value]):
    """A kind of stored value, with the functions that make it a document and back.

    Attributes:
        name: name of the kind, for example "training".
        version: version of the format; values of other versions are computed again.
        pack: ``pack(value)`` returns its JSON fields and its tensors by name.
        unpack: ``unpack(fields, tensors)`` returns the value.

    >>> number = Kind("number", 1, lambda value: ({"value": value}, {}), lambda fields, tensors: fields["value"])
    >>> number.unpack(*number.pack(8))
    8
    """

    name: str
    version: int
    pack: Callable[[Value], tuple[Mapping[str, Any], Mapping[str, Tensor]]]
    unpack: Callable[[dict[str, Any], dict[str, Tensor]], Value]


class Store:
    """A folder in which computed values are stored.

    Args:
        folder: folder of the files; it is made when the first value is stored. With None, no value is stored.

    >>> from tempfile import TemporaryDirectory
    >>> number = Kind("number", 1, lambda value: ({"value": value}, {}), lambda fields, tensors: fields["value"])
    >>> with TemporaryDirectory() as folder:
    ...     store = Store(Path(folder))
    ...     [store.get(number, {"base": 2}, {"power": 3}, compute) for compute in (lambda work: 8, lambda work: 1 // 0)]
    [8, 8]
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(
        self,
        kind: Kind[Value],
        inputs: Mapping[str, object],
        options: object,
        compute: Callable[[Path | None], Value],
    ) -> Value:
        """Read the value of these inputs and options if it is stored; else compute and store it.

        While one process computes a value, other processes that need it wait. The processes of one group (`torchrun`)
        compute together, and the first of them reads and writes for all.

        Args:
            kind: kind of the value.
            inputs: the inputs of the computation, by name: tensors, numbers, strings, and mappings, lists and
                dataclasses of these.
            options: the options of the computation, of the same types.
            compute: ``compute(workspace)`` returns the value. The workspace is a folder for unfinished work. The next
                call with the same inputs and options gets the same folder. It is removed when the value is stored. The
                workspace is None if the store has no folder.

        Returns:
            The value, read or computed.

        Raises:
            InputError: the folder cannot be written to.

        >>> number = Kind("number", 1, lambda value: ({"value": value}, {}), lambda fields, tensors: fields["value"])
        >>> Store(None).get(number, {"base": 2}, {"power": 3}, lambda workspace: 2**3)
        8
        """
        if self.folder is None:
            return compute(None)
        key = digest([kind.name, kind.version, inputs, options])
        file = self.folder / f"{kind.name}-{key[:32]}.safetensors"
        with _locked(file):
            found = from_first(lambda: _read(kind, key, file))
            if found is not None:
                return found[0]
            workspace = file.with_suffix(".unfinished")
            value = compute(workspace)
            if is_first():
                save_document(file, kind.name, kind.version, *kind.pack(value), key=key)
                shutil.rmtree(workspace, ignore_errors=True)
            return value


def digest(value: object) -> str:
    """SHA-256 of a value's content, in hexadecimal. It is the same in every process and on every device.

    Args:
        value: a tensor, number, string, path, None, or mappings, sequences and dataclasses of these.

    Returns:
        64 hexadecimal digits.

    Raises:
        TypeError: the value contains another type.

    >>> digest({"a": 1, "b": torch.ones(2)}) == digest({"b": torch.ones(2), "a": 1})
    True
    >>> digest(torch.ones(2)) == digest(torch.ones(2, 1))
    False
    """
    state = hashlib.sha256()
    for piece in _pieces(value):
        state.update(len(piece).to_bytes(8, "little"))
        state.update(piece)
    return state.hexdigest()


def _pieces(value: object) -> "Iterator[bytes | memoryview]":
    """The value as pieces of bytes. Each contains its type, so that different values never give the same pieces."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, Tensor):
        yield f"tensor {value.dtype} {tuple(value.shape)}".encode()
        plain = value.detach().cpu().contiguous()
        # a tensor of one value counts as contiguous whatever its stride is, but view needs a stride of 1
        yield memoryview(plain.as_strided((plain.numel(),), (1,)).view(torch.uint8).numpy())  # type: ignore[arg-type]
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)}".encode()
        for key in sorted(value, key=str):
            yield from _pieces(str(key))
            yield from _pieces(value[key])
    elif is_dataclass(value) and not isinstance(value, type):
        yield f"dataclass {type(value).__qualname__}".encode()
        yield from _pieces({field.name: getattr(value, field.name) for field in fields(value)})
    elif isinstance(value, list | tuple):
        yield f"sequence {len(value)}".encode()
        for item in value:
            yield from _pieces(item)
    elif value is None or isinstance(value, bool | int | float | str | Path):
        yield f"{'str' if isinstance(value, Path) else type(value).__name__} {value}".encode()
    else:
        raise TypeError(f"a {type(value).__name__} has no digest")


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Wait until no other process computes the value. The operating system releases the lock when its process ends."""
    with ExitStack() as stack:
        if is_first():
            folder = file.parent / ".locks"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(filelock.FileLock(folder / f"{file.stem}.lock"))
            except NotImplementedError:
                pass  # the file system has no locks: two processes may compute the same value, which is still correct
            except OSError as error:
                raise InputError(f"cannot write to {file.parent}: {error.strerror}; choose another folder") from error
        yield


def _read(kind: Kind[Value], key: str, file: Path) -> tuple[Value] | None:
    """The stored value; None if there is none. A file that is damaged or of another value gives a warning and None."""
    if not file.exists():
        if file.with_suffix("").is_dir():
            warnings.warn(f"{file.with_suffix('')} is of an earlier howsparse, so it is made again", stacklevel=4)
        return None
    try:
        return (kind.unpack(*load_document(file, kind.name, kind.version, key=key)),)
    except (OSError, ValueError, KeyError, TypeError) as error:  # InputError, or what `unpack` says of other fields
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(f"kept work is made again: {reason}", stacklevel=4)
        return None
