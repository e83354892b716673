"""How a Hugging Face model uses its labels, read from the model itself. The library is not imported."""

from typing import Any

from torch import nn

from howsparse.errors import InputError

__all__ = ["check_single_label", "is_adapter", "reads_labels", "shifts_labels"]


def shifts_labels(model: nn.Module) -> bool:
    """Whether ``model`` is a causal language model, whose logits at a position predict the label at the next one.

    >>> shifts_labels(nn.Linear(2, 2))
    False
    """
    inner = _unwrapped(model)
    if not hasattr(inner, "config") or reads_labels(model):
        return False
    kind = getattr(inner, "loss_type", None)
    if kind is None:  # GPT2LMHeadModel and its like
        return type(inner).__name__.endswith(("LMHeadModel", "ForCausalLM"))
    return bool(kind == "ForCausalLM") or bool(kind == "ForConditionalGeneration")


def reads_labels(model: nn.Module) -> bool:
    """Whether ``model`` makes its decoder's input from the labels, as encoder-decoder models do.

    >>> reads_labels(nn.Linear(2, 2))
    False
    """
    return bool(getattr(getattr(_unwrapped(model), "config", None), "is_encoder_decoder", False))


def check_single_label(model: nn.Module) -> None:
    """Check that the cross-entropy is the loss of ``model``.

    Raises:
        InputError: its configuration says that it has several labels for each example, or predicts a number.
    """
    config = getattr(_unwrapped(model), "config", None)
    kind = getattr(config, "problem_type", None)
    if kind in ("regression", "multi_label_classification"):
        raise InputError(
            f"the model's configuration says problem_type='{kind}', for which the cross-entropy is not the loss;"
            " pass loss=lambda model, batch: model(**batch).loss"
        )


def is_adapter(model: nn.Module) -> bool:
    """Whether ``model`` has adapters of the PEFT library beside the weights of a base model.

    >>> is_adapter(nn.Linear(2, 2))
    False
    """
    return any(type(module).__module__.partition(".")[0] == "peft" for module in model.modules())


def _unwrapped(model: nn.Module) -> Any:
    """The model inside DistributedDataParallel, torch.compile and PEFT."""
    inner: Any = model
    while True:
        if hasattr(inner, "get_base_model"):
            inner = inner.get_base_model()
        elif isinstance(getattr(inner, "module", None), nn.Module) and not hasattr(inner, "config"):
            inner = inner.module
        elif isinstance(getattr(inner, "_orig_mod", None), nn.Module):
            inner = inner._orig_mod
        else:
            return inner
