"""Networks of known layers: their description as JSON values, and networks made from it without running its code."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod

from howsparse.deploy.file import Layer
from howsparse.errors import first_line

__all__ = ["build", "check_layers", "describe_layers", "is_standalone", "put_state", "resize", "with_tensors"]

_LEAVES: tuple[type[nn.Module], ...] = (
    *(nn.Linear, nn.Bilinear, nn.Embedding),
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Softmax, nn.LogSoftmax),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.Flatten, nn.Unflatten, nn.Identity, nn.Upsample, nn.PixelShuffle, nn.ZeroPad2d),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
)
_LAYERS = {kind.__name__: kind for kind in _LEAVES}
_NOT_SETTINGS = ("device", "dtype")


def _residual() -> nn.Module:
    from howsparse.tasks.networks.residual import Residual  # tasks need optional packages

    return Residual(nn.Sequential(), 1, 1, 1)


_CONTAINERS: dict[str, Callable[[], nn.Module]] = {  # by module and name; the modules in them are put there by name
    "torch.nn.modules.container.Sequential": nn.Sequential,
    "howsparse.tasks.networks.residual.Residual": _residual,
}


def describe_layers(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Layer]:
    """The modules of known classes by name, with the arguments that make them.

    A layer whose tensors have other shapes than these arguments give is left out.

    Args:
        model: any module.
        state: its parameters and buffers by name.

    >>> model = nn.Sequential(nn.Linear(2, 3))
    >>> describe_layers(model, model.state_dict())["0"].settings
    {'in_features': 2, 'out_features': 3, 'bias': True}
    """
    found = ((name, _described(module)) for name, module in model.named_modules())
    return {name: layer for name, layer in found if layer is not None and _wrong_tensor(name, layer, state) is None}


def is_standalone(model: nn.Module, layers: Mapping[str, Layer]) -> bool:
    """Whether a network consists of the described modules only, so that `build` makes it again.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> is_standalone(model, describe_layers(model, model.state_dict()))
    True
    """
    every = list(model.named_modules(remove_duplicate=False))
    distinct = len({id(module) for _, module in every}) == len(every)
    return distinct and all(name in layers and not _altered(module) for name, module in every)


def with_tensors(layers: Mapping[str, Layer], state: Mapping[str, Tensor]) -> dict[str, Layer]:
    """The layers that have parameters or buffers. Only these must be described to load their tensors.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> list(with_tensors(describe_layers(model, model.state_dict()), model.state_dict()))
    ['0']
    """
    owners = {name.rpartition(".")[0] for name in state}
    return {name: layer for name, layer in layers.items() if name in owners}


def check_layers(layers: Mapping[str, Layer], state: Mapping[str, Tensor]) -> None:
    """Check that each layer can be made and has tensors of the right shapes.

    Raises:
        ValueError: a layer is not known, or a tensor is missing or has another shape.
    """
    for name, layer in layers.items():
        wrong = _wrong_tensor(name, layer, state)
        if wrong is not None:
            raise ValueError(f"'{wrong}' does not fit its {layer.kind}")


def build(layers: Mapping[str, Layer]) -> nn.Module:
    """Make a network of known layers, without memory for its parameters.

    Args:
        layers: all modules of the network by name, each before the modules in it.

    Raises:
        ValueError: a class or its arguments are not known, or a module is missing.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> build(describe_layers(model, model.state_dict()))
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
    )
    """
    made: dict[str, nn.Module] = {}
    for name, layer in layers.items():
        made[name] = _made(name, layer)
        outer, _, leaf = name.rpartition(".")
        if name and outer not in made:
            raise ValueError(f"'{name}' is in no module")
        if name:
            made[outer].add_module(leaf, made[name])
    if "" not in made:
        raise ValueError("the network itself is missing")
    return made[""]


def resize(module: nn.Module, layer: Layer) -> None:
    """Set the sizes of a layer, such as ``in_features``, to those of its description. Its tensors are not changed.

    Args:
        module: a layer of the kind of ``layer``.
        layer: the description.
    """
    for name, value in layer.settings.items():
        if isinstance(getattr(module, name, None), int | tuple) and not isinstance(value, bool):
            setattr(module, name, _plain(value))


def put_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put tensors into a network in place: copied where shape and type agree, else as new parameters and buffers.

    Tied parameters stay tied, and parameters keep ``requires_grad`` and their device. Parameters on the device "meta"
    become tied if ``state`` has the same tensor for them.

    Args:
        model: a network, also one on the device "meta".
        state: tensors by name, as in ``state_dict``.
    """
    replaced: dict[int, nn.Parameter] = {}
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        owner = model.get_submodule(path)
        old = getattr(owner, leaf)
        if isinstance(old, Tensor) and old.shape == tensor.shape and old.dtype == tensor.dtype and not old.is_meta:
            with torch.no_grad():
                old.copy_(tensor)
            continue
        known = isinstance(old, Tensor) and not old.is_meta
        one = id(old) if known else id(tensor)
        if leaf in owner._buffers:
            owner._buffers[leaf] = tensor.to(old.device if known else _device(model), copy=True)
        elif one not in replaced:
            trains = (old is None or old.requires_grad) and (tensor.is_floating_point() or tensor.is_complex())
            replaced[one] = nn.Parameter(tensor.to(old.device if known else _device(model), copy=True), trains)
        if leaf not in owner._buffers:
            owner._parameters[leaf] = replaced[one]


