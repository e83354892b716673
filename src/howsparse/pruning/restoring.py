"""A context that restores a model at its end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["restored"]


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Restore all parameters and buffers of a model at the end of the context, also after an exception.

    Args:
        model: any module.

    >>> model = nn.Linear(1, 1)
    >>> with restored(model):
    ...     _ = model.weight.data.fill_(3.0)
    >>> bool(model.weight == 3.0)
    False
    """
    restore = _restorer(model)
    try:
        yield
    finally:
        restore()


def _restorer(model: nn.Module) -> Callable[[], None]:
    """A function that sets all parameters and buffers to what they are now."""
    before = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]

    def restore() -> None:
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)

    return restore
