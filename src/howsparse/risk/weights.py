"""The prunable weights of a model, by name."""

from collections.abc import Iterable

from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.risk.pretrained import is_adapter

__all__ = ["is_conv1d", "named_weights", "prunable_weights", "select_weights", "torch_masks"]


_LAYERS = (
    nn.Linear,
    nn.Bilinear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
)


def prunable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of linear, convolutional, embedding, attention and recurrent layers, by name; no biases, no norms.

    A weight that several layers use appears once. If `torch.nn.utils.prune` has pruned a layer, the name is still
    ``layer.weight``, and the tensor is the trained parameter (torch's ``weight_orig``).

    Args:
        model: any module.

    Returns:
        The parameters themselves, not copies, by name.

    >>> list(prunable_weights(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))))
    ['0.weight']
    """
    weights: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        if not isinstance(module, _LAYERS) and not is_conv1d(module):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if "weight" not in name or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            weights[f"{prefix}.{name}".lstrip(".").removesuffix("_orig")] = parameter
    return weights


def is_conv1d(module: nn.Module) -> bool:
    """Whether a layer is Hugging Face's ``Conv1D``, as in GPT-2: a linear layer whose weight is ``(inputs, outputs)``.

    >>> is_conv1d(nn.Linear(2, 2))
    False
    """
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and hasattr(module, "nx")


def select_weights(model: nn.Module, names: Iterable[str] | None) -> dict[str, nn.Parameter]:
    """The prunable weights with the given names, or all prunable weights that are not frozen.

    Args:
        model: any module.
        names: names of prunable weights; None for all that are not frozen (``requires_grad``).

    Returns:
        The parameters by name. Limits, masks and measurements use these weights if they get no names.

    Raises:
        InputError: the model has no prunable weight, all are frozen, or a name is unknown.

    >>> model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 1))
    >>> list(select_weights(model, None)), list(select_weights(model, ["0.weight"]))
    (['1.weight'], ['0.weight'])
    """
    weights = prunable_weights(model)
    if names is None and is_adapter(model):
        raise InputError(
            "the model has PEFT adapters, whose base weights are frozen; to prune it, merge them first"
            " (model.merge_and_unload().requires_grad_(True)); to study the adapters alone, give their weights' names"
        )
    if not weights:
        raise InputError(
            "the model has no prunable weights; use a model with a linear, convolutional or embedding layer"
        )
    if names is None:
        chosen = {name: w for name, w in weights.items() if w.requires_grad}
        if not chosen:
            raise InputError("every prunable weight is frozen (requires_grad=False); call model.requires_grad_(True)")
        return chosen
    wanted = list(names)
    unknown = [name for name in wanted if name not in weights]
    if unknown:
        raise InputError(f"'{unknown[0]}' is not a prunable weight; the model has: {', '.join(weights)}")
    if not wanted:
        raise InputError("the list of weight names is empty; give at least one name, or no list")
    return {name: weights[name] for name in wanted}


def named_weights(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Parameters with the given names, whether they are prunable or not.

    Raises:
        InputError: a name is unknown, or there is no name.

    >>> list(named_weights(nn.Linear(2, 2), ["bias"]))
    ['bias']
    """
    known = dict(model.named_parameters(remove_duplicate=False)) | prunable_weights(model)
    wanted = list(names)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        prunable = ", ".join(prunable_weights(model)) or "none"
        raise InputError(f"the model has no parameter '{unknown[0]}'; its prunable weights: {prunable}")
    if not wanted:
        raise InputError("the list of weight names is empty; give at least one name, or no list")
    return {name: known[name] for name in wanted}


def torch_masks(model: nn.Module) -> dict[str, Tensor]:
    """The masks that `torch.nn.utils.prune` stored in ``model``, by weight name; True for weights that stay."""
    masks: dict[str, Tensor] = {}
    for name in prunable_weights(model):
        path, _, leaf = name.rpartition(".")
        mask = getattr(model.get_submodule(path), f"{leaf}_mask", None)
        if isinstance(mask, Tensor):
            masks[name] = mask.bool()
    return masks
