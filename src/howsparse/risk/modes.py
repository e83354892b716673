"""Evaluation mode for a limited time; the model is unchanged afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["attributes_kept", "device_of", "evaluation_mode"]


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter."""
    return next(model.parameters()).device


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode inside the context; restore each module's mode and the buffers at its end."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Restore, at the end of the context, tensors in plain attributes of modules (neither parameters nor buffers).

    A forward pass may assign such tensors, and they would keep its graph in memory. Examples are the weights that
    `torch.nn.utils.prune` and `torch.nn.utils.weight_norm` compute, the weight lists of recurrent layers, and outputs
    that a layer stores.
    """
    before = [(module, dict(vars(module))) for module in model.modules()]
    lists = [
        (module, list(module._flat_weights), module._flat_weight_refs)
        for module in model.modules()
        if isinstance(module, nn.RNNBase)
    ]
    try:
        yield
    finally:
        for module, attributes in before:
            _put_back(vars(module), attributes)
        for module, weights, references in lists:
            module._flat_weights, module._flat_weight_refs = weights, references


def _put_back(attributes: dict[str, Any], before: dict[str, Any]) -> None:
    for name in attributes.keys() | before.keys():
        now, then = attributes.get(name), before.get(name)
        if now is not then and (isinstance(now, Tensor) or isinstance(then, Tensor)):
            if name in before:
                attributes[name] = then
            else:
                del attributes[name]
