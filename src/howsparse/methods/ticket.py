"""`Ticket`, the result of a method: a pruned and trained network with the history of its trainings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.files import load_document, save_document
from howsparse.limit.result import LimitSummary
from howsparse.pruning.masks import Mask
from howsparse.store import Kind
from howsparse.training import Epoch

__all__ = ["TRAINING", "Stage", "Ticket", "Trained"]

_VERSION = 1


@dataclass(frozen=True)
class Stage:
    """One training within a method.

    Attributes:
        name: name of the stage.
        sparsity: sparsity of the network at the end of the training.
        epochs: number of epochs.
        loss: mean training loss of the last epoch.
        accuracy: test accuracy at the end; None if the loss has no ``score``.
        seconds: time of the training, in seconds.
        limits: the limit of the network at the end; None if the method did not compute it.

    >>> Stage("fine-tuning", sparsity=0.9, epochs=5, loss=0.1, accuracy=0.98, seconds=12.0).epochs
    5
    """

    name: str
    sparsity: float
    epochs: int
    loss: float
    accuracy: float | None
    seconds: float
    limits: LimitSummary | None = None


@dataclass(frozen=True)
class Ticket:
    """The result of a method: a pruned and trained network.

    Attributes:
        model: the network; its removed weights are exactly zero.
        mask: the mask of the network.
        accuracy: accuracy on the test data; None if the loss has no ``score``.
        loss: loss on the training data, without augmentation.
        test_loss: loss on the test data.
        history: all trainings of the method, in order.

    >>> from torch import nn
    >>> from howsparse.pruning.masks import magnitude_mask
    >>> model = nn.Linear(10, 10)
    >>> done = Stage("dense", 0.0, 5, 0.1, 0.98, 12.0), Stage("fine-tuning", 0.9, 3, 0.1, 0.98, 7.0)
    >>> Ticket(model, magnitude_mask(model, 0.9), accuracy=0.98, loss=0.1, test_loss=0.2, history=done).epochs
    8
    """

    model: nn.Module
    mask: Mask
    accuracy: float | None
    loss: float
    test_loss: float
    history: tuple[Stage, ...]

    @property
    def epochs(self) -> int:
        """Number of epochs of all trainings together."""
        return sum(stage.epochs for stage in self.history)

    def save(self, path: str | Path) -> None:
        """Write weights, mask and history to one safetensors file. An interrupted call leaves no partial file.

        Args:
            path: path of the file; an existing file is replaced.
        """
        numbers = {"accuracy": self.accuracy, "loss": self.loss, "test_loss": self.test_loss}
        fields = numbers | {"history": [asdict(stage) for stage in self.history]}
        save_document(path, "ticket", _VERSION, fields, _tensors(self.model.state_dict(), self.mask))

    @classmethod
    def load(cls, path: str | Path, model: nn.Module) -> "Ticket":
        """Read a file that `save` wrote.

        Args:
            path: path of the file.
            model: a network of the ticket's architecture; it gets the ticket's weights.

        Returns:
            The ticket that was saved, with ``model`` as its network.

        Raises:
            InputError: the file does not exist, has other contents, or is damaged.
        """
        fields, tensors = load_document(path, "ticket", _VERSION)
        try:
            model.load_state_dict(_part(tensors, "state"))
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path} is a ticket of another network: {reason}; pass a network of its kind") from error
        history = tuple(_stage(stage) for stage in fields["history"])
        mask = Mask(_part(tensors, "mask"))
        return cls(model, mask, fields["accuracy"], fields["loss"], fields["test_loss"], history)


@dataclass(frozen=True)
class Trained:
    """The result of one training.

    Attributes:
        state: the network's state dict.
        mask: the mask at the end.
        history: loss and accuracy of each epoch; one entry in all for the user's own training loop.
    """

    state: dict[str, Tensor]
    mask: Mask
    history: tuple[Epoch, ...]


def _pack(trained: Trained) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The fields and the tensors of a training's document."""
    return {"history": [asdict(epoch) for epoch in trained.history]}, _tensors(trained.state, trained.mask)


def _unpack(fields: dict[str, Any], tensors: dict[str, Tensor]) -> Trained:
    """The training that `_pack` wrote."""
    history = tuple(Epoch(**epoch) for epoch in fields["history"])
    return Trained(_part(tensors, "state"), Mask(_part(tensors, "mask")), history)


TRAINING = Kind("training", _VERSION, _pack, _unpack)


def _stage(fields: dict[str, Any]) -> Stage:
    limits = fields.pop("limits")
    return Stage(**fields, limits=None if limits is None else LimitSummary(**limits))


def _tensors(state: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    named = {f"state.{name}": tensor for name, tensor in state.items()}
    return named | {f"mask.{name}": tensor for name, tensor in mask.items()}


def _part(tensors: Mapping[str, Tensor], which: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{which}."): t for name, t in tensors.items() if name.startswith(f"{which}.")}
