"""A function of a model as a module, and the places of its tensors, for `torch.func.functional_call`."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.risk.batches import is_half

__all__ = ["Applied", "in_float32", "kept_entries", "places"]


def places(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every place of a parameter or half-precision buffer in a module, with exactly one name for each place.

    A tied weight has several places. A module that is used twice has two names for the same place.
    `functional_call` with ``tie_weights`` uses both names, and then leaves the replacement in the model (torch 2.13).
    """
    for path, module in model.named_modules():
        yield from module.named_parameters(path, recurse=False, remove_duplicate=False)
        for name, buffer in module.named_buffers(path, recurse=False, remove_duplicate=False):
            if is_half(buffer):
                yield name, buffer


class Applied(nn.Module):
    """A module that applies a function to a model. `functional_call` accepts only a module, not a function."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[nn.Module, Any], Tensor], batch: Any) -> Tensor:
        return function(self.model, batch)


def in_float32(tensor: Tensor) -> Tensor:
    """A tensor of half precision in float32; any other as it is."""
    return tensor.float() if is_half(tensor) else tensor


def kept_entries(parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor | None:
    """Which entries of all parameters, one after the other, no mask holds at zero; None if none has a mask."""
    if not any(name in masks for name in parameters):
        return None
    kept = (masks.get(name, torch.ones_like(p, dtype=torch.bool)) for name, p in parameters.items())
    return torch.cat([mask.flatten() for mask in kept])
