"""What a method gives: a pruned, trained network, and the trainings that led there; saved and loaded as one file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

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
        name: what it is for.
        sparsity: of the network while it is trained; at the end, where that changes.
        epochs: how many.
        loss: mean training loss of the last epoch.
        accuracy: test accuracy at the end; None where the loss cannot score.
        seconds: spent in training.
        limits: of the network at the end, where the method asked for them.
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
    """What a method gives: a pruned, trained network.

    Attributes:
        model: its removed weights are exactly zero.
        mask: which those are.
        accuracy: on the test data; None where the loss cannot score.
        loss: on the training data, without augmentation.
        test_loss: on the test data.
        history: the trainings that led there.
    """

    model: nn.Module
    mask: Mask
    accuracy: float | None
    loss: float
    test_loss: float
    history: tuple[Stage, ...]

    @property
    def epochs(self) -> int:
        """Spent in all trainings together."""
        return sum(stage.epochs for stage in self.history)

    def save(self, path: str | Path) -> None:
        """Write weights, mask and history to one safetensors file, whole or not at all; `load` reads it back."""
        numbers = {"accuracy": self.accuracy, "loss": self.loss, "test_loss": self.test_loss}
        fields = numbers | {"history": [asdict(stage) for stage in self.history]}
        save_document(path, "ticket", _VERSION, fields, _tensors(self.model.state_dict(), self.mask))

    @classmethod
    def load(cls, path: str | Path, model: nn.Module) -> "Ticket":
        """Read what `save` wrote.

        Args:
            path: of the file.
            model: of the ticket's architecture; it is given the ticket's weights.

        Raises:
            InputError: no such file, it holds something else, or it is damaged.
        """
        fields, tensors = load_document(path, "ticket", _VERSION)
        model.load_state_dict(_part(tensors, "state"))
        history = tuple(_stage(stage) for stage in fields["history"])
        mask = Mask(_part(tensors, "mask"))
        return cls(model, mask, fields["accuracy"], fields["loss"], fields["test_loss"], history)


@dataclass(frozen=True)
class Trained:
    """What one training made of a network.

    Attributes:
        state: the network's state dict.
        mask: the weights that are left.
        history: loss and accuracy of its epochs; of one entry for a training loop of the user's own.
    """

    state: dict[str, Tensor]
    mask: Mask
    history: tuple[Epoch, ...]

    def save(self, path: str | Path) -> None:
        """Write the training to one safetensors file; `load` reads it back."""
        fields = {"history": [asdict(epoch) for epoch in self.history]}
        save_document(path, "training", _VERSION, fields, _tensors(self.state, self.mask))

    @classmethod
    def load(cls, path: str | Path) -> "Trained":
        """Read what `save` wrote."""
        fields, tensors = load_document(path, "training", _VERSION)
        history = tuple(Epoch(**epoch) for epoch in fields["history"])
        return cls(_part(tensors, "state"), Mask(_part(tensors, "mask")), history)


TRAINING = Kind("training", _VERSION, Trained.save, Trained.load)


def _stage(fields: dict[str, Any]) -> Stage:
    limits = fields.pop("limits")
    return Stage(**fields, limits=None if limits is None else LimitSummary(**limits))


def _tensors(state: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    named = {f"state.{name}": tensor for name, tensor in state.items()}
    return named | {f"mask.{name}": tensor for name, tensor in mask.items()}


def _part(tensors: Mapping[str, Tensor], which: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{which}."): t for name, t in tensors.items() if name.startswith(f"{which}.")}
