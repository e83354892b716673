"""Layers that hold only their nonzero weights, and multiply by the kernel that is fastest on this machine."""

from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.deploy.kernels import BY_COLUMNS, DENSE, KERNELS, Csr, Product, dense_of, is_valid, usable
from howsparse.deploy.timing import seconds_of

__all__ = ["MARGIN", "SparseLinear", "fastest"]

_BUDGET = 0.02  # seconds that a kernel is timed
_HOPELESS = 4.0  # a kernel that takes so many times as long as another one is timed once
MARGIN = 0.95  # a sparse kernel must beat a dense one by more than the noise of the clock


class SparseLinear(nn.Module):
    """A linear layer that holds its nonzero weights as CSR: ``y = W x + b``.

    `howsparse.sparsify` makes such layers and times the kernels. In a layer that was not timed, torch's embedding sums
    are used for more than one row, and torch's CSR product for one row. The output may be a transposed view, so that
    the next sparse layer need not copy it.

    It is for inference: the weights are buffers and have no gradients. Gradients for the input are computed. Under
    `torch.compile` it always takes embedding sums. Copies, pickles and state dicts hold the nonzero weights only.

    Args:
        matrix: the weights and the bias.

    Attributes:
        rows, columns, values, bias: buffers; see `howsparse.deploy.kernels.Csr`.
        dense: the weights with their zeros, if a dense kernel is used for some input. It is in no state dict.
        kernels: the fastest kernel for each number of rows (of images, for a convolution) that was timed.
        seconds: for each number of rows that was timed, the time of each kernel.
        by_rows: whether outputs are made contiguous, for networks that view them in another shape.
        tuning: whether an input with a new number of rows is timed with every kernel.

    >>> from howsparse.deploy.kernels import csr_of
    >>> layer = SparseLinear(csr_of(torch.eye(3), torch.ones(3)))
    >>> layer(torch.zeros(2, 3)).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    rows: Tensor
    columns: Tensor
    values: Tensor
    bias: Tensor | None
    dense: Tensor | None

    def __init__(self, matrix: Csr) -> None:
        super().__init__()
        self.out_features, self.in_features = matrix.shape
        self.register_buffer("rows", matrix.rows)
        self.register_buffer("columns", matrix.columns)
        self.register_buffer("values", matrix.values)
        self.register_buffer("bias", matrix.bias)
        self.register_buffer("dense", None, persistent=False)
        self.kernels: dict[int, str] = {}
        self.seconds: dict[int, dict[str, float]] = {}
        self.by_rows = self.tuning = False
        self._ready: dict[int | str, Product] = {}

    @property
    def matrix(self) -> Csr:
        """The weights and the bias."""
        return Csr(self.rows, self.columns, self.values, (self.out_features, self.in_features), self.bias)

    @property
    def weight(self) -> Tensor:
        """The weights with their zeros, as a new tensor."""
        return dense_of(self.matrix)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for an input of shape ``(..., in_features)``.

        Args:
            x: the input, ``(..., in_features)``.

        Returns:
            The output, ``(..., out_features)``.
        """
        if torch.compiler.is_compiling() or x.requires_grad:
            return self._product("fbgemm")(x)
        length = self._length(x)
        ready = self._ready.get(length)
        if ready is None:
            if self.tuning:
                self.seconds[length] = self.time(x, self.usable())
                self.kernels[length] = fastest(self.seconds[length])
            ready = self._ready[length] = self._product(self.kernel(length))
        return ready(x)

    def kernel(self, length: int) -> str:
        """The kernel for a number of input vectors: that of the nearest number that was timed.

        Args:
            length: number of input vectors.

        Returns:
            The name of the kernel.
        """
        if not self.kernels:
            return "mkl" if length == 1 and self.values.device.type == "cpu" else "fbgemm"
        length = max(1, length)  # of an empty batch too
        return self.kernels[min(self.kernels, key=lambda timed: max(timed / length, length / timed))]

    def finish(self) -> None:
        """Stop timing, and free the memory of the kernels that are not used."""
        self.tuning, self._ready = False, {}
        self.dense = dense_of(self.matrix) if set(self.kernels.values()) & set(DENSE) else None

    def by_columns(self, x: Tensor) -> Product | None:
        """The layer for inputs like ``x``, but with examples in columns.

        Args:
            x: an input of shape ``(n, in_features)``.

        Returns:
            A product from ``(in_features, n)`` to ``(out_features, n)``; None if the kernel takes no columns.
        """
        name = self.kernel(len(x))
        if x.ndim != 2 or self.by_rows or self.tuning or name not in BY_COLUMNS:
            return None
        return BY_COLUMNS[name](self.matrix)

    def _length(self, x: Tensor) -> int:
        return len(x) if x.ndim == 2 else x.numel() // self.in_features

    def usable(self) -> list[str]:
        """Names of the kernels that this build of torch has for the layer.

        Returns:
            The names.
        """
        return list(usable(self.matrix))

    def time(self, x: Tensor, names: Iterable[str]) -> dict[str, float]:
        """Seconds of a call with each kernel. A kernel that is far slower than another is called only once.

        Args:
            x: an input.
            names: of kernels.

        Returns:
            Seconds by the name of the kernel.
        """
        found: dict[str, float] = {}
        for name in names:
            product = self._product(name)
            product(x)
            began = perf_counter()
            product(x)
            once = perf_counter() - began
            if found and once > _HOPELESS * min(found.values()):
                found[name] = once
                continue
            times = sorted(seconds_of(lambda product=product: product(x), budget=_BUDGET))  # type: ignore[misc]
            found[name] = times[len(times) // 4]
        return found

    def _product(self, name: str) -> Product:
        """The layer with one kernel."""
        if name not in self._ready:
            if name in DENSE and self.dense is None:
                self.dense = dense_of(self.matrix)
            made = self._make(name)
            if torch.compiler.is_compiling():
                return made
            self._ready[name] = made
        return self._ready[name]

    def _make(self, name: str) -> Product:
        multiply, width, by_rows = KERNELS[name](self.matrix), self.out_features, self.by_rows

        def product(x: Tensor) -> Tensor:
            if x.ndim == 2:
                return multiply(x).contiguous() if by_rows else multiply(x)
            y = multiply(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], width)
            return y.contiguous() if by_rows else y

        return product

    def _apply(self, *args: Any, **kwargs: Any) -> "SparseLinear":
        self._ready = {}  # these hold the tensors of before
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name in ("columns", "values"):  # another mask keeps another number of weights
            new = state.get(f"{prefix}{name}")
            if isinstance(new, Tensor):
                setattr(self, name, getattr(self, name).new_zeros(new.shape))
        self._ready, self.dense = {}, None
        super()._load_from_state_dict(state, prefix, *args)
        if not is_valid(self.matrix):
            args[-1].append(f"{prefix or 'the layer'}: rows and columns do not describe {self.out_features} rows")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_ready": {}}

    def extra_repr(self) -> str:
        """The sizes, the sparsity, and the kernels.

        Returns:
            One line for ``print(model)``.
        """
        used = ", ".join(f"{length}: {name}" for length, name in sorted(self.kernels.items()))
        return f"{self.in_features}, {self.out_features}, sparsity={self.matrix.sparsity:.3f}, kernels={{{used}}}"


def fastest(seconds: Mapping[str, float]) -> str:
    """The name of the fastest kernel; of a sparse one only if it is clearly faster than every dense one.

    >>> fastest({"mkl": 0.99, "dense": 1.0}), fastest({"mkl": 0.5, "dense": 1.0})
    ('dense', 'mkl')
    """
    return min(seconds, key=lambda name: seconds[name] * (MARGIN if name in DENSE else 1))
