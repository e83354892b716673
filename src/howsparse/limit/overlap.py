"""Overlap of data: the examples that two sets of batches have in common, compared by content."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from howsparse.risk.batches import batch_length, can_split, examples
from howsparse.store import digest

__all__ = ["example_digests", "overlapping"]


def overlapping(batches: Iterable[Any], others: Iterable[Any]) -> int:
    """Number of examples of ``batches`` that have the same content as an example of ``others``.

    Two examples have the same content if all their tensors are equal to the last bit: an image and its label, or the
    tokens of a text and their labels. The size of the batches and the padding of texts do not matter. A changed copy of
    an image, for example by augmentation, is another example.

    Args:
        batches: batches to read once.
        others: batches to read once.

    >>> import torch
    >>> overlapping([torch.arange(4)], [torch.tensor([3, 7]), torch.tensor([0])])
    2
    """
    seen = set(example_digests(others))
    return sum(found in seen for found in example_digests(batches))


def example_digests(batches: Iterable[Any]) -> Iterator[str]:
    """SHA-256 of the content of each example, in hexadecimal.

    Positions that an ``attention_mask`` of shape (examples, positions) hides are left out. A batch that cannot be split
    into examples counts as one example.

    Args:
        batches: batches to read once, on any device.

    >>> import torch
    >>> first, second = example_digests([{"x": torch.tensor([1, 1])}])
    >>> first == second
    True
    """
    for batch in batches:
        if not can_split(batch):
            yield digest(_content(batch))
            continue
        for i in range(batch_length(batch)):
            yield digest(_content(examples(batch, slice(i, i + 1))))


def _content(batch: Any) -> list[Any]:
    """The tensors of a batch with their names, and without the padding of texts."""
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, Mapping):
        mask = batch.get("attention_mask")
        return [[name, _unpadded(batch[name], mask)] for name in sorted(batch, key=str)]
    if isinstance(batch, tuple | list):
        return [_content(value) for value in batch]
    return []


def _unpadded(value: Any, mask: Any) -> Any:
    """A value of a mapping; of a tensor of the mask's shape, only the entries that the mask shows."""
    if isinstance(value, Tensor) and isinstance(mask, Tensor) and mask.ndim == 2 and value.shape == mask.shape:
        return value[mask.bool()]
    return _content(value)
