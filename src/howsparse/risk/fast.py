"""Faster evaluation of convolutional networks on a CPU."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import nn

from howsparse.risk.batches import Pieces
from howsparse.risk.evaluate import evaluate
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.risk.modes import device_of

__all__ = ["fast_convolutions"]

_PIECE = 64  # examples; the activations of larger batches do not fit into a processor's cache


@contextmanager
def fast_convolutions(model: nn.Module, batches: Iterable[Any], loss: Loss = cross_entropy) -> Iterator[Iterable[Any]]:
    """Evaluate two-dimensional convolutions on a CPU with channels last, in batches of at most 64 examples.

    The weights are restored at the end of the context, even after an exception. Sums are taken in another order, so the
    last bits of a loss differ. A model that cannot work with channels last, because it calls ``view`` on
    the output of a convolution, is left as it is, and so is a model without convolutions or on another device.

    Args:
        model: any module.
        batches: batches that can be read several times.
        loss: ``loss(model, batch)``; it is evaluated once to see whether the model works.

    Yields:
        The same examples in the batches to evaluate.

    >>> with fast_convolutions(nn.Linear(2, 2), [(torch.eye(2), torch.tensor([0, 1]))]) as same:
    ...     len(same)
    1
    """
    before = [(p, p.data) for p in model.parameters()]
    pieces: Iterable[Any] = batches
    try:
        if device_of(model).type == "cpu" and any(isinstance(module, nn.Conv2d) for module in model.modules()):
            for p, data in before:
                if data.ndim == 4:
                    p.data = data.contiguous(memory_format=torch.channels_last)
            small = Pieces(batches, _PIECE)
            if _works(model, small, loss):
                pieces = small
            else:
                _put_back(before)
        yield pieces
    finally:
        _put_back(before)


def _works(model: nn.Module, batches: Iterable[Any], loss: Loss) -> bool:
    try:
        evaluate(model, islice(batches, 1), loss)
    except RuntimeError:  # view of a tensor whose channels are last
        return False
    return True


def _put_back(before: list[tuple[nn.Parameter, torch.Tensor]]) -> None:
    for p, data in before:
        p.data = data
