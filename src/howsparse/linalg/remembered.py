"""Products that outlive the process: work that was stopped takes up again where it was."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from howsparse.files import save_tensors
from howsparse.linalg.operators import Operator
from howsparse.parallel import is_first, sum_

__all__ = ["Remembered", "fingerprint"]


class Remembered(Operator):
    """The same matrix A; each product Av is left in a folder once it is taken, and found there by the next process.

    What is computed from products then goes on from the last of them, to the same bits.

    Args:
        operator: the matrix.
        folder: made if need be.
        origin: tells this matrix from others whose products may lie in the folder.

    >>> from tempfile import TemporaryDirectory
    >>> from howsparse.risk import EmpiricalRisk, Hessian
    >>> risk = EmpiricalRisk(torch.nn.Linear(4, 3), [(torch.eye(4), torch.zeros(4, dtype=torch.long))])
    >>> with TemporaryDirectory() as folder:
    ...     first, second = (Remembered(Hessian(risk), Path(folder), "doctest") for _ in range(2))
    ...     torch.equal(first @ torch.ones(12), second @ torch.ones(12))
    True
    """

    def __init__(self, operator: Operator, folder: Path, origin: str) -> None:
        self._operator, self._folder, self._origin = operator, folder, origin
        self.positive = operator.positive
        self._files: set[Path] = set()
        self._products = 0

    @property
    def shape(self) -> tuple[int, int]:
        return self._operator.shape

    @property
    def dtype(self) -> torch.dtype:
        return self._operator.dtype

    @property
    def device(self) -> torch.device:
        return self._operator.device

    @property
    def num_products(self) -> int:
        """Those found and those taken."""
        return self._products

    def _matvec(self, vector: Tensor) -> Tensor:
        self._products += 1
        name = fingerprint(self._origin, vector) if is_first() else ""
        file = self._folder / f"{name}.safetensors"
        self._files.add(file)
        found = _read(file) if is_first() else None
        # Of several processes the first decides for all, and hands on what it has found.
        if sum_(vector.new_full((1,), float(found is not None))).item():
            return sum_(torch.zeros_like(vector) if found is None else found.to(vector))
        product = self._operator @ vector
        save_tensors({"product": product}, file)
        return product

    def forget(self) -> None:
        """Remove the products asked for so far, and the folder if nothing else is in it."""
        if is_first() and self._folder.exists():
            for file in self._files:
                file.unlink(missing_ok=True)
            if not any(self._folder.iterdir()):
                self._folder.rmdir()


def fingerprint(origin: str, vector: Tensor) -> str:
    """A name that no other origin or vector has."""
    return hashlib.sha256(origin.encode() + vector.cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[
        :32
    ]


def _read(file: Path) -> Tensor | None:
    try:
        return load_file(file)["product"]
    except (OSError, SafetensorError, KeyError):
        return None
