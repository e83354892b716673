"""An operator that stores its products on disk, so that a stopped computation can continue."""

from torch import Tensor

from howsparse.linalg.operators import Derived, Operator
from howsparse.store import Kind, Store

__all__ = ["Remembered"]


class Remembered(Derived):
    """The same matrix, with each of its products stored.

    If a computation is stopped, a new process reads the stored products instead of computing them. The result has the
    same bits as without the interruption.

    Args:
        operator: the matrix.
        store: store for the products of one limit.
        name: identifies this matrix in the store.

    >>> import torch
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from howsparse.risk import EmpiricalRisk, Hessian
    >>> risk = EmpiricalRisk(torch.nn.Linear(4, 3), [(torch.eye(4), torch.zeros(4, dtype=torch.long))])
    >>> with TemporaryDirectory() as folder:
    ...     first, second = (Remembered(Hessian(risk), Store(Path(folder)), "doctest") for _ in range(2))
    ...     torch.equal(first @ torch.ones(12), second @ torch.ones(12))
    True
    """

    def __init__(self, operator: Operator, store: Store, name: str) -> None:
        super().__init__(operator)
        self._store, self._name = store, name
        self._products = 0

    @property
    def num_products(self) -> int:
        """Number of products so far, both those read from the store and those computed."""
        return self._products

    def _matvec(self, vector: Tensor) -> Tensor:
        self._products += 1
        inputs = {"matrix": self._name, "vector": vector}
        return self._store.get(_PRODUCT, inputs, {}, lambda _: self._operator @ vector).to(vector)


_PRODUCT = Kind[Tensor](
    "product", 1, lambda product: ({}, {"product": product}), lambda fields, tensors: tensors["product"]
)
