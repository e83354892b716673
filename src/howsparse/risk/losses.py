"""Losses: what a model and a batch are turned into one number by."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from howsparse.errors import InputError

__all__ = ["CrossEntropy", "Loss", "SplitLoss", "cross_entropy"]


class Loss(Protocol):
    """Mean loss of a model on a batch, as a scalar tensor."""

    def __call__(self, model: nn.Module, batch: Any) -> Tensor: ...


@runtime_checkable
class SplitLoss(Protocol):
    """A loss split at the model's output, which the Gauss-Newton matrix needs; convex in the output.

    With ``score(output, batch)`` (correct predictions, and of how many) beside it, accuracies are measured too. A loss
    may also have ``correct(output, batch)``: a boolean tensor with one entry for each prediction. Training prefers it,
    because it stays on the device and a GPU need not be waited for.
    """

    def __call__(self, model: nn.Module, batch: Any) -> Tensor: ...

    def output(self, model: nn.Module, batch: Any) -> Tensor: ...

    def of_output(self, output: Tensor, batch: Any) -> Tensor: ...


class CrossEntropy:
    """Mean cross-entropy of a classifier.

    A batch is an ``(input, target)`` pair, or a mapping whose ``labels`` are the target and whose other entries are the
    model's keyword arguments, as Hugging Face models take them. Classes are in dimension 1 of the output, or in its
    ``logits``.

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
                f"the model returns {type(logits).__name__}, not a tensor of logits; pass a loss of your own"
            )
        return logits

    def of_output(self, output: Tensor, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(output, _target(batch))

    def score(self, output: Tensor, batch: Any) -> tuple[int, int]:
        """Correct predictions, and of how many."""
        correct = self.correct(output, batch)
        return int(correct.sum()), correct.numel()

    def correct(self, output: Tensor, batch: Any) -> Tensor:
        """Which predictions are correct, as a boolean tensor on the device."""
        target = _target(batch)
        classes = target if target.ndim == output.ndim - 1 else target.argmax(1)
        return output.argmax(1) == classes


cross_entropy = CrossEntropy()


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise InputError(
            f"a batch is a {type(batch).__name__}, not an (input, target) pair; pass a loss(model, batch) that reads it"
        )
    return batch[0], batch[1]


def _target(batch: Any) -> Tensor:
    if isinstance(batch, Mapping):
        if "labels" not in batch:
            raise InputError(f"a batch has no 'labels' but {', '.join(map(str, batch))}; pass a loss of your own")
        return batch["labels"]  # type: ignore[no-any-return]
    return _pair(batch)[1]
