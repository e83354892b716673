"""What a model of transformers needs of its data: the task, and the names, ranges and lengths of its inputs."""

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from howsparse.arrays import check_lengths
from howsparse.errors import InputError
from howsparse.risk.losses import IGNORED
from howsparse.risk.pretrained import reads_labels, shifts_labels

__all__ = ["checked", "fitting_size", "positions", "task_of", "vocabulary"]

Task = Literal["causal", "masked", "text", "images", "other"]

_MOST = 1 << 26  # floats of logits or activations of one batch: 256 MiB in float32
_WIDTH = 16  # activations of a layer, in multiples of its width, that are in memory at the same time


def task_of(model: nn.Module) -> Task:
    """What the model predicts: the next token (causal), masked tokens, or the class of a text or an image.

    >>> task_of(nn.Linear(2, 2))
    'other'
    """
    name = type(model).__name__
    if shifts_labels(model):
        return "causal"
    if name.endswith("ForMaskedLM"):
        return "masked"
    if name.endswith("ForSequenceClassification"):
        return "text"
    return "images" if getattr(model, "main_input_name", None) == "pixel_values" else "other"


def vocabulary(model: nn.Module) -> int | None:
    """Number of tokens that the model knows; None if it reads no tokens.

    >>> vocabulary(nn.Linear(2, 2))
    """
    size = getattr(getattr(model, "config", None), "vocab_size", None)
    return size if isinstance(size, int) and task_of(model) != "images" else None


def positions(model: nn.Module) -> int | None:
    """Number of tokens in the longest sequence that the model can read; None if its configuration has no limit.

    >>> positions(nn.Linear(2, 2))
    """
    config = getattr(model, "config", None)
    most = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    for name, module in model.named_modules():  # as in RoBERTa: positions begin behind the one of padding
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return most if isinstance(most, int) and most > 0 else None


