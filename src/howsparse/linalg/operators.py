"""Symmetric matrices that are known by their products with vectors."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from howsparse.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

__all__ = ["Block", "Operator"]


class Operator(ABC):
    r"""A real symmetric matrix :math:`A = A'`, ``(n, n)``, known by its products with vectors.

    It is used like a dense matrix: ``operator @ v`` for a vector ``(n,)`` or for a matrix ``(n, k)``, whose columns are
    multiplied one by one. A subclass implements ``_matvec``, the product with one vector, and the properties below.

    >>> class Diagonal(Operator):
    ...     shape, dtype, device, num_products = (2, 2), torch.float32, torch.device("cpu"), 0
    ...     def _matvec(self, vector): return torch.tensor([1.0, 2.0]) * vector
    >>> torch.equal(Diagonal() @ torch.eye(2), torch.diag(torch.tensor([1.0, 2.0])))
    True
    """

    positive: bool = False  # no negative eigenvalue, by construction

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns, ``(n, n)``."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Of the products."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the products are computed."""

    @property
    @abstractmethod
    def num_products(self) -> int:
        """Products with single vectors taken so far; one with a matrix of k columns counts k."""

    @abstractmethod
    def _matvec(self, vector: Tensor) -> Tensor:
        """The product with a vector, both ``(n,)``."""

    @property
    def T(self) -> "Operator":
        """The transpose, which is the matrix itself."""
        return self

    def __matmul__(self, other: Tensor) -> Tensor:
        if other.ndim not in (1, 2) or len(other) != self.shape[1]:
            raise InputError(f"a matrix of shape {self.shape} cannot multiply a tensor of shape {tuple(other.shape)}")
        if other.ndim == 1:
            return self._matvec(other)
        product = torch.empty_like(other)
        for column in range(other.shape[1]):
            product[:, column] = self._matvec(other[:, column].contiguous())
        return product

    def to_scipy(self) -> "LinearOperator[Any]":
        """The same matrix for SciPy's solvers: it takes and gives NumPy arrays, and computes where this one does.

        Returns:
            A `scipy.sparse.linalg.LinearOperator` of the same shape and dtype; of float32 where NumPy lacks the dtype.

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


class Block(Operator):
    r"""A principal sub-block :math:`A_{SS} = E'AE`, with the rows and columns where ``chosen`` is True.

    Its vectors have the block's own length. E sets them into a vector of zeros.

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
        self._operator, self._chosen = operator, chosen.nonzero().flatten()
        self.positive = operator.positive

    @property
    def shape(self) -> tuple[int, int]:
        return self._chosen.numel(), self._chosen.numel()

    @property
    def dtype(self) -> torch.dtype:
        return self._operator.dtype

    @property
    def device(self) -> torch.device:
        return self._operator.device

    @property
    def num_products(self) -> int:
        """Those of the whole matrix."""
        return self._operator.num_products

    def _matvec(self, vector: Tensor) -> Tensor:
        whole = vector.new_zeros(self._operator.shape[0])
        whole[self._chosen] = vector
        return (self._operator @ whole)[self._chosen]
