"""One form for all layers that multiply their inputs by a weight matrix: columns of inputs and outputs.

A convolution has one or more groups; any other layer has one. Each group multiplies its own inputs by its own matrix.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from howsparse.pruning.masks import Mask
from howsparse.risk.weights import is_conv1d, select_weights

__all__ = ["Repairable", "as_groups", "input_columns", "output_columns", "pieces", "repairable", "set_groups"]

_PIECE_NUMBERS = 1 << 24  # numbers of the input columns that are in memory at a time


@dataclass(frozen=True, eq=False)
class Repairable:
    """A weight that least squares can change.

    Attributes:
        name: its name in the mask.
        weight: the parameter.
        bias: the bias of its layer; None if there is none, or if several layers with this weight have a bias each.
        layers: the layers that read it.
    """

    name: str
    weight: nn.Parameter
    bias: nn.Parameter | None
    layers: tuple[nn.Module, ...]


def repairable(model: nn.Module, mask: Mask) -> list[Repairable]:
    """The weights of the mask that only linear layers, convolutions (1d, 2d) and the Conv1D of GPT-2 use.

    Args:
        model: any module.
        mask: names of weights.

    >>> model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2))
    >>> [each.name for each in repairable(model, Mask({"0.weight": torch.ones(3, 2), "1.weight": torch.ones(2, 2)}))]
    ['1.weight']
    """
    found = []
    for name, weight in select_weights(model, mask).items():
        users = tuple(m for m in model.modules() if any(p is weight for p in m.parameters(recurse=False)))
        if users and all(_is_matrix(user) for user in users):
            bias = users[0].bias if len(users) == 1 else None
            found.append(Repairable(name, weight, bias if isinstance(bias, nn.Parameter) else None, users))
    return found


def _is_matrix(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) or is_conv1d(layer)


def pieces(layer: nn.Module, inputs: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split the examples of a layer's inputs, and of other tensors, so that the columns of a piece fit in memory.

    Args:
        layer: the layer that gets the inputs.
        inputs: its first argument.
        *others: tensors with the same examples, such as the outputs.
    """
    width = 1
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        strides = 1
        for kernel, stride in zip(layer.kernel_size, layer.stride, strict=True):
            width, strides = width * kernel, strides * stride
        width = max(1, width // strides)
        if inputs.ndim < 2 + len(layer.kernel_size):  # one example without a batch dimension
            yield (inputs[None], *(other[None] for other in others))
            return
    size = max(1, _PIECE_NUMBERS * len(inputs) // max(1, inputs.numel() * width))
    yield from zip(*(tensor.split(size) for tensor in (inputs, *others)), strict=True)


def input_columns(layer: nn.Module, inputs: Tensor) -> Tensor:
    """The numbers that the weights of a layer multiply, ``(groups, parts, features, positions)``.

    A position is a token of a sequence, or a place of a convolution's kernel in an image, with padding. A part is an
    image; all tokens are one part.

    Args:
        layer: a linear layer or convolution.
        inputs: its first argument.

    >>> input_columns(nn.Conv2d(4, 2, 3, padding=1, groups=2), torch.zeros(5, 4, 6, 6)).shape
    torch.Size([2, 5, 18, 36])
    """
    if not isinstance(layer, nn.Conv1d | nn.Conv2d):
        return inputs.reshape(1, 1, -1, inputs.shape[-1]).mT
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    shape: list[tuple[int, ...]] = [layer.kernel_size, layer.dilation, layer.stride]
    if isinstance(layer, nn.Conv1d):
        padded, shape = padded.unsqueeze(2), [(1, *each) for each in shape]
    kernel, dilation, stride = shape
    patches = functional.unfold(padded, kernel, dilation=dilation, stride=stride)
    return patches.view(len(patches), layer.groups, -1, patches.shape[-1]).transpose(0, 1)


def output_columns(layer: nn.Module, outputs: Tensor) -> Tensor:
    """The outputs of a layer, ``(groups, parts, outputs of a group, positions)``.

    Args:
        layer: a linear layer or convolution.
        outputs: what it returned.
    """
    if not isinstance(layer, nn.Conv1d | nn.Conv2d):
        return outputs.reshape(1, 1, -1, outputs.shape[-1]).mT
    size = layer.out_channels // layer.groups
    return outputs.reshape(len(outputs), layer.groups, size, -1).transpose(0, 1)


def as_groups(layer: nn.Module, values: Tensor) -> Tensor:
    """A tensor of the weight's shape as ``(groups, outputs of a group, features)``.

    Args:
        layer: the layer that has the weight.
        values: the weight, or its mask.
    """
    if is_conv1d(layer):
        values = values.T
    groups = layer.groups if isinstance(layer, nn.Conv1d | nn.Conv2d) else 1
    return values.reshape(groups, len(values) // groups, -1)


def set_groups(layer: nn.Module, weight: Tensor, groups: Tensor) -> None:
    """Set a weight from its form ``(groups, outputs of a group, features)``.

    Args:
        layer: the layer that has the weight.
        weight: the parameter, which is changed.
        groups: its new values.
    """
    rows = groups.flatten(0, 1).to(weight)
    with torch.no_grad():
        weight.copy_(rows.T if is_conv1d(layer) else rows.view(weight.shape))
