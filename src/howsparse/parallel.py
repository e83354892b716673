"""Several processes, one answer: each takes its share of the data, and sums are over all of them.

One process, or none of torch's process groups, is the ordinary case, in which nothing here does anything. `accelerate
launch` and `torchrun` start several; `join` makes them a group.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, distributed, nn

__all__ = [
    "OwnBatches",
    "gathered",
    "is_first",
    "join",
    "mean_gradients_",
    "own_count",
    "own_device",
    "rank",
    "same_buffers_",
    "sum_",
    "summed",
    "world_size",
]


def own_device() -> torch.device:
    """Where this process computes: its GPU, or the CPU if there is none (``CUDA_VISIBLE_DEVICES=`` hides them)."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def join() -> None:
    """Join the group that the launcher has started this process for, if it has."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def world_size() -> int:
    """Processes that share the work."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This one's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that speaks and writes."""
    return rank() == 0


@dataclass(frozen=True)
class OwnBatches:
    """This process's batches, re-iterable: every one of as many as there are processes."""

    batches: Iterable[Any]

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.batches), rank(), None, world_size())


def own_count(count: int) -> int:
    """How many of the first ``count`` batches are this process's."""
    return len(range(rank(), count, world_size()))


def sum_(tensor: Tensor) -> Tensor:
    """The sum over all processes, in place, the same bits in each."""
    if world_size() > 1:
        distributed.all_reduce(tensor)
    return tensor


def summed(values: list[float], device: torch.device) -> list[float]:
    """The sums over all processes of a few numbers; ``device`` is one that the group can send from."""
    if world_size() == 1:
        return values
    found: list[float] = sum_(torch.tensor(values, dtype=torch.float64, device=device)).tolist()
    return found


def gathered(values: list[float]) -> list[list[float]]:
    """Every process's values, by rank."""
    if world_size() == 1:
        return [values]
    found: list[Any] = [None] * world_size()
    distributed.all_gather_object(found, values)
    return found


def mean_gradients_(model: nn.Module, share: float) -> None:
    """Gradients of a batch's mean loss from those of the parts; ``share`` is this part's of the examples."""
    if world_size() > 1:
        for parameter in model.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                sum_(parameter.grad.mul_(share))


def same_buffers_(model: nn.Module) -> None:
    """The first process's buffers (a norm's statistics) in all of them."""
    if world_size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)