def _described(module: nn.Module) -> Layer | None:
    """The description of one module; None if its class or one of its arguments is not known."""
    kind = type(module)
    if f"{kind.__module__}.{kind.__name__}" in _CONTAINERS:
        return Layer(kind=f"{kind.__module__}.{kind.__name__}")
    if kind not in _LEAVES:
        return None
    settings: dict[str, Any] = {}
    for name in _arguments(kind.__name__):
        if not hasattr(module, name):
            return None
        value = getattr(module, name)
        settings[name] = value is not None if name == "bias" else _json(value)
        if name != "bias" and not _is_plain(value):
            return None
    return Layer(kind=kind.__name__, settings=settings)


def _altered(module: nn.Module) -> bool:
    """Whether a module does something that its class does not: hooks, or a function in place of its forward.

    The hooks of `torch.nn.utils.prune` only multiply weights by their masks.
    """
    before = [hook for hook in module._forward_pre_hooks.values() if not isinstance(hook, BasePruningMethod)]
    return bool(before or module._forward_hooks or "forward" in vars(module))


def _wrong_tensor(name: str, layer: Layer, state: Mapping[str, Tensor]) -> str | None:
    """Name of a tensor that a layer needs and that is missing or has another shape; None if all are right."""
    made = _made(name, layer)
    for leaf, tensor in made.state_dict().items() if layer.kind in _LAYERS else ():
        full = f"{name}.{leaf}".lstrip(".")
        if full not in state or state[full].shape != tensor.shape:
            return full
    return None


def _made(name: str, layer: Layer) -> nn.Module:
    """A module by its description, on the device "meta"."""
    if layer.kind in _CONTAINERS and not layer.settings:
        with torch.device("meta"):
            return _CONTAINERS[layer.kind]()
    kind = _LAYERS.get(layer.kind)
    if kind is None or set(layer.settings) != set(_arguments(layer.kind)):
        raise ValueError(f"'{name}' is a {layer.kind} with unknown arguments")
    try:
        with torch.device("meta"):
            return kind(**{key: _plain(value) for key, value in layer.settings.items()})
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"'{name}' cannot be made: {first_line(error)}") from error


@cache
def _arguments(kind: str) -> list[str]:
    """Names of the arguments that make a layer of this class."""
    given = inspect.signature(_LAYERS[kind]).parameters.values()
    named = [each.name for each in given if each.kind is each.POSITIONAL_OR_KEYWORD]
    return [name for name in named if name not in _NOT_SETTINGS and not name.startswith("_")]


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _json(value: Any) -> Any:
    return [_json(item) for item in value] if isinstance(value, tuple | list) else value


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list) else value


def _device(model: nn.Module) -> torch.device:
    """The device of the first tensor of a network that is on one; else the CPU."""
    tensors = (*model.parameters(), *model.buffers())
    return next((tensor.device for tensor in tensors if not tensor.is_meta), torch.device("cpu"))
