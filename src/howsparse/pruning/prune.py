"""Pruning of a model with `torch.nn.utils.prune`, so that torch's functions can undo it."""

import warnings

import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from howsparse.pruning.masks import Mask
from howsparse.risk.alone import alone
from howsparse.risk.weights import prunable_weights, select_weights

__all__ = ["prune", "pruned"]

_SAVING = (
    "save_pretrained would now store the pruned weights as weight_orig, which from_pretrained does not find; to save"
    " this model, use mask.apply_(model) instead of prune, or call torch.nn.utils.prune.remove first"
)


@alone
def prune(model: nn.Module, mask: Mask) -> nn.Module:
    """Prune ``model`` in place with `torch.nn.utils.prune`; ``torch.nn.utils.prune.remove`` makes it permanent.

    A weight that several layers use is pruned in each of them. To save the pruned model, use `Mask.apply_` instead:
    torch stores a pruned weight under another name (``weight_orig``), which other programs do not look for when they
    load the file. For a model with ``save_pretrained``, a warning says this.

    Args:
        model: any module.
        mask: the weights that stay.

    Returns:
        ``model`` itself.

    Raises:
        InputError: the mask does not fit the model.

    >>> from howsparse import magnitude_mask
    >>> model = nn.Linear(4, 2)
    >>> _ = prune(model, magnitude_mask(model, 0.5))
    >>> int((model.weight == 0).sum())
    4
    """
    weights = prunable_weights(model)
    mask._check(weights)
    if hasattr(model, "save_pretrained"):
        warnings.warn(_SAVING, stacklevel=2)
    for name, kept in mask.items():
        for module, leaf in _users(model, weights[name]):
            torch_prune.custom_from_mask(module, leaf, kept.to(weights[name].device))
    attention = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    for module in attention:
        if torch_prune.is_pruned(module.out_proj) and _mask_projection not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_mask_projection)
    return model


def _users(model: nn.Module, weight: nn.Parameter) -> list[tuple[nn.Module, str]]:
    """Every layer that has the parameter ``weight``, with the parameter's name in this layer."""
    return [
        (module, leaf.removesuffix("_orig"))
        for module in model.modules()
        for leaf, parameter in module.named_parameters(recurse=False)
        if parameter is weight
    ]


def _mask_projection(attention: nn.Module, inputs: tuple[object, ...]) -> None:
    """Run the pruning hook of the output projection. Torch does not run it, as attention calls no such layer."""
    projection = attention.get_submodule("out_proj")
    for hook in projection._forward_pre_hooks.values():
        hook(projection, inputs)


class pruned:
    """A context in which a mask is applied to the model. At its end the weights are restored.

    Args:
        model: any module.
        mask: mask over weights of the model.
    """

    def __init__(self, model: nn.Module, mask: Mask) -> None:
        self._model, self._mask = model, mask
        self._before = {name: w.detach().clone() for name, w in select_weights(model, mask).items()}

    def __enter__(self) -> None:
        self._mask.apply_(self._model)

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for name, w in select_weights(self._model, self._mask).items():
                w.copy_(self._before[name])
