"""Sparse layers and kernels, against dense products."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import howsparse
from howsparse.deploy import SparseConv2d, SparseLinear, bytes_of, sparsify
from howsparse.deploy.chain import SparseSequential, fuse_sequences
from howsparse.deploy.kernels import DENSE, KERNELS, columns_of, csr_of, dense_of, is_valid, usable
from howsparse.deploy.semi_structured import is_two_of_four, semi_structured
from howsparse.errors import InputError


def zeroed(layer: nn.Module, share: float = 0.9, seed: int = 0) -> nn.Module:
    howsparse.random_mask(layer, share, seed=seed).apply_(layer)
    return layer


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    batch=st.integers(1, 70),
    density=st.floats(0, 1),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_every_kernel_gives_the_dense_product(
    shape: tuple[int, int], batch: int, density: float, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(shape) * (torch.rand(shape) < density)
    matrix = csr_of(weight, torch.randn(shape[0]) if bias else None)
    assert torch.equal(dense_of(matrix), weight)
    assert is_valid(matrix)
    x = torch.randn(batch, shape[1])
    exact = nn.functional.linear(x.double(), weight.double(), matrix.bias.double() if matrix.bias is not None else None)
    found = usable(matrix)
    assert {"dense", "fbgemm", "scipy"} <= set(found)
    for name, product in found.items():
        for given_x in (x, columns_of(x).t()):  # rows, and a view of columns
            assert torch.allclose(product(given_x).double(), exact, atol=1e-4), name


def test_the_transpose_is_a_copy_once() -> None:
    x = torch.randn(5, 7)
    columns = columns_of(x)
    assert torch.equal(columns, x.t())
    assert columns.is_contiguous()
    assert columns_of(columns.t()).data_ptr() == columns.data_ptr()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 5, 3, padding=1),
        nn.Conv2d(3, 5, 3, stride=2, padding="valid", bias=False),
        nn.Conv2d(3, 5, (3, 1), dilation=2, padding="same"),
        nn.Conv2d(4, 6, 1),
        nn.Conv2d(4, 6, 1, stride=2),
    ],
)
@pytest.mark.parametrize("kernel", ["dense", "fbgemm", "mkl", "scipy"])
def test_a_sparse_convolution_is_the_convolution(layer: nn.Conv2d, kernel: str) -> None:
    zeroed(layer, 0.5)
    sparse = SparseConv2d(layer)
    sparse.kernels = {1: kernel}
    x = torch.randn(3, layer.in_channels, 8, 6)
    with torch.no_grad():
        assert torch.allclose(sparse(x), layer(x), atol=1e-5)


def test_copies_pickles_and_state_dicts_hold_the_nonzero_weights() -> None:
    torch.manual_seed(0)
    layer = zeroed(nn.Linear(60, 40))
    assert isinstance(layer, nn.Linear)
    sparse = SparseLinear(csr_of(layer.weight, layer.bias))
    x = torch.randn(4, 60)
    expected = sparse(x)
    assert sum(tensor.nbytes for tensor in sparse.state_dict().values()) == 4 * (41 + 240 + 240 + 40)
    for other in (copy.deepcopy(sparse), pickle.loads(pickle.dumps(sparse))):
        assert torch.equal(other(x), expected)
    another = zeroed(nn.Linear(60, 40), 0.5, seed=1)
    assert isinstance(another, nn.Linear)
    loaded = SparseLinear(csr_of(another.weight, another.bias))
    loaded(x)  # what it remembers of its weights must not stay
    loaded.load_state_dict(sparse.state_dict())
    assert torch.equal(loaded(x), expected)
    assert torch.allclose(sparse.double()(x.double()).float(), expected, atol=1e-5)


def test_indices_that_point_elsewhere_are_refused() -> None:
    sparse = SparseLinear(csr_of(torch.eye(3)))
    state = sparse.state_dict() | {"columns": torch.tensor([0, 1, 7], dtype=torch.int32)}
    with pytest.raises(RuntimeError, match="rows and columns do not describe"):
        sparse.load_state_dict(state)


def test_gradients_of_the_input_and_compilation() -> None:
    torch.manual_seed(0)
    layer = zeroed(nn.Linear(6, 5), 0.5)
    assert isinstance(layer, nn.Linear)
    sparse = SparseLinear(csr_of(layer.weight, layer.bias))
    x = torch.randn(3, 6, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    (found,) = torch.autograd.grad(sparse(x).square().sum(), x)
    assert torch.allclose(found, expected, atol=1e-5)
    compiled = torch.compile(sparse, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.allclose(compiled(x.detach()), layer(x), atol=1e-5)


class Views(nn.Module):
    """Needs contiguous outputs, as networks that use ``view`` do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(300, 200)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out.view(-1)


