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
    """The prunable weights called ``names``, or all of them.

    Raises:
        InputError: there is none, or a name is unknown.
    """
    weights = prunable_weights(model)
    if names is not None:
        wanted = list(names)
        unknown = [name for name in wanted if name not in weights]
        if unknown:
            raise InputError(f"'{unknown[0]}' is not a prunable weight; the model has: {', '.join(weights) or 'none'}")
        weights = {name: weights[name] for name in wanted}
    if not weights:
        raise InputError("the model has no prunable weights: it needs a linear, convolutional or embedding layer")
    return weights


def torch_masks(model: nn.Module) -> dict[str, Tensor]:
    """The masks that `torch.nn.utils.prune` keeps inside ``model``, by the name of the weight; True stays."""
    masks: dict[str, Tensor] = {}
    for name in prunable_weights(model):
        path, _, leaf = name.rpartition(".")
        mask = getattr(model.get_submodule(path), f"{leaf}_mask", None)
        if isinstance(mask, Tensor):
            masks[name] = mask.bool()
    return masks
