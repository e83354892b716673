"""The prunable weights of a model, by name."""

from collections.abc import Iterable

from torch import Tensor, nn

from howsparse.errors import InputError

__all__ = ["prunable_weights", "select_weights", "torch_masks"]


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
    """Weights of linear, convolutional, embedding, attention and recurrent layers, by name; never biases or norms.

    A weight shared by several layers appears once. Where `torch.nn.utils.prune` is at work, the name is still
    ``layer.weight`` and the tensor is the one that is trained (torch's ``weight_orig``).

    >>> list(prunable_weights(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))))
    ['0.weight']
    """
    weights: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        if not isinstance(module, _LAYERS):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if "weight" not in name or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            weights[f"{prefix}.{name}".lstrip(".").removesuffix("_orig")] = parameter
    return weights


def select_weights(model: nn.Module, names: Iterable[str] | None) -> dict[str, nn.Parameter]:
    """The weights that are meant: those called ``names``, or all prunable ones that are not frozen.

    Args:
        model: any module.
        names: of prunable weights; None for all that are not frozen (``requires_grad``).

    Returns:
        The parameters by name. Limits, masks and measurements that are given no names are all about these.

    Raises:
        InputError: there is none, all are frozen, or a name is unknown.

    >>> model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 1))
    >>> list(select_weights(model, None)), list(select_weights(model, ["0.weight"]))
    (['1.weight'], ['0.weight'])
    """
    weights = prunable_weights(model)
    if not weights:
        raise InputError("the model has no prunable weights: it needs a linear, convolutional or embedding layer")
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
        raise InputError("no weights are named; name one at least, or leave the names out")
    return {name: weights[name] for name in wanted}


def torch_masks(model: nn.Module) -> dict[str, Tensor]:
    """The masks that `torch.nn.utils.prune` keeps inside ``model``, by the name of the weight; True stays."""
    masks: dict[str, Tensor] = {}
    for name in prunable_weights(model):
        path, _, leaf = name.rpartition(".")
        mask = getattr(model.get_submodule(path), f"{leaf}_mask", None)
        if isinstance(mask, Tensor):
            masks[name] = mask.bool()
    return masks
