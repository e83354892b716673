"""Symmetric matrices that are known by their products with vectors."""

from abc import ABC, abstractmethod

from torch import Tensor

__all__ = ["Block", "Operator"]


class Operator(ABC):
    """A symmetric matrix known by its products with vectors."""

    positive: bool = False  # no negative eigenvalue, by construction

    @property
    @abstractmethod
    def size(self) -> int:
        """Rows of the matrix."""

    @property
    @abstractmethod
    def num_products(self) -> int:
        """Products taken so far."""

    @abstractmethod
    def __matmul__(self, vector: Tensor) -> Tensor: ...


class Block(Operator):
    """A principal sub-block: the rows and columns where ``chosen`` is True, in vectors of the block's own length.

    Args:
        operator: the whole matrix.
        chosen: boolean, ``(operator.size,)``.
    """

    def __init__(self, operator: Operator, chosen: Tensor) -> None:
        self._operator, self._chosen = operator, chosen.nonzero().flatten()
        self.positive = operator.positive

    @property
    def size(self) -> int:
        return self._chosen.numel()

    @property
    def num_products(self) -> int:
        return self._operator.num_products

    def __matmul__(self, vector: Tensor) -> Tensor:
        whole = vector.new_zeros(self._operator.size)
        whole[self._chosen] = vector
        return (self._operator @ whole)[self._chosen]
