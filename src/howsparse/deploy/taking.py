"""What a file stores of a network: its tensors, its mask, and the evidence for its pruning."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.limit.certificate import Certificate
from howsparse.limit.measure import Measured
from howsparse.pruning.masks import Mask
from howsparse.risk.weights import prunable_weights, torch_masks

__all__ = ["check_mask", "evidence_of", "mask_of", "state_of"]

_TYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.bool, torch.complex64),
)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under the names that they have without torch's pruning, in the order of these names.

    Tied names have one tensor.

    Args:
        model: any network.

    Raises:
        InputError: there is nothing to save, or something that a file cannot hold.

    >>> list(state_of(nn.Linear(2, 2)))
    ['bias', 'weight']
    """
    raw = model.state_dict(keep_vars=True)
    state: dict[str, Tensor] = {}
    same: dict[tuple[object, ...], Tensor] = {}
    for name, tensor in sorted(raw.items()):
        mask = raw.get(f"{name.removesuffix('_orig')}_mask") if name.endswith("_orig") else None
        if name.endswith("_mask") and f"{name.removesuffix('_mask')}_orig" in raw:
            continue
        _check_tensor(name, tensor)
        where = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else (id(tensor),)
        if where not in same:
            same[where] = tensor.detach() if mask is None else tensor.detach().masked_fill(mask == 0, 0)
        state[name if mask is None else name.removesuffix("_orig")] = same[where]
    if not state:
        raise InputError("the network has no parameters; there is nothing to save")
    return state


def _check_tensor(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise InputError(f"'{name}' of the network's state is a {type(tensor).__name__}; only tensors can be saved")
    if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in _TYPES:
        what = "without values" if tensor.is_meta else f"of {tensor.layout} and {tensor.dtype}"
        raise InputError(f"'{name}' is a tensor {what}, which cannot be saved; save the network before it is converted")


def mask_of(model: nn.Module, state: Mapping[str, Tensor]) -> Mask:
    """Torch's masks if the network has some; else masks of the nonzero entries, for prunable weights with zeros.

    Args:
        model: a network.
        state: its tensors by name, of `state_of`.
    """
    masks = torch_masks(model)
    if masks:
        return Mask(masks)
    weights = ((name, state[name]) for name in prunable_weights(model) if name in state)
    found = {name: _not_zero(weight) for name, weight in weights}
    return Mask({name: kept for name, kept in found.items() if not bool(kept.all())})


def _not_zero(tensor: Tensor) -> Tensor:
    """Where any bit of a tensor is set, so that -0.0 stays."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).reshape(flat.numel(), -1).any(dim=1).bool().reshape(tensor.shape)


def check_mask(mask: Mask, state: Mapping[str, Tensor]) -> None:
    """Check that a mask is for these tensors.

    Raises:
        InputError: it has another name or shape, or differs for tied weights.
    """
    masks: dict[int, Tensor] = {}
    for name, kept in mask.items():
        if name not in state or state[name].shape != kept.shape:
            raise InputError(f"the mask of '{name}' fits no weight of this network; use a mask for this network")
        if not torch.equal(masks.setdefault(id(state[name]), kept), kept):
            raise InputError(f"'{name}' is tied to a weight with another mask; give both the same mask")


def evidence_of(given: "Certificate | Measured | Mapping[str, Any] | None") -> dict[str, Any] | None:
    """A certificate, a measurement or a mapping as JSON values.

    Raises:
        InputError: a value is no number, text, list or mapping.

    >>> evidence_of({"loss": float("nan"), "steps": (1, 2)})
    {'loss': None, 'steps': [1, 2]}
    """
    if given is None:
        return None
    if isinstance(given, Certificate):
        found: Mapping[str, Any] = {"kind": "certificate", **given.summary()}
    elif isinstance(given, Measured):
        points = {"dense": asdict(given.dense), "pruned": asdict(given.pruned)}
        about = {"measured": given.sparsity, "order": given.order, "goal": given.goal.describe(given.metric)}
        found = {"kind": "measured", **about, **points}
    else:
        found = given
    return {str(key): _json(value) for key, value in found.items()}


def _json(value: Any) -> Any:
    """The value in JSON; numbers that JSON does not have are null."""
    if isinstance(value, Mapping):
        return {str(key): _json(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_json(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise InputError(f"the evidence has a {type(value).__name__}; give numbers, texts, lists and dicts")
