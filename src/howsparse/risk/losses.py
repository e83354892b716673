"""Losses: functions of a model and a batch that return one number."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from howsparse.errors import InputError

__all__ = ["Criterion", "CrossEntropy", "Loss", "SplitLoss", "as_loss", "cross_entropy"]


class Loss(Protocol):
    """Mean loss of a model on a batch, as a scalar tensor."""

    def __call__(self, model: nn.Module, batch: Any) -> Tensor: ...


@runtime_checkable
class SplitLoss(Protocol):
    """A loss in two parts: the model's output, and a convex function of this output. The GGN needs such a loss.

    A loss may also have ``score(output, batch)``, which returns the number of correct predictions and the number of all
    predictions. Accuracies are then measured too. A loss may also have ``correct(output, batch)``, a boolean tensor
    with one entry for each prediction. Training uses it if possible, because then the CPU need not wait for the GPU.
    """

    def __call__(self, model: nn.Module, batch: Any) -> Tensor: ...

    def output(self, model: nn.Module, batch: Any) -> Tensor: ...

    def of_output(self, output: Tensor, batch: Any) -> Tensor: ...


class CrossEntropy:
    """Mean cross-entropy of a classifier.

    A batch is an ``(input, target)`` pair, or a mapping as for Hugging Face models: ``labels`` is the target, and the
    other entries are the model's keyword arguments. The output is a tensor of logits, or has them in its attribute
    ``logits``. Dimension 1 of the logits is the class.

    >>> import torch
    >>> cross_entropy(nn.Identity(), (torch.zeros(1, 2), torch.tensor([0])))
    tensor(0.6931)
    """

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return self.of_output(self.output(model, batch), batch)

    def output(self, model: nn.Module, batch: Any) -> Tensor:
        if isinstance(batch, Mapping):
            output = model(**{key: value for key, value in batch.items() if key != "labels"})
        else:
            output = model(_pair(batch)[0])
        logits = getattr(output, "logits", output)
        if not isinstance(logits, Tensor):
            raise InputError(
                f"the model returns {type(logits).__name__}, not a tensor of logits; pass a loss(model, batch) for it"
            )
        return logits

    def of_output(self, output: Tensor, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(output, _target(batch))

    def score(self, output: Tensor, batch: Any) -> tuple[int, int]:
        """Number of correct predictions, and number of all predictions."""
        correct = self.correct(output, batch)
        return int(correct.sum()), correct.numel()

    def correct(self, output: Tensor, batch: Any) -> Tensor:
        """Which predictions are correct, as a boolean tensor on the device."""
        target = _target(batch)
        classes = target if target.ndim == output.ndim - 1 else target.argmax(1)
        return output.argmax(1) == classes


cross_entropy = CrossEntropy()


class Criterion:
    """A loss of torch, such as ``nn.CrossEntropyLoss()``, for ``(input, target)`` pairs or dict batches.

    Args:
        criterion: a module that computes the mean loss of an output and a target.

    >>> import torch
    >>> Criterion(nn.MSELoss())(nn.Identity(), (torch.ones(2), torch.zeros(2)))
    tensor(1.)
    """

    def __init__(self, criterion: nn.Module) -> None:
        self.criterion = criterion

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return self.of_output(self.output(model, batch), batch)

    def output(self, model: nn.Module, batch: Any) -> Tensor:
        return cross_entropy.output(model, batch)

    def of_output(self, output: Tensor, batch: Any) -> Tensor:
        value: Tensor = self.criterion(output, _target(batch))
        return value


def as_loss(loss: "Loss | nn.Module") -> Loss:
    """A loss as this package uses it: a module of torch, such as ``nn.CrossEntropyLoss()``, becomes a `Criterion`.

    Args:
        loss: ``loss(model, batch)``, or a loss of ``torch.nn``, which is called with an output and a target.

    >>> as_loss(nn.CrossEntropyLoss()) is cross_entropy
    True
    """
    if type(loss) is nn.CrossEntropyLoss and _is_plain(loss):
        return cross_entropy
    if isinstance(loss, nn.Module) and type(loss).__module__.startswith("torch.nn"):
        return Criterion(loss)
    return loss


def _is_plain(loss: nn.CrossEntropyLoss) -> bool:
    """Whether it has torch's defaults, with which it is `cross_entropy`, which can score too."""
    return loss.weight is None and loss.ignore_index == -100 and loss.label_smoothing == 0 and loss.reduction == "mean"


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise InputError(
            f"a batch is a {type(batch).__name__}, not an (input, target) pair; pass a loss(model, batch) that reads it"
        )
    return batch[0], batch[1]


def _target(batch: Any) -> Tensor:
    if isinstance(batch, Mapping):
        if "labels" not in batch:
            raise InputError(
                f"a batch has no 'labels' but {', '.join(map(str, batch))}; pass a loss(model, batch) for it"
            )
        return batch["labels"]  # type: ignore[no-any-return]
    return _pair(batch)[1]
