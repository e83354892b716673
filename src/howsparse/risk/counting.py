"""The weight of a batch in a mean: its number of predictions or of examples."""

from typing import Any

from howsparse.risk.batches import batch_length
from howsparse.risk.loss_protocols import Loss

__all__ = ["counted_examples", "weight_of"]


def weight_of(loss: Loss, batch: Any) -> int:
    """The weight of a batch in a mean over batches: its predictions if the loss counts them, else its examples.

    >>> import torch
    >>> from howsparse import cross_entropy
    >>> weight_of(cross_entropy, (torch.zeros(3, 2), torch.tensor([0, 1, -100])))
    2
    """
    count = getattr(loss, "count", None)
    return int(count(batch)) if callable(count) else batch_length(batch)


def counted_examples(loss: Loss, batch: Any) -> int:
    """Number of examples of a batch that count: those with a label other than -100 if the loss can tell, else all.

    >>> import torch
    >>> from howsparse import cross_entropy
    >>> counted_examples(cross_entropy, (torch.zeros(3, 2), torch.tensor([0, 1, -100])))
    2
    """
    owners = getattr(loss, "examples", None)
    return len(owners(batch).unique()) if callable(owners) else batch_length(batch)
