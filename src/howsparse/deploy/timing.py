"""How long a network takes on this machine, and how much memory its tensors take."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

__all__ = ["OF_NETWORKS", "Latency", "bytes_of", "called", "latency", "of_batch", "seconds_of"]

# What a network raises when it is called with a wrong example, or traced.
OF_NETWORKS = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError, AssertionError)
_SHORTEST = 5e-4  # seconds; shorter calls are timed several at a time, since reading the clock costs too
_WARM_UP = 3  # calls that are not timed, for libraries that choose a kernel or allocate at first calls


@dataclass(frozen=True)
class Latency:
    """Time of one call of a network.

    Attributes:
        seconds: median time of a call.
        low, high: lower and upper quartile of the time of a call, in seconds.
        calls: number of calls that were timed.
        batch: number of examples in a call.

    >>> Latency(seconds=0.002, low=0.0019, high=0.0022, calls=100, batch=32).batch
    32
    """

    seconds: float
    low: float
    high: float
    calls: int
    batch: int

    @property
    def throughput(self) -> float:
        """Examples per second.

        >>> Latency(0.5, 0.4, 0.6, calls=9, batch=32).throughput
        64.0
        """
        return self.batch / self.seconds


def latency(model: nn.Module, example: Any, *, budget: float = 0.5, batch: int | None = None) -> Latency:
    """Measure how long a network takes for one input on this machine, in evaluation mode and without gradients.

    The mode of the network is put back. Times of other networks compare with this one only within one run, on the same
    number of threads.

    Args:
        model: a network.
        example: its input: a tensor, a tuple of arguments, or a dict of keyword arguments.
        budget: approximate duration of the measurement, in seconds; at least three calls are timed.
        batch: number of examples in the input; by default the length of its first tensor.

    Returns:
        The median time of a call, and how far calls differ.

    >>> latency(nn.Linear(4, 2), torch.zeros(8, 4), budget=0.01).batch
    8
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            times = seconds_of(called(model, example), budget=budget)
    finally:
        for module, mode in modes:
            module.training = mode
    low, middle, high = statistics.quantiles(times, n=4)
    return Latency(middle, low, high, len(times), _length(example) if batch is None else batch)


def seconds_of(call: Callable[[], object], *, budget: float = 0.5) -> list[float]:
    """Times of repeated calls in seconds, after a few that are not timed.

    Args:
        call: what is timed. Very short calls are timed several at a time.
        budget: approximate duration of all calls, in seconds; at least three times are returned.
    """
    began = time.perf_counter()
    for _ in range(_WARM_UP):
        call()
    _finish()
    at_once = max(1, round(_SHORTEST * _WARM_UP / max(time.perf_counter() - began, 1e-9)))
    times: list[float] = []
    while len(times) < 3 or time.perf_counter() - began < budget:
        start = time.perf_counter()
        for _ in range(at_once):
            call()
        _finish()
        times.append((time.perf_counter() - start) / at_once)
    return times


def bytes_of(model: nn.Module) -> int:
    """Bytes of the parameters and buffers of a network, sparse ones with their indices. Shared memory counts once.

    Args:
        model: any module.

    Returns:
        A number of bytes.

    >>> bytes_of(nn.Linear(4, 2))
    40
    """
    parts = [part for tensor in (*model.parameters(), *model.buffers()) for part in _dense_parts(tensor.detach())]
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}
    return sum(storages.values())


def _dense_parts(tensor: Tensor) -> list[Tensor]:
    """The dense tensors that a tensor is made of."""
    if tensor.layout == torch.strided:
        return [tensor]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.values(), tensor.crow_indices(), tensor.col_indices()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.values(), tensor.ccol_indices(), tensor.row_indices()]
    return [tensor._values(), tensor._indices()]


def _finish() -> None:
    """Wait for a GPU, whose calls return before they are done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def called(model: nn.Module, example: Any) -> Callable[[], Any]:
    """The call of a network with an input: a tensor, a tuple of arguments, or a dict of keyword arguments."""
    if isinstance(example, Mapping):
        return partial(model, **example)
    return partial(model, *example) if isinstance(example, tuple | list) else partial(model, example)


def of_batch(example: Any, size: int) -> Any:
    """An input with another number of examples: the first ones, repeated if there are too few.

    Args:
        example: an input of a network. Every tensor that is as long as the first one has an example in each row.
        size: number of examples.

    >>> of_batch({"x": torch.tensor([1, 2]), "scale": torch.tensor(3.0)}, 3)
    {'x': tensor([1, 2, 1]), 'scale': tensor(3.)}
    """
    length = _length(example)

    def taken(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.ndim or len(leaf) != length:
            return leaf
        return leaf[torch.arange(size, device=leaf.device) % length]

    return pytree.tree_map(taken, dict(example) if isinstance(example, Mapping) else example)


def _length(example: Any) -> int:
    """Number of examples in an input: the length of its first tensor."""
    leaves = pytree.tree_leaves(dict(example) if isinstance(example, Mapping) else example)
    return next((len(each) for each in leaves if isinstance(each, Tensor) and each.ndim), 1)
