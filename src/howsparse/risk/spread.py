"""A few examples of some data, spread evenly over all of them; and nested samples of this kind."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from howsparse.risk.batches import Joined, batch_length, can_split, examples

__all__ = ["nested", "spread"]


def spread(batches: Iterable[Any], count: int) -> list[Any]:
    """About ``count`` examples at equal distances. So data that are sorted by class give examples of all classes.

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
    return list(_joined(_Shell(batches, total, 0, count), max(lengths)))


def nested(batches: Iterable[Any], counts: tuple[int, ...]) -> tuple[Iterable[Any], tuple[int, ...]]:
    """The same examples in another order: first a small sample, then those that make it a larger one, then the rest.

    Each sample is spread evenly over the data, as by `spread`. The samples are copied; the rest is read from
    ``batches`` in every pass.

    Args:
        batches: batches that can be read several times and are the same in every pass.
        counts: sizes of the samples. Each is a multiple of the one before, and the last is less than all.

    Returns:
        The batches in the new order, and how many of them each sample has.

    >>> data = [torch.arange(6), torch.arange(6, 12)]
    >>> reordered, ends = nested(data, (2, 4))
    >>> [batch.tolist() for batch in reordered], ends
    ([[5, 11], [2, 8], [0, 1, 3, 4], [6, 7, 9, 10]], (1, 2))
    """
    lengths = [batch_length(batch) for batch in batches]
    total, size = sum(lengths), max(lengths)
    samples: list[Any] = []
    ends: list[int] = []
    for before, count in zip((0, *counts), counts, strict=False):
        new = _Shell(batches, total, before, count)
        samples += _joined(new, size)
        ends.append(len(samples))
    return Joined((samples, _Shell(batches, total, counts[-1], total))), tuple(ends)


@dataclass(frozen=True)
class _Shell:
    """The examples that are in the spread sample of ``count`` examples, but not in that of ``before`` examples.

    A batch that cannot be split is taken whole if one of its examples is in the first and none in the second.
    """

    batches: Iterable[Any]
    total: int
    before: int
    count: int

    def __iter__(self) -> Iterator[Any]:
        seen = 0
        for batch in self.batches:
            places = range(seen, seen + batch_length(batch))
            seen = places.stop
            if can_split(batch):
                mine = [i - places.start for i in places if self._in(i, self.count) and not self._in(i, self.before)]
                if mine:
                    yield examples(batch, mine)
            elif any(self._in(i, self.count) for i in places) and not any(self._in(i, self.before) for i in places):
                yield batch

    def _in(self, i: int, count: int) -> bool:
        """Whether example ``i`` is in the evenly spread sample of ``count``."""
        return (i + 1) * count // self.total > i * count // self.total


def _joined(batches: Iterable[Any], size: int) -> Iterator[Any]:
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
    """The form of a batch; two batches can be joined if their forms are equal."""
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
