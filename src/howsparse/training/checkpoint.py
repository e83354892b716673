"""Checkpoints: the state of a training in a document, with a digest of its contents and of what the training is."""

import io
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.files import load_document, save_document
from howsparse.store import digest

__all__ = ["Epoch", "discard_unusable", "resume", "save", "training_key"]

_KIND, _VERSION = "checkpoint", 1


@dataclass(frozen=True)
class Epoch:
    """The results of one pass over the training data.

    Attributes:
        epoch: number of the epoch, from 0.
        loss: mean training loss of the model in training mode.
        accuracy: training accuracy of the model in training mode; None if the loss has no ``score``.
        seconds: time of the epoch, in seconds.

    >>> Epoch(0, loss=0.69, accuracy=0.5, seconds=1.2).loss
    0.69
    """

    epoch: int
    loss: float
    accuracy: float | None
    seconds: float


def training_key(optimizer: torch.optim.Optimizer, seed: int, about: object) -> str:
    """What identifies a training, apart from its state: the kind of optimizer, the seed, and ``about``.

    Args:
        optimizer: the training's optimizer.
        seed: seed of the training.
        about: any value that `howsparse.store.digest` reads.

    >>> sgd = torch.optim.SGD([nn.Parameter(torch.ones(1))])
    >>> training_key(sgd, 0, "digits") == training_key(sgd, 1, "digits")
    False
    """
    return digest({"optimizer": type(optimizer).__name__, "seed": seed, "about": about})


def save(model: nn.Module, optimizer: torch.optim.Optimizer, history: list[Epoch], path: Path, key: str) -> None:
    """Write a checkpoint in one step.

    Args:
        model, optimizer: the training's state.
        history: the epochs so far.
        path: path of the file.
        key: of `training_key`.
    """
    fields = {"history": [asdict(epoch) for epoch in history]}
    tensors = {"model": _packed(model.state_dict()), "optimizer": _packed(optimizer.state_dict())}
    save_document(path, _KIND, _VERSION, fields, tensors, key=key)


def resume(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path, key: str) -> list[Epoch]:
    """Read a checkpoint into a model and its optimizer.

    Args:
        model, optimizer: get the checkpoint's state.
        path: path of the file.
        key: of `training_key`.

    Returns:
        The epochs in the checkpoint.

    Raises:
        InputError: the file is damaged, or of another training, model or optimizer.
    """
    try:
        fields, tensors = load_document(path, _KIND, _VERSION, key=key)
    except InputError as error:
        raise InputError(f"checkpoint {error}; remove it to start anew") from error
    try:
        model.load_state_dict(_unpacked(tensors["model"]))
        optimizer.load_state_dict(_unpacked(tensors["optimizer"]))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"checkpoint {path} is of another model or optimizer: {reason}; remove it to start anew"
        ) from error
    return [Epoch(**epoch) for epoch in fields["history"]]


def discard_unusable(path: Path | None, key: str) -> None:
    """Remove a checkpoint in a folder of kept work if it is damaged or of another training, with a warning.

    Args:
        path: path of the file, which need not exist; None for no file.
        key: of `training_key`.
    """
    if path is None or not path.exists():
        return
    try:
        load_document(path, _KIND, _VERSION, key=key)
    except InputError as error:
        warnings.warn(f"the training starts anew: {error}", stacklevel=2)
        path.unlink(missing_ok=True)


def _packed(state: object) -> Tensor:
    """A state dict, in which tensors are nested, as one tensor of bytes."""
    content = io.BytesIO()
    torch.save(state, content)
    return torch.frombuffer(content.getbuffer(), dtype=torch.uint8)


def _unpacked(content: Tensor) -> dict[str, object]:
    """The state dict that `_packed` read. No code in it is run."""
    state: dict[str, object] = torch.load(io.BytesIO(content.numpy().tobytes()), weights_only=True, map_location="cpu")
    return state