def fitting_size(model: nn.Module, shape: torch.Size | tuple[int, ...], wanted: int) -> int:
    """Number of examples in a batch: ``wanted``, or fewer if logits or activations would need more than 256 MiB.

    Args:
        model: a model of transformers.
        shape: shape of one example: ``(tokens,)`` or ``(channels, height, width)``.
        wanted: the largest number.

    >>> fitting_size(nn.Linear(2, 2), (3, 224, 224), 1000)
    27
    """
    numbers = torch.Size(shape).numel()
    each = _WIDTH
    if len(shape) == 1:
        config = getattr(model, "config", None)
        each *= getattr(config, "hidden_size", None) or 1
        each = max(each, vocabulary(model) or 0) if task_of(model) in ("causal", "masked") else each
    return max(1, min(wanted, _MOST // max(1, numbers * each)))


def checked(arrays: Mapping[str, Tensor], model: nn.Module, where: object) -> dict[str, Tensor]:
    """Check the arrays of a data set against the model, and give them the data types that it needs.

    A causal language model gets its labels from ``input_ids`` if there are none, where ``attention_mask`` is not 0.

    Args:
        arrays: arrays by name, each ``(n, ...)``: arguments of the model, and ``labels``.
        model: a model of transformers.
        where: file of the arrays, for messages.

    Returns:
        Whole numbers as int64, other numbers in the data type of the model's weights.

    Raises:
        InputError: a name, a length, a shape or a value does not fit the model, or no label counts.
    """
    _check_names(arrays, model, where)
    check_lengths(arrays, where)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    typed = {name: a.to(dtype) if a.is_floating_point() else a.long() for name, a in arrays.items()}
    if "pixel_values" in arrays:
        _check_pixels(arrays["pixel_values"], model, where)
    for name, bound in _bounds(model).items():
        if name in typed:
            _check_ids(typed[name], name, bound, where)
    tokens = typed.get("input_ids")
    if tokens is not None:
        _check_sequences(typed, model, where)
    if "labels" not in typed:
        typed["labels"] = _own_labels(typed, model, where)
    _check_labels(typed["labels"], model, where)
    return typed


def _check_names(arrays: Mapping[str, Tensor], model: nn.Module, where: object) -> None:
    parameters = inspect.signature(model.forward).parameters
    for name in arrays:
        if name not in parameters:
            raise InputError(
                f"{where} has the array '{name}', which {type(model).__name__} does not read; remove it, or give it"
                f" one of these names: {', '.join(n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD)}"
            )
    main = getattr(model, "main_input_name", "input_ids")
    if main not in arrays and "inputs_embeds" not in arrays:
        raise InputError(f"{where} has no array '{main}' (it has: {', '.join(arrays) or 'none'}); add it")


def _bounds(model: nn.Module) -> dict[str, int]:
    """Number of rows of the table in which each array of indices is looked up."""
    config: Any = getattr(model, "config", None)
    bounds = {
        "input_ids": vocabulary(model),
        "decoder_input_ids": vocabulary(model),
        "token_type_ids": getattr(config, "type_vocab_size", None),
        "position_ids": positions(model),
    }
    return {name: bound for name, bound in bounds.items() if bound}


def _check_ids(ids: Tensor, name: str, bound: int, where: object) -> None:
    if ids.is_floating_point():
        raise InputError(f"{where}: '{name}' holds fractions; store whole numbers")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= bound:
        raise InputError(
            f"{where}: '{name}' has {low if low < 0 else high}, but this model knows 0 to {bound - 1};"
            " use data of this model's tokenizer"
        )


def _check_sequences(arrays: Mapping[str, Tensor], model: nn.Module, where: object) -> None:
    tokens, most = arrays["input_ids"], positions(model)
    if tokens.ndim != 2:
        raise InputError(f"{where}: 'input_ids' has shape {tuple(tokens.shape)}; store (sequences, tokens)")
    length = tokens.shape[1]
    if most is not None and length > most:
        raise InputError(f"{where}: sequences of {length} tokens, but the model reads {most} at most; cut them")
    if task_of(model) == "causal" and length < 2:
        raise InputError(f"{where}: sequences of {length} token, but a causal model needs 2; give longer ones")
    mask = arrays.get("attention_mask")
    if mask is not None and mask.ndim == 2 and mask.shape != tokens.shape:
        raise InputError(
            f"{where}: 'attention_mask' has shape {tuple(mask.shape)}, 'input_ids' {tuple(tokens.shape)};"
            " store equal shapes"
        )


def _own_labels(arrays: Mapping[str, Tensor], model: nn.Module, where: object) -> Tensor:
    if task_of(model) != "causal":
        raise InputError(f"{where} has no array 'labels', which {type(model).__name__} needs; add it")
    tokens, mask = arrays["input_ids"], arrays.get("attention_mask")
    return tokens if mask is None else tokens.masked_fill(mask == 0, IGNORED)


def _check_labels(labels: Tensor, model: nn.Module, where: object) -> None:
    if labels.is_floating_point():
        return
    counted = labels[:, 1:] if task_of(model) == "causal" and labels.ndim > 1 else labels
    counted = counted[counted != IGNORED]
    if not counted.numel():
        raise InputError(f"{where}: every label is -100 (ignored), so there is nothing to predict; correct 'labels'")
    words = task_of(model) in ("causal", "masked") or reads_labels(model)
    classes = vocabulary(model) if words else getattr(getattr(model, "config", None), "num_labels", None)
    low, high = int(counted.min()), int(counted.max())
    if low < 0 or (classes and high >= classes):
        hint = "; is it a split with hidden labels?" if low == -1 == high else ""
        raise InputError(
            f"{where}: label {low if low < 0 else high}, but the model has the classes 0 to {(classes or 1) - 1};"
            f" correct 'labels'{hint}"
        )


def _check_pixels(pixels: Tensor, model: nn.Module, where: object) -> None:
    if not pixels.is_floating_point():
        raise InputError(f"{where}: 'pixel_values' holds whole numbers; store the normalised images as float32")
    config: Any = getattr(model, "config", None)
    size = getattr(config, "image_size", None)
    channels = getattr(config, "num_channels", None)
    height, width = (size, size) if isinstance(size, int) else (None, None)
    wanted = (channels, height, width)
    fits = pixels.ndim == 4 and all(w in (None, p) for w, p in zip(wanted, pixels.shape[1:], strict=True))
    if not fits:
        asked = ", ".join("any" if w is None else str(w) for w in wanted)
        raise InputError(f"{where}: 'pixel_values' has shape {tuple(pixels.shape)}; the model reads (n, {asked})")
