"""Symmetric matrices that are defined by their products with vectors."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from howsparse.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

__all__ = ["Block", "Derived", "Operator"]


class Operator(ABC):
    r"""A real symmetric matrix :math:`A = A'`, ``(n, n)``, defined by its products with vectors.

    Use it like a dense matrix: ``operator @ v`` for a vector ``(n,)`` or a matrix ``(n, k)``. It multiplies the columns
    of a matrix one by one. A subclass implements ``_matvec``, the product with one vector, and the properties below.

    Attributes:
        positive: True if the matrix cannot have a negative eigenvalue; a subclass sets it.

    >>> class Diagonal(Operator):
    ...     shape, dtype, device, num_products = (2, 2), torch.float32, torch.device("cpu"), 0
    ...     def _matvec(self, vector): return torch.tensor([1.0, 2.0]) * vector
    >>> torch.equal(Diagonal() @ torch.eye(2), torch.diag(torch.tensor([1.0, 2.0])))
    True
    """

    positive: bool = False

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns, ``(n, n)``."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Dtype of the products."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device on which the products are computed."""

    @property
    @abstractmethod
    def num_products(self) -> int:
        """Number of products so far; a product with a matrix of k columns counts as k."""

    @abstractmethod
    def _matvec(self, vector: Tensor) -> Tensor:
        """The product with a vector; both have shape ``(n,)``."""

    @property
    def T(self) -> "Operator":
        """The transpose, which is the matrix itself."""
        return self

    def __matmul__(self, other: Tensor) -> Tensor:
        if other.ndim not in (1, 2) or len(other) != self.shape[1]:
            raise InputError(
                f"a matrix of shape {self.shape} cannot multiply a tensor of shape {tuple(other.shape)};"
                f" pass a vector or a matrix with {self.shape[1]} rows"
            )
        if other.ndim == 1:
            return self._matvec(other)
        product = torch.empty_like(other)
        for column in range(other.shape[1]):
            product[:, column] = self._matvec(other[:, column].contiguous())
        return product

    def to_scipy(self) -> "LinearOperator[Any]":
        """The same matrix for SciPy's solvers. It takes and returns NumPy arrays, and computes on this device.

        Returns:
            A `scipy.sparse.linalg.LinearOperator` of the same shape and dtype; float32 replaces bfloat16.

        >>> from scipy.sparse.linalg import eigsh
        >>> from howsparse.risk import EmpiricalRisk, Hessian
        >>> risk = EmpiricalRisk(torch.nn.Linear(4, 3), [(torch.eye(4), torch.zeros(4, dtype=torch.long))])
        >>> eigsh(Hessian(risk).to_scipy(), k=2, return_eigenvectors=False).shape
        (2,)
        """
        from scipy.sparse.linalg import LinearOperator

        numpy_like = torch.empty(0, dtype=torch.float32 if self.dtype == torch.bfloat16 else self.dtype)

        def product(of: NDArray[Any]) -> NDArray[Any]:
            on_device = torch.from_numpy(np.array(of)).to(self.device, self.dtype)
            return (self @ on_device).to(numpy_like).numpy()

        def with_vector(of: NDArray[Any]) -> NDArray[Any]:
            return product(of.reshape(-1))

        dtype = numpy_like.numpy().dtype
        return LinearOperator(
            self.shape, matvec=with_vector, rmatvec=with_vector, matmat=product, rmatmat=product, dtype=dtype
        )


class Derived(Operator):
    """A matrix that is computed from another one, with the same shape, dtype and device.

    Args:
        operator: the other matrix, ``(n, n)``.
    """

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self.positive = operator.positive

    @property
    def shape(self) -> tuple[int, int]:
        return self._operator.shape

    @property
    def dtype(self) -> torch.dtype:
        return self._operator.dtype

    @property
    def device(self) -> torch.device:
        return self._operator.device


class Block(Derived):
    r"""The principal submatrix :math:`A_{SS} = E'AE` of the rows and columns for which ``chosen`` is True.

    Its vectors have as many entries as the block has rows. E puts them into a vector of zeros of length n.

    Args:
        operator: the whole matrix, ``(n, n)``.
        chosen: boolean, ``(n,)``.

    >>> from howsparse.risk import EmpiricalRisk, Hessian
    >>> whole = Hessian(EmpiricalRisk(torch.nn.Linear(2, 2), [(torch.eye(2), torch.tensor([0, 1]))]))
    >>> block = Block(whole, torch.tensor([True, False, False, True]))
    >>> torch.equal(block @ torch.eye(2), (whole @ torch.eye(4))[[0, 3]][:, [0, 3]])
    True
    """

    def __init__(self, operator: Operator, chosen: Tensor) -> None:
        super().__init__(operator)
        self._chosen = chosen.nonzero().flatten()

    @property
    def shape(self) -> tuple[int, int]:
        return self._chosen.numel(), self._chosen.numel()

    @property
    def num_products(self) -> int:
        """Number of products of the whole matrix."""
        return self._operator.num_products

    def _matvec(self, vector: Tensor) -> Tensor:
        whole = vector.new_zeros(self._operator.shape[0])
        whole[self._chosen] = vector
        return (self._operator @ whole)[self._chosen]
