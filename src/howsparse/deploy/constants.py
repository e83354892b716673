"""Channels of a network that are the same for every input, and what a layer makes of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from howsparse.deploy.timing import called

__all__ = ["LAYERS", "Layer", "fold_constants", "inputs_that_vary"]

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _ZeroTimesAnything(TorchDispatchMode):
    """Products that are zero if one factor is zero, even if the other factor is NaN."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mul.Tensor and all(isinstance(arg, Tensor) for arg in args[:2]):
            return torch.where((args[0] == 0) | (args[1] == 0), torch.zeros_like(out), out)
        return out


def inputs_that_vary(model: nn.Module, example: Any) -> dict[str, Tensor]:
    """The input of each linear layer and convolution, with NaN where it depends on the network's input.

    The network is run on NaN. A layer gives NaN where a nonzero weight multiplies NaN, and a BatchNorm where its scale
    is not zero. All other functions of torch give NaN for NaN. So every value that is not NaN is the same for every
    input.

    Args:
        model: a network in evaluation mode, in float64.
        example: an input of the network. Embeddings give NaN for it.

    Returns:
        Inputs by the name of the layer. Layers that are called several times, or not at all, are left out.
    """
    inputs: dict[str, Tensor] = {}
    calls: dict[str, int] = {}

    def before(name: str, args: tuple[Any, ...]) -> None:
        calls[name] = calls.get(name, 0) + 1
        inputs[name] = args[0]

    handles = [
        layer.register_forward_pre_hook(lambda _, args, name=name: before(name, args))
        for name, layer in model.named_modules()
        if isinstance(layer, LAYERS)
    ]
    try:
        with torch.no_grad(), _marking(model), _ZeroTimesAnything():  # type: ignore[no-untyped-call]
            called(model, _not_a_number(example))()
    finally:
        for handle in handles:
            handle.remove()
    return {name: x for name, x in inputs.items() if calls[name] == 1}


def fold_constants(layer: Layer, x: Tensor) -> bool:
    """Move what constant inputs contribute to a layer into its bias, and set their weights to zero. This is exact.

    A convolution that pads with zeros reads zeros, not the constant, at its borders, so a bias cannot replace a
    constant channel. There, one constant channel stays, and the weights of the others are added to its weights.

    Args:
        layer: a linear layer or a convolution of one group.
        x: its input, with NaN where it varies.

    Returns:
        Whether the layer was changed.
    """
    if isinstance(layer, nn.Linear):
        channels = x.flatten(0, -2).T
    elif layer.groups != 1 or x.ndim != layer.weight.ndim:
        return False
    else:
        channels = x.transpose(0, 1).flatten(1)
    value = channels[:, 0]
    uniform = (channels == value[:, None]).all(1)  # false for NaN
    columns = layer.weight.detach().flatten(2).sum(2) if layer.weight.ndim > 2 else layer.weight.detach()
    used = (layer.weight != 0).transpose(0, 1).flatten(1).any(1)
    folded = (uniform & used).nonzero().flatten()
    if _pads_with_zeros(layer):
        loud = (uniform & (value != 0)).nonzero().flatten()
        if len(loud):
            one = int(loud[value[loud].abs().argmax()])
            folded = folded[folded != one]
            factor = (value[folded] / value[one]).view(1, -1, *[1] * (layer.weight.ndim - 2))
            with torch.no_grad():
                layer.weight[:, one] += (layer.weight[:, folded] * factor).sum(1)
                layer.weight[:, folded] = 0
            return bool(len(folded))
    elif bool((value[folded] != 0).any()):
        moved = columns[:, folded] @ value[folded]
        layer.bias = nn.Parameter(moved if layer.bias is None else layer.bias.detach() + moved)
    with torch.no_grad():
        layer.weight[:, folded] = 0
    return bool(len(folded))


def _pads_with_zeros(layer: Layer) -> bool:
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros" or layer.padding == "valid":
        return False
    return isinstance(layer.padding, str) or any(layer.padding)


@contextmanager
def _marking(model: nn.Module) -> Iterator[None]:
    """In this context, layers and norms give NaN exactly where their output depends on an input that is NaN."""
    handles = []
    for module in model.modules():
        if isinstance(module, LAYERS):
            handles.append(module.register_forward_hook(_mark_layer))
        elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
            handles.append(module.register_forward_hook(lambda _, args, out: torch.full_like(out, torch.nan)))
        elif isinstance(module, _BatchNorm):
            handles.append(module.register_forward_hook(_mark_norm))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mark_layer(layer: Layer, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
    x, weight = args[0], layer.weight
    reached = _multiply(layer, x.isnan().to(weight.dtype), (weight != 0).to(weight.dtype), None) > 0
    return _multiply(layer, x.nan_to_num(0.0), weight, layer.bias).masked_fill(reached, torch.nan)


def _multiply(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The layer's output with other weights."""
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x, weight, bias)
    out: Tensor = layer._conv_forward(x, weight, bias)
    return out


def _mark_norm(norm: _BatchNorm, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
    if norm.weight is None:
        return out
    shape = (1, -1, *[1] * (out.ndim - 2))
    return torch.where(norm.weight.view(shape) == 0, norm.bias.view(shape), out)


def _not_a_number(example: Any) -> Any:
    def taken(leaf: Any) -> Any:
        return torch.full_like(leaf, torch.nan) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    return pytree.tree_map(taken, dict(example) if isinstance(example, dict) else example)
