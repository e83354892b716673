"""Several processes that compute one answer: each takes a part of the data, and sums are taken over all processes.

`accelerate launch` and `torchrun` start several processes; `join` makes them a group of `torch.distributed`. Without a
group there is one process, and the functions here return what they are given.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Value = TypeVar("Value")

__all__ = [
    "OwnBatches",
    "from_first",
    "gathered",
    "is_first",
    "join",
    "own_count",
    "own_device",
    "rank",
    "sum_",
    "summed",
    "world_size",
]


def own_device() -> torch.device:
    """The device of this process: its GPU, or the CPU if there is none (``CUDA_VISIBLE_DEVICES=`` hides GPUs).

    >>> own_device().type in ("cpu", "cuda")
    True
    """
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def join() -> None:
    """Join the process group of the launcher; do nothing if this process was not started by one.

    A launcher sets ``WORLD_SIZE``, ``RANK`` and ``LOCAL_RANK``. The group uses NCCL on GPUs and Gloo on CPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def world_size() -> int:
    """How many processes there are.

    >>> world_size()
    1
    """
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0.

    >>> rank()
    0
    """
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is process 0, the one that prints and writes files.

    >>> is_first()
    True
    """
    return rank() == 0


@dataclass(frozen=True)
class OwnBatches:
    """The batches of this process, re-iterable: process r of n has batches r, r + n, r + 2n and so on.

    Attributes:
        batches: all batches, in the same order in every process.

    >>> list(OwnBatches("abc"))  # one process has them all
    ['a', 'b', 'c']
    """

    batches: Iterable[Any]

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.batches), rank(), None, world_size())


def own_count(count: int) -> int:
    """How many of ``count`` batches (or examples) this process has, if they are distributed as by `OwnBatches`.

    >>> own_count(3)
    3
    """
    return len(range(rank(), count, world_size()))


def sum_(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place; every process gets the same bits.

    Args:
        tensor: of the same shape in every process.

    Returns:
        The tensor itself.

    >>> sum_(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    if world_size() > 1:
        distributed.all_reduce(tensor)
    return tensor


def summed(values: list[float], device: torch.device) -> list[float]:
    """Sum each of a few numbers over all processes.

    Args:
        values: the numbers of this process; their number is the same in every process.
        device: a device that the group can send from.

    Returns:
        The sums, in the order of ``values``.

    >>> summed([1.0, 2.0], torch.device("cpu"))
    [1.0, 2.0]
    """
    if world_size() == 1:
        return values
    found: list[float] = sum_(torch.tensor(values, dtype=torch.float64, device=device)).tolist()
    return found


def from_first(compute: Callable[[], Value]) -> Value:
    """The result of ``compute`` in the first process, for all processes. Only the first process calls it."""
    if world_size() == 1:
        return compute()
    found: list[Any] = [compute() if is_first() else None]
    distributed.broadcast_object_list(found)
    value: Value = found[0]
    return value


def gathered(values: list[Value]) -> list[list[Value]]:
    """Collect the values of all processes.

    Args:
        values: the values of this process.

    Returns:
        A list for each process, in the order of their ranks.

    >>> gathered([1.0, 2.0])
    [[1.0, 2.0]]
    """
    if world_size() == 1:
        return [values]
    found: list[Any] = [None] * world_size()
    distributed.all_gather_object(found, values)
    return found
