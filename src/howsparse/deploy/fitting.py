"""Put a network's tensors into a module of the same class, also if its layers have other sizes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.deploy.file import Layer
from howsparse.deploy.layers import put_state, resize
from howsparse.errors import InputError

__all__ = ["fit", "named_network"]


def fit(model: nn.Module, state: Mapping[str, Tensor], layers: Mapping[str, Layer]) -> nn.Module:
    """Put tensors into a network in place. If a tensor has another shape, a known layer gets the size from ``layers``.

    Args:
        model: a network with the same names; it is not changed if the tensors do not fit.
        state: parameters and buffers by name.
        layers: layers of the network that was saved, by name.

    Returns:
        ``model`` itself.

    Raises:
        InputError: names differ, or a shape where the sizes of a layer cannot be changed.

    >>> from howsparse.deploy.layers import describe_layers
    >>> small = nn.Sequential(nn.Linear(2, 3))
    >>> fit(nn.Sequential(nn.Linear(2, 5)), small.state_dict(), describe_layers(small, small.state_dict()))
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
    )
    """
    expected = model.state_dict(keep_vars=True)
    _check_names(model, expected, state, layers)
    resized = {}
    for name, tensor in state.items():
        path = name.rpartition(".")[0]
        if name not in expected or expected[name].shape != tensor.shape:
            resized[path] = _layer(model, path, layers)
            if resized[path] is None:
                here = tuple(expected[name].shape) if name in expected else "none"
                raise InputError(
                    f"'{name}' has shape {tuple(tensor.shape)} in the file and {here} in the network;"
                    " pass the network that the file was made of"
                )
    _check_ties(expected, state)
    for path, layer in resized.items():
        assert layer is not None
        resize(model.get_submodule(path), layer)
    put_state(model, state)
    return model


def named_network(name: str) -> Any:
    """What the name of a network on a command line stands for: a task, ``hf:FOLDER`` or ``package.module:name``.

    Args:
        name: the name. The code that it names is imported and run.

    Raises:
        InputError: there is no such network.
    """
    from howsparse.integrations.huggingface import hub_folder, load_hub_model
    from howsparse.loading import call_if_function, load_named
    from howsparse.problem import Problem

    if hub_folder(name) is not None:
        return load_hub_model(name)
    if ":" not in name:
        from howsparse.tasks import load_recipe
        from howsparse.tasks.networks import NETWORKS

        return NETWORKS[load_recipe(name).network]()
    made = load_named(name)
    made = made if isinstance(made, nn.Module | Problem) else call_if_function(name, made)
    return made.initial() if isinstance(made, Problem) else made


def _check_names(
    model: nn.Module, expected: Mapping[str, Any], state: Mapping[str, Tensor], layers: Mapping[str, Layer]
) -> None:
    lacks = [name for name in state if name not in expected and not _can_have(model, name, layers)]
    more = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    if lacks or more:
        what = f"the file has '{lacks[0]}', which it lacks" if lacks else f"it has '{more[0]}', which the file lacks"
        raise InputError(f"the network is of another kind: {what}; pass the network that the file was made of")


def _can_have(model: nn.Module, name: str, layers: Mapping[str, Layer]) -> bool:
    """Whether a known layer lacks this tensor and may get it, such as a bias that compaction added."""
    path, _, leaf = name.rpartition(".")
    layer = _layer(model, path, layers)
    return layer is not None and leaf in model.get_submodule(path)._parameters


def _layer(model: nn.Module, path: str, layers: Mapping[str, Layer]) -> Layer | None:
    """The description of the layer at ``path``, if the network has a layer of this kind there."""
    try:
        kind = type(model.get_submodule(path)).__name__
    except AttributeError:
        return None
    layer = layers.get(path)
    return layer if layer is not None and layer.settings and layer.kind == kind else None


def _check_ties(expected: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Names that are one parameter in the network must have equal tensors in the file."""
    first: dict[int, str] = {}
    for name, parameter in expected.items():
        one = first.setdefault(id(parameter), name)
        if one != name and name in state and not torch.equal(state[one], state[name]):
            raise InputError(f"'{one}' and '{name}' are tied in the network and differ in the file; untie them first")
