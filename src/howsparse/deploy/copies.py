"""Copies of a network to be changed."""

import copy

import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from howsparse.risk.modes import attributes_kept

__all__ = ["plain_copy", "replace_module"]


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy in which the weights that `torch.nn.utils.prune` masks are ordinary parameters with zeros.

    >>> model = nn.Linear(4, 2)
    >>> _ = torch_prune.l1_unstructured(model, "weight", 0.5)
    >>> [name for name, _ in plain_copy(model).named_parameters()]
    ['bias', 'weight']
    """
    with torch.no_grad(), attributes_kept(model):
        for module in model.modules():
            for name in _masked(module):
                setattr(module, name, getattr(module, f"{name}_orig") * getattr(module, f"{name}_mask"))
        copied = copy.deepcopy(model)
    for module in copied.modules():
        for name in _masked(module):
            torch_prune.remove(module, name)
    return copied


def _masked(module: nn.Module) -> list[str]:
    """Names of the parameters of a layer that `torch.nn.utils.prune` masks."""
    names = [name.removesuffix("_orig") for name, _ in module.named_parameters(recurse=False)]
    return [name for name in names if hasattr(module, f"{name}_mask") and hasattr(module, f"{name}_orig")]


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Replace the submodule with this name by another module.

    Args:
        model: a network.
        name: dotted name of a submodule, not of the network itself.
        new: what takes its place.
    """
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)
