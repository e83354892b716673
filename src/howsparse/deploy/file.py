"""The file of a deployed network: safetensors with a JSON header and a checksum of every byte.

The metadata of the safetensors file have one entry, "howsparse": a JSON object that begins with the SHA-256 of the
whole file, in which these 64 digits count as zeros. So every changed bit is found, in the header and in the tensors.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from howsparse.errors import InputError, first_line
from howsparse.files import document_kind, write_whole

__all__ = ["VERSION", "Header", "Layer", "Stored", "read_deployed", "write_deployed"]

VERSION = 1

_KIND = "deployed network"
_DIGITS = 64
_SUM = re.compile(rb'\A.{8}\{"__metadata__":\{"howsparse":"\{\\"sha256\\":\\"([0-9a-f]{64})\\"', re.DOTALL)
_AGAIN = "copy it again, or write it again by `howsparse prune --deploy`"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Stored(_Strict):
    """How one tensor is stored.

    Attributes:
        shape: shape of the tensor.
        bits: bits of a number in its positions (see `howsparse.deploy.packing`); None if the tensor is stored in full.
    """

    shape: list[int]
    bits: int | None = None


class Layer(_Strict):
    """A module of the network whose class is known.

    Attributes:
        kind: name of its class, such as "Linear".
        settings: arguments with which the class makes it.
    """

    kind: str
    settings: dict[str, Any] = {}


class Header(_Strict):
    """What a file says about its network.

    Attributes:
        schema_version: version of this description.
        network: name of the network on the command line; None if it is not known.
        class_name: class of the network. It is only shown, and never imported.
        standalone: whether the network can be made from ``layers`` alone.
        evidence: the certificate or the measurement that the network was pruned by.
        tensors: the stored tensors by name.
        tied: other names of these tensors.
        masked: names of the weights that have a mask.
        layers: modules of known classes by name, each before the modules in it.
    """

    kind: Literal["deployed network"] = "deployed network"
    schema_version: int = VERSION
    network: str | None
    class_name: str
    standalone: bool
    evidence: dict[str, Any] | None
    tensors: dict[str, Stored] = Field(min_length=1)
    tied: dict[str, str]
    masked: list[str]
    layers: dict[str, Layer]


def write_deployed(path: str | Path, header: Header, tensors: dict[str, Tensor]) -> None:
    """Write the file. Equal contents give equal bytes. An interrupted call leaves no partial file.

    Args:
        path: path of the file.
        header: description of the network.
        tensors: contiguous tensors on the CPU that do not share memory.
    """
    about = json.dumps({"sha256": "0" * _DIGITS, **header.model_dump()}, allow_nan=False, separators=(",", ":"))
    content = bytearray(save(tensors, {"howsparse": about}))
    found = _SUM.match(content)
    assert found is not None, "safetensors writes its metadata first"
    content[found.start(1) : found.end(1)] = _checksum(content, found.start(1)).encode()
    write_whole(path, lambda file: file.write_bytes(content))


def read_deployed(path: str | Path) -> tuple[Header, dict[str, Tensor]]:
    """Read a file that `write_deployed` wrote. No code in the file is run.

    Args:
        path: path of the file.

    Returns:
        The description and the tensors.

    Raises:
        InputError: the file does not exist, has other contents or a newer version, or is damaged.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; correct the path") from error
    found = _SUM.match(content)
    if found is None:
        raise InputError(_foreign(path))
    if _checksum(content, found.start(1)).encode() != found[1]:
        raise InputError(f"{path} is damaged or cut off: its checksum is wrong; {_AGAIN}")
    try:
        length = int.from_bytes(content[:8], "little")
        about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["howsparse"])
        version = about.get("schema_version")
        newer = isinstance(version, int) and version > VERSION and about.get("kind") == _KIND
        if not newer:
            del about["sha256"]
            return Header.model_validate(about), load(content)
    except (ValidationError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(wrong(path, error)) from error
    raise InputError(f"{path} was written by a newer howsparse (schema version {version}); upgrade howsparse")


def wrong(path: str | Path, error: Exception) -> str:
    """The message for a file with a right checksum and wrong contents.

    >>> wrong("net.safetensors", ValueError("2 positions, not 3"))
    'net.safetensors contradicts itself (2 positions, not 3), so another program changed it; copy it again, or ...'
    """
    what = first_line(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{path} contradicts itself ({what}), so another program changed it; {_AGAIN}"


def _foreign(path: Path) -> str:
    kind = document_kind(path)
    if kind not in (None, _KIND):
        return f"{path} holds a {kind}, not a deployed network; give a file of `howsparse prune --deploy`"
    return f"{path} is not a file of `howsparse prune --deploy`, or its beginning is damaged; {_AGAIN}"


def _checksum(content: bytes | bytearray, start: int) -> str:
    """SHA-256 of the file with zeros in place of the checksum, which begins at ``start``."""
    view = memoryview(content)
    state = hashlib.sha256(view[:start])
    state.update(b"0" * _DIGITS)
    state.update(view[start + _DIGITS :])
    return state.hexdigest()
