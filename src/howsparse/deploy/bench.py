"""What pruning brings on this machine: times of dense, sparse and compacted layers, and where sparse begins to win."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.deploy.compact import compacted
from howsparse.deploy.copies import plain_copy, replace_module
from howsparse.deploy.kernels import DENSE
from howsparse.deploy.sparse import MARGIN, SparseLinear, fastest
from howsparse.deploy.sparse_conv import is_suitable, sparse_layer
from howsparse.deploy.sparsify import check_batches, sparsify, tune
from howsparse.deploy.timing import bytes_of, latency, of_batch
from howsparse.errors import InputError
from howsparse.pruning.masks import magnitude_mask
from howsparse.shown import Card, Shown

__all__ = ["Benched", "LayerTimes", "NetworkTimes", "bench", "break_even"]

BATCHES = (1, 8, 32, 128, 256)
_BUDGET = 0.2  # seconds that a whole network is timed
_GRID = (0.0, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.97, 0.98, 0.99, 0.995)


@dataclass(frozen=True)
class LayerTimes:
    """Times of one layer at one batch size, in seconds for a call.

    Attributes:
        layer: name of the layer.
        batch: number of examples.
        sparsity: fraction of its weights that are zero.
        dense, dense_kernel: time of the fastest dense kernel, and its name.
        sparse, sparse_kernel: the same for the sparse kernels.
        compacted: time of the fastest kernel of the compacted layer, dense or sparse; None if it was not compacted.
        break_even: smallest sparsity, of those tried, at which a sparse kernel wins; None if none wins.
    """

    layer: str
    batch: int
    sparsity: float
    dense: float
    dense_kernel: str
    sparse: float
    sparse_kernel: str
    compacted: float | None
    break_even: float | None

    @property
    def sparse_wins(self) -> bool:
        """Whether the fastest kernel is a sparse one."""
        return fastest({self.dense_kernel: self.dense, self.sparse_kernel: self.sparse}) == self.sparse_kernel

    @property
    def sentence(self) -> str:
        """What to do with the layer."""
        held = f"this layer holds {100 * self.sparsity:.1f} %"
        if self.sparse_wins:
            return f"sparse is {self.dense / self.sparse:.1f} times faster than dense ({held})"
        if self.break_even is None:
            return f"no sparse kernel wins at this shape ({held}): stay dense"
        if self.sparsity >= self.break_even:
            return f"sparse and dense are equally fast ({held})"
        return f"CSR needs {100 * self.break_even:g} %, {held}: stay dense, or train with l1"


@dataclass(frozen=True)
class NetworkTimes:
    """Times of the whole network at one batch size, in seconds for a call.

    Attributes:
        batch: number of examples.
        dense: as it is, by torch's default kernels.
        compacted: without dead units and channels.
        sparse: with sparse layers where they win.
        both: compacted, then with sparse layers where they win.
    """

    batch: int
    dense: float
    compacted: float
    sparse: float
    both: float


@dataclass(frozen=True)
class Benched(Shown):
    """What pruning brings on this machine.

    Attributes:
        layers: one entry for each layer and batch size.
        network: one entry for each batch size.
        bytes: memory of the network, by "dense", "compacted", "sparse" and "both".
        compaction: what compaction did, in one line.
        threads: number of threads.

    >>> bench(nn.Sequential(nn.Linear(8, 4)), torch.zeros(1, 8), sparsity=0.5, batches=[1]).network[0].batch
    1
    """

    layers: tuple[LayerTimes, ...]
    network: tuple[NetworkTimes, ...]
    bytes: dict[str, int]
    compaction: str
    threads: int

    def card(self) -> Card:
        """Times of the whole network.

        Returns:
            The table. It prints as text, and a notebook shows it as HTML.
        """
        head: tuple[str, ...] = ("batch", "dense", "compacted", "sparse", "both")
        rows = [head]
        for each in self.network:
            gains = (f"{1e3 * t:.3f} ms ({each.dense / t:.1f}x)" for t in (each.compacted, each.sparse, each.both))
            rows.append((str(each.batch), f"{1e3 * each.dense:.3f} ms", *gains))
        rows.append(("memory", *(f"{self.bytes[name] / 2**20:.2f} MiB" for name in head[1:])))
        return Card(f"Time of a call, {self.threads} threads", tuple(rows), (self.compaction,))


def bench(
    model: nn.Module, example: Any, *, sparsity: float | None = None, batches: Iterable[int] = BATCHES
) -> Benched:
    """Time each layer and the whole network on this machine: dense, compacted, and with sparse kernels.

    Args:
        model: a network with zeros in its weights, on a CPU. It is not changed.
        example: an input: a tensor, a tuple of arguments, or a dict of keyword arguments.
        sparsity: fraction of the weights to remove first, by magnitude, in a copy; None to take the network as it is.
        batches: batch sizes, each at least 1.

    Returns:
        The times, and for each layer and batch size the sparsity where a sparse kernel begins to win.

    Raises:
        InputError: a batch size is not positive, or the network has no layer that can be timed.

    >>> found = bench(nn.Sequential(nn.Linear(8, 4)), torch.zeros(1, 8), sparsity=0.5, batches=[1])
    >>> found.layers[0].layer, found.layers[0].sparsity
    ('0', 0.5)
    """
    sizes = check_batches(batches)
    model = plain_copy(model).eval()
    if sparsity is not None:
        magnitude_mask(model, sparsity).apply_(model)
    with torch.inference_mode():
        dense_layers, shapes = _timed(model, example, sizes)
    if not dense_layers:
        raise InputError(
            "the network has no linear layer or convolution that can be timed; give a network that has one"
        )
    smaller = compacted(model, example)
    same = smaller.weights_after == smaller.weights_before
    with torch.inference_mode():
        compact_layers = {} if same else _timed(smaller.model, example, sizes)[0]
        layers = _layers(model, dense_layers, compact_layers, shapes)
    networks = {"dense": model, "compacted": smaller.model, "sparse": sparsify(model, example, batches=sizes)}
    networks["both"] = networks["sparse"] if same else sparsify(smaller.model, example, batches=sizes)
    times = tuple(_network(networks, of_batch(example, size), size) for size in sizes)
    memory = {name: bytes_of(network) for name, network in networks.items()}
    return Benched(layers, times, memory, smaller.sentence, torch.get_num_threads())


def _network(networks: dict[str, nn.Module], inputs: Any, size: int) -> NetworkTimes:
    return NetworkTimes(
        size, **{name: latency(each, inputs, budget=_BUDGET).seconds for name, each in networks.items()}
    )


def _timed(
    model: nn.Module, example: Any, sizes: list[int]
) -> tuple[dict[str, SparseLinear], dict[str, dict[int, tuple[int, torch.Size]]]]:
    """Every layer with the times of its kernels; and by batch size, its number of rows and the shape of its input."""
    copied = nn.ModuleDict({"model": copy.deepcopy(model)})
    layers = {
        name.removeprefix("model").removeprefix("."): sparse_layer(layer)
        for name, layer in copied.named_modules()
        if is_suitable(layer)
    }
    shapes: dict[str, dict[int, tuple[int, torch.Size]]] = {name: {} for name in layers}
    size = 0

    def note(name: str, layer: SparseLinear, x: Tensor) -> None:
        shapes[name][size] = (layer._length(x), x.shape)

    for name, layer in layers.items():
        replace_module(copied, f"model.{name}".rstrip("."), layer)
        layer.register_forward_pre_hook(lambda module, args, name=name: note(name, module, args[0]))
    for size in sizes:
        tune(copied["model"], layers.values(), example, [size])
    return {name: layer for name, layer in layers.items() if layer.seconds}, shapes


def _layers(
    model: nn.Module,
    timed: dict[str, SparseLinear],
    smaller: dict[str, SparseLinear],
    shapes: dict[str, dict[int, tuple[int, torch.Size]]],
) -> tuple[LayerTimes, ...]:
    known: dict[Any, float | None] = {}
    rows = []
    for name, layer in timed.items():
        for size, (length, shape) in shapes[name].items():
            times = layer.seconds[length]
            dense, sparse = (fastest({n: t for n, t in times.items() if (n in DENSE) == of}) for of in (True, False))
            key = (repr(model.get_submodule(name)), shape)
            if key not in known:
                known[key] = break_even(model.get_submodule(name), shape, times[dense])
            less = smaller[name].seconds.get(length) if name in smaller else None
            rows.append(
                LayerTimes(
                    *(name, size, layer.matrix.sparsity, times[dense], dense, times[sparse], sparse),
                    None if less is None else min(less.values()),
                    known[key],
                )
            )
    return tuple(rows)


def break_even(layer: nn.Module, shape: torch.Size, dense: float) -> float | None:
    """The smallest sparsity of a grid at which a sparse kernel beats the dense one, by bisection with random masks.

    Args:
        layer: a linear layer or a convolution.
        shape: shape of its input.
        dense: time of its fastest dense kernel, in seconds.

    Returns:
        The sparsity; None if no sparse kernel wins at the largest one.
    """
    x = torch.randn(shape)
    low, high = 0, len(_GRID)
    with torch.inference_mode():
        while low < high:
            middle = (low + high) // 2
            if _sparse_time(layer, _GRID[middle], x) < MARGIN * dense:
                high = middle
            else:
                low = middle + 1
    return _GRID[low] if low < len(_GRID) else None


def _sparse_time(layer: nn.Module, sparsity: float, x: Tensor) -> float:
    """Time of the fastest sparse kernel with a random mask."""
    drawn = copy.deepcopy(layer)
    generator = torch.Generator().manual_seed(0)
    kept = torch.rand(drawn.weight.shape, generator=generator) >= sparsity  # type: ignore[arg-type]
    drawn.weight = nn.Parameter(kept.float())
    held = sparse_layer(drawn)
    return min(held.time(x, [name for name in held.usable() if name not in DENSE]).values())
