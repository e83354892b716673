"""Evaluation mode, put on and taken off without a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from howsparse.matmul import fast_matmul

__all__ = ["device_of", "evaluation_mode"]


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter is."""
    return next(model.parameters()).device


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within; every module's own mode, and the buffers, are put back."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    model.eval()
    try:
        with fast_matmul(device_of(model)):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
