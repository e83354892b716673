"""Put sparse layers in the place of dense ones where they are faster on this machine."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.deploy.chain import fuse_sequences
from howsparse.deploy.copies import plain_copy, replace_module
from howsparse.deploy.kernels import DENSE
from howsparse.deploy.sparse import SparseLinear
from howsparse.deploy.sparse_conv import is_suitable, sparse_layer
from howsparse.deploy.timing import called, of_batch
from howsparse.errors import InputError

__all__ = ["BATCHES", "check_batches", "sparsify", "tune"]

BATCHES = (1, 32, 256)
_LEAST = 0.3  # below this sparsity no kernel has won


def sparsify(
    model: nn.Module, example: Any, *, batches: Iterable[int] = BATCHES, least_sparsity: float = _LEAST
) -> nn.Module:
    """A copy that holds the nonzero weights only, in each layer where this is faster on this machine.

    Each linear layer and convolution that is sparse enough is timed with every kernel at each batch size: torch's CSR
    (MKL), SciPy's CSR, torch's embedding sums, dense MKL and dense oneDNN. A layer for which a dense kernel wins at
    every batch size stays as it is. The copy chooses at each call, by the batch size. In an `nn.Sequential`, a sparse
    layer and the ReLU after it become one step. Outputs are the same up to rounding. It is for inference, and fastest
    in `torch.inference_mode`.

    Args:
        model: a network with zeros in its weights.
        example: an input: a tensor, a tuple of arguments, or a dict of keyword arguments.
        batches: batch sizes to time, each at least 1.
        least_sparsity: layers with a smaller fraction of zeros stay dense and are not timed.

    Returns:
        The copy, in evaluation mode.

    Raises:
        InputError: a batch size is not positive.

    >>> layer = nn.Linear(512, 512)
    >>> _ = layer.weight.data.copy_(torch.eye(512))
    >>> sparsify(nn.Sequential(layer), torch.ones(1, 512), batches=[1])[0].values.shape
    torch.Size([512])
    """
    sizes = check_batches(batches)
    whole = plain_copy(model).eval()
    copied = nn.ModuleDict({"model": whole})  # a network that is one layer is replaced in it
    found = {
        name: layer for name, layer in copied.named_modules() if _is_candidate(copied, name, layer, least_sparsity)
    }
    layers = {name: sparse_layer(layer) for name, layer in found.items()}
    for name, layer in layers.items():
        replace_module(copied, name, layer)
    with torch.inference_mode():
        tune(copied["model"], layers.values(), example, sizes)
    for name, layer in layers.items():
        if all(kernel in DENSE for kernel in layer.kernels.values()):
            replace_module(copied, name, found[name])
    fuse_sequences(copied["model"])
    return copied["model"]


def check_batches(batches: Iterable[int]) -> list[int]:
    """The batch sizes in order.

    Raises:
        InputError: there is none, or one is not positive.
    """
    sizes = sorted(set(batches))
    if not sizes or sizes[0] < 1:
        raise InputError(f"batches={sizes} must be positive numbers of examples, and at least one")
    return sizes


def tune(model: nn.Module, layers: Iterable[SparseLinear], example: Any, sizes: Iterable[int]) -> None:
    """Time every kernel of sparse layers on the inputs that they get in a network.

    Args:
        model: the network that contains the layers.
        layers: sparse layers. A layer that is not called keeps its default kernels.
        example: an input of the network.
        sizes: batch sizes.
    """
    layers = list(layers)
    for layer in layers:
        layer.tuning = True
    for size in sizes:
        inputs = of_batch(example, size)
        try:
            called(model, inputs)()
        except RuntimeError:  # a view of an output that is not contiguous
            for layer in layers:
                layer.by_rows, layer._ready = True, {}
            called(model, inputs)()
    for layer in layers:
        layer.finish()


def _is_candidate(model: nn.Module, name: str, layer: nn.Module, least: float) -> bool:
    if not is_suitable(layer) or not isinstance(layer.weight, Tensor):
        return False
    parent = model.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        return False  # torch's own code reads their weights without calling them
    return float((layer.weight == 0).float().mean()) >= least
