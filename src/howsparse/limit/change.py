"""The difference between a model and a changed copy of it: a mask, other weights, or another module."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.pruning.masks import Mask
from howsparse.risk.alone import alone
from howsparse.risk.batches import is_half
from howsparse.risk.weights import prunable_weights, torch_masks

__all__ = ["Change", "Difference", "difference"]

Change = Mask | Mapping[str, Tensor] | nn.Module


@dataclass(frozen=True)
class Difference:
    """What a change does to a model.

    Attributes:
        steps: new weights minus old weights, by name, in the order of the network; only parameters that differ.
            Parameters that several layers use (tied weights) appear once.
        buffers: new values of the buffers that differ, such as BatchNorm's statistics, by name.

    >>> Difference({"fc.bias": torch.ones(2)}, {}).steps["fc.bias"]
    tensor([1., 1.])
    """

    steps: dict[str, Tensor]
    buffers: dict[str, Tensor]


@alone
def difference(model: nn.Module, change: Change) -> Difference:
    """The difference that a change makes to the weights and buffers of a model. The model is not changed.

    New values are converted to the dtype of the model's, so a quantised copy is given as its dequantised weights. Steps
    of half precision are in float32. A copy that `torch.nn.utils.prune` has pruned counts with its masks.

    Args:
        model: any module.
        change: a mask, which removes weights; new tensors by name, such as a state dict or some of its entries; or a
            module with the same names.

    Returns:
        The steps of the parameters and the new values of the buffers.

    Raises:
        InputError: a name is unknown, a shape differs, a value is not a finite number, a weight that torch holds at
            zero would change, two names of one weight have different values, or nothing changes.

    >>> model = nn.Linear(2, 1)
    >>> difference(model, {"bias": model.bias.detach() + 0.5}).steps
    {'bias': tensor([0.5...])}
    """
    names = _names(model)
    masks = torch_masks(model)
    if isinstance(change, Mask):
        new = dict(_without_removed(model, change))
    elif isinstance(change, nn.Module):
        new = _of_module(model, change)
    elif isinstance(change, Mapping):
        new = dict(change)
    else:
        raise InputError(
            f"the change is a {type(change).__name__}; give a Mask, a dict of tensors by name (as"
            " safetensors.torch.load_file reads it), or a module"
        )
    steps, buffers = _compare(model, names, masks, _with_masks(new, names))
    if not steps and not buffers:
        raise InputError("the change leaves every weight as it is, so there is nothing to audit; give a changed copy")
    order = list(dict.fromkeys(names.values()))
    return Difference({name: steps[name] for name in order if name in steps}, buffers)


def _names(model: nn.Module) -> dict[str, str]:
    """Every name under which a parameter may appear, with the one name under which it is studied."""
    studied = {id(p): name for name, p in prunable_weights(model).items()}
    names: dict[str, str] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        one = studied.setdefault(id(p), name)
        pruned = name.endswith("_orig") and one.endswith(name.rpartition(".")[2].removesuffix("_orig"))
        names[name.removesuffix("_orig") if pruned else name] = one
    return names


def _without_removed(model: nn.Module, mask: Mask) -> Iterator[tuple[str, Tensor]]:
    weights = prunable_weights(model)
    mask._check(weights)
    for name, kept in mask.items():
        yield name, torch.where(kept.to(weights[name].device), weights[name].detach(), 0)


def _of_module(model: nn.Module, other: nn.Module) -> dict[str, Tensor]:
    """The tensors of another module, if it has the same names."""
    new = {name: tensor for name, tensor in other.state_dict().items() if isinstance(tensor, Tensor)}
    adapter = next((name for name in new if ".lora_" in name or ".base_layer." in name), None)
    if adapter is not None and adapter not in model.state_dict():
        raise InputError(f"the changed model has an adapter ('{adapter}'); merge it first, by merge_and_unload()")
    present = _with_masks(new, _names(model))
    missing = next((name for name in _names(model) if name not in present), None)
    if missing is not None:
        raise InputError(f"the changed model lacks '{missing}'; give a model with the same layers, not wrapped")
    return new


def _with_masks(new: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors with torch's pairs of ``weight_orig`` and ``weight_mask`` multiplied to ``weight``."""
    whole = dict(new)
    for name in new:
        plain = name.removesuffix("_orig")
        if plain != name and plain in names and f"{plain}_mask" in new:
            whole[plain] = whole.pop(name) * whole.pop(f"{plain}_mask")
    return whole


def _compare(
    model: nn.Module, names: Mapping[str, str], masks: Mapping[str, Tensor], new: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Steps of the parameters that differ, and new values of the buffers that differ."""
    parameters = dict(model.named_parameters(remove_duplicate=False)) | prunable_weights(model)
    own_buffers = dict(model.named_buffers())
    values: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    for name, tensor in new.items():
        if name in names:
            one = names[name]
            value = _converted(name, tensor, parameters[one])
            if one in values and not torch.equal(values[one], value):
                raise InputError(
                    f"'{name}' is tied to another weight in the model, but not in the change; give both the same values"
                )
            values[one] = value
        elif name in own_buffers:
            buffer = own_buffers[name]
            value = _converted(name, tensor, buffer)
            if not name.endswith("num_batches_tracked") and not torch.equal(value, buffer):
                buffers[name] = value
        else:
            raise InputError(f"the change has '{name}', which is not a weight or buffer of the model; correct the name")
    steps = {name: _step(name, value, parameters[name], masks.get(name)) for name, value in values.items()}
    return {name: step for name, step in steps.items() if step.any()}, buffers


def _step(name: str, value: Tensor, old: Tensor, mask: Tensor | None) -> Tensor:
    old = old.detach()
    if is_half(old):  # the difference of two bfloat16 numbers is not always one
        value, old = value.float(), old.float()
    if mask is None:
        return value - old
    if value[~mask].any():
        raise InputError(
            f"the change sets '{name}' where torch.nn.utils.prune holds it at zero; call torch.nn.utils.prune.remove"
        )
    return torch.where(mask, value - old, 0)


def _converted(name: str, tensor: Tensor, old: Tensor) -> Tensor:
    """The new value in the dtype and on the device of the old one."""
    if not isinstance(tensor, Tensor):
        raise InputError(f"'{name}' of the change is a {type(tensor).__name__}; give a tensor")
    if tensor.shape != old.shape:
        raise InputError(f"'{name}' of the change has shape {tuple(tensor.shape)}; the model has {tuple(old.shape)}")
    tensor = tensor.detach().dequantize() if tensor.is_quantized else tensor.detach()
    if old.is_floating_point() and not tensor.is_floating_point():
        raise InputError(
            f"'{name}' of the change has dtype {tensor.dtype}; give weights as numbers (dequantised), and masks as Mask"
        )
    value = tensor.to(old.device, old.dtype)
    if old.is_floating_point() and not torch.isfinite(value).all():
        raise InputError(f"'{name}' of the change has NaN or infinite entries; give a copy that did not diverge")
    return value
