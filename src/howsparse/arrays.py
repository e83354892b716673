"""Batches from files of named arrays: NumPy's ``.npz`` and ``.safetensors``. No code in a file is run."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from howsparse.errors import InputError

__all__ = ["array_batches", "check_lengths", "dict_batches", "read_arrays", "train_and_test"]

_TEST = "test_"


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Read all arrays of a ``.npz`` or ``.safetensors`` file, by name.

    Raises:
        InputError: the file does not exist, is damaged, has pickled objects, or values that are not finite.
    """
    if not path.is_file():
        raise InputError(f"no data file at {path}; correct the path in --data")
    try:
        if path.suffix == ".safetensors":
            return _finite(load_file(path), path)
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            return _finite({name: torch.from_numpy(file[name]) for name in file.files}, path)
    except InputError:
        raise
    except Exception as error:  # a damaged file may raise anything
        kind = "a readable .safetensors file" if path.suffix == ".safetensors" else "an .npz file of plain arrays"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is not {kind}: {reason}; restore it or write it again") from error


def _finite(arrays: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The arrays themselves.

    Raises:
        InputError: an array holds a value that is infinite or no number.
    """
    for name, array in arrays.items():
        if array.is_floating_point() and not bool(torch.isfinite(array).all()):
            raise InputError(f"{path}: array '{name}' has values that are infinite or not a number; remove them")
    return arrays


def train_and_test(arrays: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split arrays into those for training and those for testing, whose names begin with ``test_``.

    Args:
        arrays: arrays by name.

    Returns:
        The training arrays and the test arrays, both without the prefix. Without test arrays, both are the same.

    >>> train_and_test({"labels": torch.zeros(2), "test_labels": torch.ones(1)})
    ({'labels': tensor([0., 0.])}, {'labels': tensor([1.])})
    """
    train = {name: array for name, array in arrays.items() if not name.startswith(_TEST)}
    test = {name.removeprefix(_TEST): array for name, array in arrays.items() if name.startswith(_TEST)}
    return train, test or train


def check_lengths(arrays: Mapping[str, Tensor], where: object) -> int:
    """Check that all arrays have the same number of examples, and return this number.

    Args:
        arrays: arrays by name; dimension 0 is the example.
        where: file of the arrays, for the message.

    Raises:
        InputError: there are no examples, or an array has another length or no dimensions.
    """
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if not lengths or not min(lengths.values()):
        empty = next((f"array '{name}'" for name, length in lengths.items() if not length), "it")
        raise InputError(f"{where}: {empty} has no examples; store at least one")
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise InputError(f"{where} has {told}; store the same number of examples in each array")
    return next(iter(lengths.values()))


def array_batches(inputs: Tensor, targets: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Split two tensors of equal length into consecutive batches.

    Args:
        inputs: inputs of all examples, ``(n, ...)``.
        targets: targets of all examples, ``(n, ...)``.
        size: number of examples in a batch.

    Returns:
        ``(input, target)`` pairs; the last batch may be shorter.

    >>> [len(target) for _, target in array_batches(torch.zeros(5, 2), torch.zeros(5), 2)]
    [2, 2, 1]
    """
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def dict_batches(arrays: Mapping[str, Tensor], size: int) -> list[dict[str, Tensor]]:
    """Split named arrays of equal length into consecutive batches, as models of Hugging Face read them.

    Args:
        arrays: arrays of all examples by name, each ``(n, ...)``.
        size: number of examples in a batch.

    Returns:
        Dicts of the same names; the last batch may be shorter.

    >>> [batch["labels"].tolist() for batch in dict_batches({"labels": torch.arange(3)}, 2)]
    [[0, 1], [2]]
    """
    parts = zip(*(array.split(size) for array in arrays.values()), strict=True)
    return [dict(zip(arrays, part, strict=True)) for part in parts]
