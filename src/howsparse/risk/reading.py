"""Functions for losses: read the logits of an output and the two parts of a batch, and check that labels fit."""

from typing import Any

from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.risk.batches import is_half

__all__ = ["fitting_cross_entropy", "logits_of", "pair_of"]


def logits_of(output: Any) -> Tensor:
    """The logits of a model's output, which is a tensor or has them as an attribute; never in half precision."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise InputError(
            f"the model returns {type(logits).__name__}, not a tensor of logits; pass a loss(model, batch) for it"
        )
    return logits.float() if is_half(logits) else logits  # a loss in bfloat16 would have two digits


def pair_of(batch: Any) -> tuple[Tensor, Tensor]:
    """Input and target of a batch that is a pair."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise InputError(
            f"a batch is a {type(batch).__name__}, not an (input, target) pair; pass a loss(model, batch) that reads it"
        )
    return batch[0], batch[1]


def fitting_cross_entropy(output: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """torch's cross-entropy; labels that do not fit the predictions are an input error."""
    try:
        return nn.functional.cross_entropy(output, target, reduction=reduction)
    except (ValueError, IndexError) as error:
        shapes = f"labels of shape {tuple(target.shape)} do not fit predictions of shape {tuple(output.shape)}"
        raise InputError(f"{shapes}: {' '.join(str(error).split())}; give a label for each prediction") from error
