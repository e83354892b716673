"""2:4 sparsity on a GPU: of each 4 weights that follow one another in a row, at most 2 are not zero."""

import torch
from torch import Tensor, nn

from howsparse.deploy.copies import plain_copy
from howsparse.errors import InputError

__all__ = ["is_two_of_four", "semi_structured"]

_TYPES = (torch.float16, torch.bfloat16)


def semi_structured(model: nn.Module) -> nn.Module:
    """A copy whose linear layers hold torch's semi-structured tensors where their masks allow 2:4 sparsity.

    GPUs from NVIDIA's Ampere on multiply such matrices with less work. `howsparse.n_of_m_mask` makes such masks.

    Args:
        model: a network on such a GPU, in float16 or bfloat16.

    Returns:
        The copy. Layers whose masks or sizes do not allow it stay dense.

    Raises:
        InputError: the network is not on a GPU, or no layer is suitable.
    """
    copied = plain_copy(model).eval()
    layers = [layer for layer in copied.modules() if type(layer) is nn.Linear]
    if not any(layer.weight.is_cuda for layer in layers):
        raise InputError(
            "2:4 sparsity needs a linear layer on a GPU; move the network there, or use howsparse.sparsify"
        )
    suitable = [layer for layer in layers if layer.weight.dtype in _TYPES and is_two_of_four(layer.weight)]
    if not suitable:
        raise InputError(
            "no linear layer has 2:4 sparsity in float16 or bfloat16; prune with howsparse.n_of_m_mask(model, 2, 4)"
        )
    for layer in suitable:
        layer.weight = nn.Parameter(torch.sparse.to_sparse_semi_structured(layer.weight.detach()))
    return copied


def is_two_of_four(weight: Tensor) -> bool:
    """Whether a matrix has 2:4 sparsity along its rows, and a size that torch's kernels take.

    >>> is_two_of_four(torch.tensor([[1.0, 0.0, 2.0, 0.0]]).repeat(32, 16))
    True
    """
    rows, columns = weight.shape
    if rows % 32 or columns % 64:
        return False
    return bool(((weight != 0).view(rows, -1, 4).sum(2) <= 2).all())
