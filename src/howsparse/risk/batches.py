"""Batches of any shape: tensors, pairs, dicts and what is built of them."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["batch_length", "move", "split_batch"]


def move(batch: Any, device: torch.device) -> Any:
    """The batch on ``device``, whatever it is built of."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(move(value, device) for value in batch)
    return batch


def batch_length(batch: Any) -> int:
    """Examples in a batch: the length of its first tensor; 1 if it has none."""
    tensor = next(_tensors(batch), None)
    return 1 if tensor is None or tensor.ndim == 0 else len(tensor)


def split_batch(batch: Any, size: int) -> list[Any]:
    """The batch in pieces of at most ``size`` examples, or whole if not all its tensors have the same length."""
    length = batch_length(batch)
    if length <= size or any(t.ndim == 0 or len(t) != length for t in _tensors(batch)):
        return [batch]
    return [_piece(batch, slice(start, start + size)) for start in range(0, length, size)]


def _piece(batch: Any, part: slice) -> Any:
    if isinstance(batch, Tensor):
        return batch[part]
    if isinstance(batch, Mapping):
        return {key: _piece(value, part) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(_piece(value, part) for value in batch)
    return batch


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from _tensors(value)
