"""Sparse tensors in few bytes: the entries that stay, and the lengths of the runs of removed entries between them.

Between two entries that stay there is a run of removed ones. The length of a run is written as one or more numbers of
``bits`` bits, from 1 to 16 bits; the width with the fewest bytes is taken for each tensor. The largest number,
``m = 2**bits - 1``, means "m removed entries, and the run continues". A smaller number ends the run, and an entry that
stays follows. With one bit, this is a mask of one bit for each entry.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["pack_positions", "pack_values", "unpack_positions", "unpack_values"]

WIDEST = 16
Bytes = npt.NDArray[np.uint8]

_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # integers of as many bytes


def pack_positions(kept: Tensor) -> tuple[int, Tensor]:
    """Write a mask in few bytes.

    Args:
        kept: boolean tensor of any shape; True for the entries that stay.

    Returns:
        Bits of a number, 1 to 16, and the bytes as a vector of uint8. Equal masks give equal bytes.

    >>> pack_positions(torch.tensor([False, True, True, False]))
    (1, tensor([128], dtype=torch.uint8))
    >>> mask = torch.zeros(1000).bool()
    >>> mask[[10, 600]] = True
    >>> pack_positions(mask)[1].numel()
    3
    """
    positions = np.flatnonzero(kept.detach().cpu().contiguous().numpy())
    if not len(positions):
        return 1, torch.empty(0, dtype=torch.uint8)
    runs = np.diff(positions, prepend=-1) - 1
    bits = _narrowest(runs)
    most = (1 << bits) - 1
    ends = np.cumsum(runs // most + 1) - 1  # where the number that ends a run stands
    numbers = np.full(ends[-1] + 1, most, dtype=np.uint16)
    numbers[ends] = runs % most
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint16)
    digits = (numbers[:, None] >> shifts & 1).astype(np.uint8)
    return bits, torch.from_numpy(np.packbits(digits))


def unpack_positions(packed: Tensor, bits: int, count: int, length: int) -> Tensor:
    """Read what `pack_positions` wrote.

    Args:
        packed: the bytes.
        bits: bits of a number.
        count: number of entries that stay.
        length: number of all entries.

    Returns:
        Positions of the entries that stay, in increasing order, as int64.

    Raises:
        ValueError: the bytes are not those of ``count`` positions below ``length``.

    >>> bits, packed = pack_positions(torch.tensor([False, True, True, False]))
    >>> unpack_positions(packed, bits, count=2, length=4)
    tensor([1, 2])
    """
    if not 1 <= bits <= WIDEST:
        raise ValueError(f"numbers have {bits} bits")
    digits = np.unpackbits(packed.numpy())
    whole = digits[: len(digits) // bits * bits].reshape(-1, bits)
    numbers = np.zeros(len(whole), dtype=np.int64)
    for column in range(bits):
        numbers = numbers << 1 | whole[:, column]
    ends = np.flatnonzero(numbers < (1 << bits) - 1)[:count]
    if len(ends) < count:
        raise ValueError(f"{len(ends)} positions, not {count}")
    used = (int(ends[-1]) + 1) * bits if count else 0
    if len(packed) != math.ceil(used / 8) or digits[used:].any():
        raise ValueError("there is more than the positions")
    positions = np.cumsum(numbers)[ends] + np.arange(count)
    if count and positions[-1] >= length:
        raise ValueError(f"position {positions[-1]} is beyond the end")
    return torch.from_numpy(positions)


def pack_values(tensor: Tensor, kept: Tensor) -> Tensor:
    """The entries of a tensor that stay, bit by bit, as a vector of its type.

    >>> pack_values(torch.tensor([[5.0, 0.0], [7.0, 0.0]]), torch.tensor([[True, False], [True, False]]))
    tensor([5., 7.])
    """
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    whole = flat.view(_WHOLE[tensor.element_size()])
    return whole[kept.detach().cpu().reshape(-1)].view(tensor.dtype)


def unpack_values(values: Tensor, positions: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor that has these values at these positions, and zeros elsewhere.

    >>> unpack_values(torch.tensor([5.0, 7.0]), torch.tensor([0, 2]), (2, 2))
    tensor([[5., 0.],
            [7., 0.]])
    """
    whole = _WHOLE[values.element_size()]
    flat = torch.zeros(math.prod(shape), dtype=whole)
    flat[positions] = values.view(whole)
    return flat.view(values.dtype).reshape(shape)


def _narrowest(runs: npt.NDArray[np.int64]) -> int:
    """The number of bits with which these runs take the fewest bytes."""
    lengths, counts = np.unique(runs, return_counts=True)

    def size(bits: int) -> int:
        return math.ceil(bits * int(counts @ (lengths // ((1 << bits) - 1) + 1)) / 8)

    return min(range(1, WIDEST + 1), key=size)
