"""A model that comes back as it was if something fails while it is changed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["unchanged_after_error"]


@contextmanager
def unchanged_after_error(model: nn.Module) -> Iterator[None]:
    """Restore all parameters and buffers of a model if the context ends with an exception.

    Args:
        model: any module.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> before = model.weight.item()
    >>> try:
    ...     with unchanged_after_error(model):
    ...         _ = model.weight.data.fill_(7.0)
    ...         raise KeyboardInterrupt
    ... except KeyboardInterrupt:
    ...     print(model.weight.item() == before)
    True
    """
    before = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
        raise
