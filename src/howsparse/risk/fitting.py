"""A check before long work: that the model and the loss can be computed on the data."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError, first_line
from howsparse.risk.batches import can_split, examples, move
from howsparse.risk.guard import guarded
from howsparse.risk.losses import IGNORED, CrossEntropy, Loss, SplitLoss, as_loss
from howsparse.risk.modes import device_of, evaluation_mode

__all__ = ["check_fits"]


@guarded
def check_fits(model: nn.Module, batches: Iterable[Any], loss: Loss, where: str) -> None:
    """Compute the loss of the first two examples; for cross-entropy, also compare all labels with the classes.

    Args:
        model: any module; it is not changed.
        batches: batches that can be read several times. All are read if they are a list.
        loss: ``loss(model, batch)``, mean over the batch.
        where: where the batches are from, for the message.

    Raises:
        InputError: the model or the loss cannot be computed, or a label is none of the classes.

    >>> check_fits(nn.Linear(3, 2), [(torch.ones(4, 3), torch.arange(4))], CrossEntropy(), "data.npz")
    Traceback (most recent call last):
    howsparse.errors.InputError: data.npz: label 2 is none of the model's 2 classes; labels are 0 to 1, or -100
    """
    if iter(batches) is batches:
        return  # reading it would use it up; the computation says what is wrong
    loss, first = as_loss(loss, model), next(iter(batches), None)
    if first is None:
        return
    few = move(examples(first, slice(0, 2)) if can_split(first) else first, device_of(model))
    try:
        with evaluation_mode(model), torch.no_grad():
            output = loss.output(model, few) if isinstance(loss, SplitLoss) else None
            if isinstance(loss, CrossEntropy) and output is not None and _has_classes(output, few):
                _check_labels(batches if isinstance(batches, list) else [first], output.shape[1], where)
            loss(model, few)
    except (InputError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
        raise InputError(
            f"{where} does not fit the network or its loss ({type(error).__name__}: {first_line(error)});"
            " check the shapes and types of inputs and targets"
        ) from error


def _has_classes(output: Tensor, batch: Any) -> bool:
    """Whether the batch is ``(input, target)``, and its targets are classes: integers, one for each row of logits."""
    target = batch[1] if isinstance(batch, tuple | list) and len(batch) == 2 else None
    return (
        isinstance(output, Tensor)
        and output.ndim >= 2
        and isinstance(target, Tensor)
        and not (target.is_floating_point() or target.is_complex())
        and target.ndim == output.ndim - 1
    )


def _check_labels(batches: Iterable[Any], classes: int, where: str) -> None:
    for _, targets in batches:
        labels = targets.long()
        wrong = labels[((labels < 0) & (labels != IGNORED)) | (labels >= classes)]
        if wrong.numel():
            raise InputError(
                f"{where}: label {int(wrong.flatten()[0])} is none of the model's {classes} classes;"
                f" labels are 0 to {classes - 1}, or {IGNORED}"
            )
