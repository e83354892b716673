"""A few examples of some data, spread evenly over all of them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from howsparse.risk.batches import batch_length, can_split, examples

__all__ = ["spread"]


def spread(batches: Iterable[Any], count: int) -> list[Any]:
    """About ``count`` examples at equal distances, so that data which are sorted by class give all classes.

    Examples of equal form (shapes and data types) that follow each other are joined again, to batches that are about as
    large as the largest one given. A batch that cannot be split is taken whole or not at all.

    Args:
        batches: batches that can be read twice and are the same in both passes.
        count: number of examples; all of them if there are fewer.

    >>> [batch.tolist() for batch in spread([torch.arange(4), torch.arange(4, 10)], 5)]
    [[1, 3, 5, 7, 9]]
    """
    lengths = [batch_length(batch) for batch in batches]
    total = sum(lengths)
    if total <= count:
        return list(batches)
    taken: list[Any] = []
    seen = 0
    for batch in batches:
        length = batch_length(batch)
        mine = [i for i in range(length) if (seen + i + 1) * count // total > (seen + i) * count // total]
        seen += length
        if mine:
            taken.append(examples(batch, mine) if can_split(batch) else batch)
    return list(_joined(taken, max(lengths)))


def _joined(batches: list[Any], size: int) -> Iterator[Any]:
    """Batches of equal form that follow each other are joined, while there are at most ``size`` examples."""
    group: list[Any] = []
    for batch in batches:
        length = sum(map(batch_length, group)) + batch_length(batch)
        if group and (length > size or not can_split(batch) or _form(batch) != _form(group[0])):
            yield _cat(group)
            group = []
        group.append(batch)
    if group:
        yield _cat(group)


def _form(batch: Any) -> Any:
    """What two batches must have in common to be joined."""
    if isinstance(batch, Tensor):
        return batch.shape[1:], batch.dtype, batch.device
    if isinstance(batch, Mapping):
        return {name: _form(value) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch), [_form(value) for value in batch]
    return batch


def _cat(parts: list[Any]) -> Any:
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(parts)
    if isinstance(first, Mapping):
        return {name: _cat([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple | list):
        joined = [_cat(list(values)) for values in zip(*parts, strict=True)]
        return getattr(first, "_make", type(first))(joined)
    return first
