"""Ways to multiply by a weight matrix on a CPU, sparse and dense. None of them is always the fastest."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["BY_COLUMNS", "DENSE", "KERNELS", "Csr", "Product", "columns_of", "csr_of", "dense_of", "is_valid", "usable"]

Product = Callable[[Tensor], Tensor]
_SUM = 0  # torch.embedding_bag's number for sums


@dataclass(frozen=True)
class Csr:
    """The nonzero entries of a weight matrix, and a bias.

    Attributes:
        rows: where each row begins in ``columns`` and ``values``, and their length: int32.
        columns: column of each entry: int32.
        values: the entries.
        shape: number of rows (outputs) and columns (inputs).
        bias: a number for each row; None for no bias.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor
    shape: tuple[int, int]
    bias: Tensor | None = None

    @property
    def sparsity(self) -> float:
        """Fraction of the entries that are zero."""
        return 1 - len(self.values) / (self.shape[0] * self.shape[1])


def csr_of(weight: Tensor, bias: Tensor | None = None) -> Csr:
    """The nonzero entries of a matrix.

    >>> csr_of(torch.tensor([[0.0, 2.0], [0.0, 0.0]])).rows.tolist()
    [0, 1, 1]
    """
    weight = weight.detach()
    kept = weight != 0
    rows = torch.zeros(len(weight) + 1, dtype=torch.int32, device=weight.device)
    rows[1:] = kept.sum(1).cumsum(0)
    columns = kept.nonzero()[:, 1].to(torch.int32)
    return Csr(rows, columns, weight[kept], (weight.shape[0], weight.shape[1]), None if bias is None else bias.detach())


def dense_of(matrix: Csr) -> Tensor:
    """The matrix with its zeros.

    >>> dense_of(csr_of(torch.eye(2))).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    dense = matrix.values.new_zeros(matrix.shape)
    places = torch.arange(matrix.shape[0], device=dense.device).repeat_interleave(matrix.rows.diff().long())
    dense[places, matrix.columns.long()] = matrix.values
    return dense


def is_valid(matrix: Csr) -> bool:
    """Whether the indices describe a matrix of its shape. Kernels do not check that, and would read other memory."""
    rows, columns = matrix.rows, matrix.columns
    if len(columns) != len(matrix.values) or len(rows) != matrix.shape[0] + 1:
        return False
    ordered = int(rows[0]) == 0 and int(rows[-1]) == len(columns) and bool((rows.diff() >= 0).all())
    return ordered and bool(((columns >= 0) & (columns < matrix.shape[1])).all())


def columns_of(x: Tensor) -> Tensor:
    """The transpose of a matrix, contiguous. The output of a sparse kernel is a view of one, so nothing is copied then.

    ``x.t().contiguous()`` is 2 to 5 times slower than torch's shuffling of channels, which is the same permutation.
    """
    turned = x.t()
    if turned.is_contiguous():
        return turned
    if torch.compiler.is_compiling() or not x.is_contiguous() or x.device.type != "cpu" or x.requires_grad:
        return turned.contiguous()
    size = x.numel()
    channels = x.as_strided((1, size, 1, 1), (size, 1, size, size))
    return torch.native_channel_shuffle(channels, x.shape[0]).as_strided(turned.shape, (x.shape[0], 1))


def fbgemm(matrix: Csr) -> Product:
    """Weighted sums of rows of the transposed input, by torch's function for embeddings: parallel and vectorised.

    It also runs under `torch.compile`, on a GPU, and with gradients for the input.
    """
    rows, columns, values = matrix.rows, matrix.columns, matrix.values
    bias = None if matrix.bias is None else matrix.bias[:, None]

    def product(x: Tensor) -> Tensor:
        y = torch.embedding_bag(x, columns, rows, False, _SUM, False, values, True)[0]
        return y if bias is None else y + bias if y.requires_grad else y.add_(bias)

    return product


def mkl(matrix: Csr) -> Product:
    """torch's own CSR tensors. On x86 processors MKL multiplies them."""
    with _quiet():
        sparse = torch.sparse_csr_tensor(
            matrix.rows, matrix.columns, matrix.values, matrix.shape, check_invariants=False
        )
    vector = torch.zeros(matrix.shape[0], dtype=matrix.values.dtype) if matrix.bias is None else matrix.bias
    column = vector[:, None]

    def product(x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            return torch.addmv(vector, sparse, x[:, 0])[:, None]
        return torch.addmm(column, sparse, x)

    return product


def scipy(matrix: Csr) -> Product:
    """SciPy's CSR matrices, which run on one thread and start quickly."""
    from scipy.sparse import csr_array

    parts = (matrix.values.numpy(), matrix.columns.numpy(), matrix.rows.numpy())
    sparse = csr_array(parts, shape=matrix.shape)
    bias = None if matrix.bias is None else matrix.bias[:, None]

    def product(x: Tensor) -> Tensor:
        y = torch.from_numpy(sparse @ x.numpy())
        return y if bias is None else y.add_(bias)

    return product


def by_rows(make: Callable[[Csr], Product]) -> Callable[[Csr], Product]:
    """Convert a kernel for inputs with an example in each column into one for an example in each row."""

    def made(matrix: Csr) -> Product:
        product = make(matrix)
        return lambda x: product(columns_of(x)).t()

    return made


def dense(matrix: Csr) -> Product:
    """torch's dense product, by MKL on x86 processors."""
    weight, bias = dense_of(matrix), matrix.bias
    return lambda x: nn.functional.linear(x, weight, bias)


def onednn(matrix: Csr) -> Product:
    """oneDNN's dense product with weights in its own layout, as `torch.compile` uses it for frozen weights."""
    weight, bias = dense_of(matrix), matrix.bias
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    linear = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: linear(x.contiguous(), packed, bias, "none", [], "")


BY_COLUMNS: dict[str, Callable[[Csr], Product]] = {"fbgemm": fbgemm, "mkl": mkl, "scipy": scipy}
KERNELS: dict[str, Callable[[Csr], Product]] = {  # dense ones first: beside them, others are seen to be hopeless
    "dense": dense,
    "onednn": onednn,
    **{name: by_rows(make) for name, make in BY_COLUMNS.items()},
}
DENSE = ("dense", "onednn")


def usable(matrix: Csr) -> dict[str, Product]:
    """The kernels that this build of torch has for a matrix, ready to multiply.

    Args:
        matrix: weights on a CPU. Elsewhere only "fbgemm", which is torch's embedding there, and "dense" are tried.
    """
    found: dict[str, Product] = {}
    x = matrix.values.new_ones(2, matrix.shape[1])
    expected = dense(matrix)(x).double()
    for name, make in KERNELS.items():
        if matrix.values.device.type != "cpu" and name not in ("fbgemm", "dense"):
            continue
        try:
            product = make(matrix)
            wrong = (product(x).double() - expected).abs().max() if expected.numel() else 0
        except (RuntimeError, AttributeError, TypeError, NotImplementedError):
            continue  # this library or this type is not in this build
        if wrong <= 1e-3 * expected.abs().max():  # a processor may round factors to 16 bits
            found[name] = product
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warning that its CSR tensors are new."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        yield
