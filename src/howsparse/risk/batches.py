"""Functions for batches in any form: tensors, pairs, dicts, and combinations of these."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from howsparse.errors import InputError
from howsparse.store import digest

__all__ = [
    "EveryNth",
    "FirstExamples",
    "Joined",
    "Pieces",
    "SamePasses",
    "batch_length",
    "can_split",
    "examples",
    "is_half",
    "move",
    "precise",
    "same_content",
    "split_batch",
]


@dataclass(frozen=True)
class FirstExamples:
    """The first examples of some batches. The last batch may be shorter.

    Attributes:
        batches: batches that can be read several times.
        count: number of examples.
        exact: whether a last batch that cannot be split is refused; else it stays whole.

    Raises:
        InputError: on reading, if ``exact`` and the last batch cannot be split.

    >>> [len(batch) for batch in FirstExamples([torch.zeros(4, 2), torch.zeros(4, 2)], 6)]
    [4, 2]
    """

    batches: Iterable[Any]
    count: int
    exact: bool = False

    def __iter__(self) -> Iterator[Any]:
        left = self.count
        for batch in self.batches:
            if left <= 0:
                return
            if self.exact and batch_length(batch) > left and not can_split(batch):
                raise InputError(
                    f"the first {self.count} examples end inside of a batch of {batch_length(batch)} that cannot be"
                    " split, because its tensors differ in length; use a number that ends with a batch, or all examples"
                )
            yield split_batch(batch, left)[0]
            left -= batch_length(batch)


@dataclass(frozen=True)
class EveryNth:
    """One batch in every ``step`` batches.

    Attributes:
        batches: batches that can be read several times.
        step: distance between the batches.
        start: position of the first one.

    >>> list(EveryNth("abcdefg", 3)), list(EveryNth("abcdefg", 3, start=1))
    (['a', 'd', 'g'], ['b', 'e'])
    """

    batches: Iterable[Any]
    step: int
    start: int = 0

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.batches), self.start, None, self.step)


@dataclass(frozen=True)
class Pieces:
    """The same examples in batches of at most ``size`` examples. A batch that cannot be split stays whole.

    Attributes:
        batches: batches that can be read several times.
        size: largest number of examples in a piece.

    >>> [len(piece) for piece in Pieces([torch.zeros(5), torch.zeros(2)], 3)]
    [3, 2, 2]
    """

    batches: Iterable[Any]
    size: int

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            yield from split_batch(batch, self.size)


@dataclass(frozen=True)
class Joined:
    """Several sets of batches, one after the other.

    Attributes:
        parts: sets of batches that can be read several times.

    >>> list(Joined(("ab", "c")))
    ['a', 'b', 'c']
    """

    parts: tuple[Iterable[Any], ...]

    def __iter__(self) -> Iterator[Any]:
        for part in self.parts:
            yield from part


@dataclass(frozen=True)
class SamePasses:
    """Batches that are the same in every pass, also from a shuffling DataLoader.

    The passes have their own torch random state, which is set from ``seed`` at the start of each pass. Between two
    batches, torch has the caller's random state. Random numbers of numpy and Python are not fixed.

    Attributes:
        batches: a loader, or a function that is called without arguments at the start of each pass and returns batches.
        seed: seed of torch's random state.

    >>> loader = torch.utils.data.DataLoader(torch.arange(4), 2, shuffle=True)
    >>> first, second = ([batch.tolist() for batch in passes] for passes in [SamePasses(loader)] * 2)
    >>> first == second
    True
    """

    batches: Iterable[Any] | Callable[[], Iterable[Any]]
    seed: int = 0

    def __iter__(self) -> Iterator[Any]:
        own = torch.Generator().manual_seed(self.seed).get_state()
        remaining: Iterator[Any] | None = None
        while True:
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.set_rng_state(own)
                if remaining is None:
                    remaining = iter(self.batches() if callable(self.batches) else self.batches)
                try:
                    batch = next(remaining)
                except StopIteration:
                    return
                own = torch.get_rng_state()
            yield batch


def move(batch: Any, device: torch.device) -> Any:
    """The batch with all its tensors on ``device``."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=device.type == "cuda")
    if isinstance(batch, Mapping):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return _like(batch, (move(value, device) for value in batch))
    return batch


def is_half(tensor: Tensor) -> bool:
    """Whether a tensor has half precision: float16 or bfloat16."""
    return tensor.dtype in (torch.float16, torch.bfloat16)


def precise(batch: Any) -> Any:
    """The batch with its tensors of half precision in float32.

    >>> precise([torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.int32)])
    [tensor([0.]), tensor([0], dtype=torch.int32)]
    """
    if isinstance(batch, Tensor):
        return batch.float() if is_half(batch) else batch
    if isinstance(batch, Mapping):
        return {key: precise(value) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return _like(batch, (precise(value) for value in batch))
    return batch


def batch_length(batch: Any) -> int:
    """Number of examples in a batch: the length of its first tensor; 1 if it has none."""
    tensor = next(_tensors(batch), None)
    return 1 if tensor is None or tensor.ndim == 0 else len(tensor)


def split_batch(batch: Any, size: int) -> list[Any]:
    """Split the batch into pieces of at most ``size`` examples. Do not split it if its tensors differ in length."""
    length = batch_length(batch)
    if length <= size or not can_split(batch):
        return [batch]
    return [examples(batch, slice(start, start + size)) for start in range(0, length, size)]


def can_split(batch: Any) -> bool:
    """Whether all tensors of a batch have the same length, so that its examples can be separated."""
    length = batch_length(batch)
    return all(tensor.ndim > 0 and len(tensor) == length for tensor in _tensors(batch))


def examples(batch: Any, index: slice | list[int]) -> Any:
    """The examples at ``index``: every tensor of the batch is indexed, and other values are unchanged.

    >>> examples({"x": torch.arange(5), "name": "a"}, slice(1, None, 2))
    {'x': tensor([1, 3]), 'name': 'a'}
    """
    if isinstance(batch, Tensor):
        return batch[index]
    if isinstance(batch, Mapping):
        return {key: examples(value, index) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return _like(batch, (examples(value, index) for value in batch))
    return batch


def same_content(batch: Any, other: Any) -> bool:
    """Whether two batches hold the same tensors, to the last bit."""
    return digest(list(_tensors(batch))) == digest(list(_tensors(other)))


def _like(batch: tuple[Any, ...] | list[Any], values: Iterable[Any]) -> Any:
    """A tuple, named tuple or list of the same type with other values."""
    make: Callable[[Iterable[Any]], Any] = getattr(batch, "_make", type(batch))  # named tuples have _make
    return make(values)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from _tensors(value)
