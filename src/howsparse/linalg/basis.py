"""Stored Lanczos vectors, and inner products of long vectors with sums in float64."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Basis", "dot", "norm"]

_CHUNK_ROWS, _CHUNK_BYTES = 32, 1 << 28  # largest size of one allocated chunk of the basis, in rows and in bytes
_CPU_COLUMNS = 1 << 14  # long float32 sums lose digits on a CPU, so float64 adds up the sums of pieces of this length
_PIECE_NUMBERS = 1 << 24  # numbers of a half-precision chunk that a GPU converts in one piece
# Numbers that `dot` converts in one piece. On a CPU the piece must stay in the cache: a larger one is new memory from
# the system each time, and that took thirty times as long as the sum.
_CPU_DOT, _GPU_DOT = 1 << 15, 1 << 24


class Basis:
    """Nearly orthonormal vectors, stored as rows of matrices, so that one matrix product projects on many of them.

    Args:
        like: a vector ``(n,)`` with the device and dtype of those to come.
        storage: dtype in which they are stored.

    Attributes:
        reads: number of times that a stored vector was read for a projection.

    >>> basis = Basis(torch.zeros(3), torch.float32)
    >>> basis.append(torch.tensor([1.0, 0.0, 0.0]))
    >>> vector = torch.tensor([2.0, 5.0, 0.0])
    >>> basis.remove_from([vector], 1), vector
    (array([[2.]]), tensor([0., 5., 0.]))
    """

    def __init__(self, like: Tensor, storage: torch.dtype) -> None:
        self._like, self._storage = like, storage
        self._chunk_rows = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // (like.numel() * storage.itemsize)))
        self._chunks: list[Tensor] = []
        self._length = 0
        self.reads = 0
        self._width = self._piece_width()
        self._converted = like.new_empty(0 if storage == like.dtype else self._chunk_rows * self._width)

    def __len__(self) -> int:
        return self._length

    def append(self, vector: Tensor) -> None:
        """Store a vector ``(n,)`` as the last one."""
        if self._length % self._chunk_rows == 0:
            self._chunks.append(self._like.new_empty((self._chunk_rows, self._like.numel()), dtype=self._storage))
        self._length += 1
        self.replace_last(vector)

    def replace_last(self, vector: Tensor) -> None:
        """Store a vector ``(n,)`` in the place of the last one."""
        self._chunks[-1][(self._length - 1) % self._chunk_rows] = vector

    def rows(self) -> Tensor:
        """All vectors, ``(len, n)``."""
        return torch.cat(self._chunks)[: self._length]

    def remove_from(self, vectors: Sequence[Tensor], count: int) -> NDArray[np.float64]:
        """Subtract from vectors, in place, their components along the first ``count`` stored ones.

        It is classical Gram-Schmidt in each chunk. The stored vectors are read twice, however many vectors there are.

        Args:
            vectors: each ``(n,)``.
            count: number of stored vectors.

        Returns:
            What was subtracted from each vector along each stored one, ``(vectors, count)``.
        """
        self.reads += 2 * count
        found = torch.zeros((len(vectors), count), dtype=torch.float64, device=self._like.device)
        for first in range(0, count, self._chunk_rows):
            rows = self._chunks[first // self._chunk_rows][: count - first]
            along = list(found[:, first : first + len(rows)])
            for part, of_vectors in self._pieces(rows, vectors):
                for amounts, piece in zip(along, of_vectors, strict=True):
                    amounts.add_(part @ piece)
            rounded = [amounts.to(self._like.dtype) for amounts in along]
            for part, of_vectors in self._pieces(rows, vectors):
                for amounts, piece in zip(rounded, of_vectors, strict=True):
                    piece.addmv_(part.T, amounts, alpha=-1)
        return found.cpu().numpy()

    def _piece_width(self) -> int:
        if self._like.device.type == "cpu":
            return min(_CPU_COLUMNS, self._like.numel())
        whole = self._storage == self._like.dtype
        return self._like.numel() if whole else max(1, _PIECE_NUMBERS // self._chunk_rows)

    def _pieces(self, rows: Tensor, vectors: Sequence[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Matching column pieces of rows and vectors, in the vectors' dtype."""
        for part, *of_vectors in zip(rows.split(self._width, 1), *(v.split(self._width) for v in vectors), strict=True):
            if self._storage != self._like.dtype:
                part = self._converted[: part.numel()].view(part.shape).copy_(part)
            yield part, of_vectors


def dot(a: Tensor, b: Tensor) -> float:
    """Inner product of two vectors ``(n,)``; products and sums are in float64.

    >>> dot(torch.full((3,), 2.0), torch.ones(3))
    6.0
    """
    if a.device.type == "cpu":
        pieces = zip(a.split(_CPU_DOT), b.split(_CPU_DOT), strict=True)
        return math.fsum(float(torch.dot(x.double(), y.double())) for x, y in pieces)
    pieces = zip(a.split(_GPU_DOT), b.split(_GPU_DOT), strict=True)
    return float(sum(torch.dot(x.double(), y.double()) for x, y in pieces))


def norm(a: Tensor) -> float:
    """Euclidean norm of a vector ``(n,)``, from a sum in float64.

    >>> norm(torch.tensor([3.0, 4.0]))
    5.0
    """
    return math.sqrt(dot(a, a))