def test_sparsify_takes_the_fastest_kernel_of_each_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(600, 500), nn.ReLU(), nn.Linear(500, 8), nn.ReLU(), nn.Linear(8, 4))
    howsparse.layerwise_mask(model, 0.98).apply_(model)
    howsparse.prunable_weights(model)["4.weight"].data.normal_()
    x = torch.randn(2, 600)
    found = sparsify(model, x, batches=[1, 16])
    assert isinstance(found, nn.Sequential)
    first = found[0]
    assert isinstance(first, SparseLinear), "98 % of 300,000 weights: sparse wins on every machine"
    assert set(first.seconds) == set(first.kernels) == {1, 16}
    for length, kernel in first.kernels.items():
        assert kernel not in DENSE
        assert first.seconds[length][kernel] == min(first.seconds[length].values())
    assert type(found[4]) is nn.Linear, "no zeros"
    for batch in (1, 3, 16, 40):
        x = torch.randn(batch, 600)
        with torch.inference_mode():
            assert torch.allclose(found(x), model(x), atol=1e-4)
    assert bytes_of(found) < 0.2 * bytes_of(model)
    assert type(model[0]) is nn.Linear


def test_sparsify_makes_contiguous_outputs_where_they_are_needed() -> None:
    model = Views()
    howsparse.magnitude_mask(model, 0.99).apply_(model)
    found = sparsify(model, torch.randn(4, 300), batches=[4])
    x = torch.randn(4, 300)
    with torch.inference_mode():
        assert torch.allclose(found(x), model(x), atol=1e-4)


def test_batches_must_be_positive() -> None:
    with pytest.raises(InputError, match=r"batches=\[0\] must be positive"):
        sparsify(nn.Linear(2, 2), torch.zeros(1, 2), batches=[0])


def test_two_of_four_needs_a_gpu_and_a_mask() -> None:
    weight = torch.ones(32, 64)
    assert not is_two_of_four(weight)
    weight[:, ::2] = 0
    assert is_two_of_four(weight)
    weight[5, 0] = 1
    assert not is_two_of_four(weight), "3 of 4"
    assert not is_two_of_four(torch.zeros(30, 64)), "no kernel for this size"
    with pytest.raises(InputError, match="on a GPU"):
        semi_structured(nn.Linear(64, 32))


def test_every_kernel_has_a_name_that_is_known() -> None:
    assert set(DENSE) < set(KERNELS)


def chain(kernel: str) -> tuple[nn.Module, nn.Sequential, list[SparseLinear]]:
    """A dense network, and the same one with sparse layers in a sequence that calls them as one step."""
    torch.manual_seed(0)
    layers = [zeroed(nn.Linear(27, 20), 0.8), zeroed(nn.Linear(20, 9), 0.5), zeroed(nn.Linear(9, 4), 0.5)]
    sparse = [SparseLinear(csr_of(layer.weight, layer.bias)) for layer in layers if isinstance(layer, nn.Linear)]
    for each in sparse:
        each.kernels = {1: kernel}
    dense = nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1], nn.Dropout(0.5), nn.ReLU(), layers[2])
    fused = nn.Sequential(nn.Flatten(), sparse[0], nn.ReLU(), sparse[1], nn.Dropout(0.5), nn.ReLU(), sparse[2])
    fuse_sequences(fused)
    assert type(fused) is SparseSequential
    fused.eval()
    return dense.eval(), fused, sparse


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_sparse_layers_of_a_sequence_run_as_one_step(kernel: str) -> None:
    dense, fused, _ = chain(kernel)
    for batch in (1, 5, 1, 3, 0):
        x = torch.randn(batch, 3, 3, 3)
        with torch.no_grad():
            found, again = fused(x), fused(x)
        assert torch.allclose(found, dense(x), atol=1e-5)
        assert torch.equal(found, again)
    for i in range(40):  # many shapes
        with torch.no_grad():
            assert fused(torch.randn(i + 1, 27)).shape == (i + 1, 4)


def test_a_sequence_takes_new_weights_modules_and_hooks() -> None:
    dense, fused, sparse = chain("fbgemm")
    x = torch.randn(5, 27)
    with torch.no_grad():
        expected = fused(x)
        for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused)), fused[:]):
            assert torch.equal(other(x), expected)
        assert torch.allclose(copy.deepcopy(fused).double()(x.double()).float(), expected, atol=1e-5)
        other = copy.deepcopy(fused)
        other(x)
        other[6].load_state_dict(SparseLinear(csr_of(torch.zeros(4, 9), torch.ones(4))).state_dict())
        assert torch.equal(other(x), torch.ones(5, 4))
        other[6] = nn.Identity()
        assert other(x).shape == (5, 9)
        calls: list[Tensor] = []
        handles = [module.register_forward_hook(lambda *a: calls.append(a[2])) for module in (sparse[0], fused[2])]
        assert torch.allclose(fused(x), expected, atol=1e-6)
        assert calls[0].min() < 0 <= calls[1].min()  # before the ReLU, and after it
        for handle in handles:
            handle.remove()
        assert torch.equal(fused(x), expected)
        assert len(calls) == 2
    assert list(fused.state_dict())[:4] == ["1.rows", "1.columns", "1.values", "1.bias"]
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(fused(x).sum(), x)
    assert torch.allclose(gradient, torch.autograd.grad(dense(x).sum(), x)[0], atol=1e-5)
