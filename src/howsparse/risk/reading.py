"""What a loss reads: the logits of a model's output, and the two parts of a batch."""

from typing import Any

from torch import Tensor

from howsparse.errors import InputError
from howsparse.risk.batches import is_half

__all__ = ["logits_of", "pair_of"]


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
