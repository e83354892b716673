"""Latency and memory of networks."""

import time

import pytest
import torch
from torch import Tensor, nn

from howsparse.deploy.timing import bytes_of, latency


class Sleeps(nn.Module):
    """Takes as long as it is told, and remembers how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Dropout()
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
        self.seen.append((self.training, torch.is_grad_enabled()))
        time.sleep(0.004)
        return x


@pytest.mark.parametrize("example", [torch.zeros(5, 2), (torch.zeros(5, 2), torch.zeros(1)), {"x": torch.zeros(5, 2)}])
def test_latency_is_the_time_of_a_call(example: object) -> None:
    model = Sleeps()
    model.inner.eval()
    found = latency(model, example, budget=0.05)
    assert 0.004 <= found.low <= found.seconds <= found.high
    assert found.batch == 5
    assert found.throughput == pytest.approx(5 / found.seconds)
    assert set(model.seen) == {(False, False)}, "in evaluation mode and without gradients"
    assert model.training
    assert not model.inner.training


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_memory_counts_sparse_tensors_and_shared_ones_once() -> None:
    layer = nn.Linear(8, 4)
    rows = torch.arange(7)
    sparse = torch.sparse_csr_tensor(rows, rows[:-1].clone(), torch.ones(6), (6, 6), check_invariants=True)
    layer.register_buffer("extra", sparse)
    indices = sparse.crow_indices().nbytes + sparse.col_indices().nbytes
    assert bytes_of(layer) == 4 * (8 * 4 + 4) + 4 * 6 + indices
    assert bytes_of(nn.Sequential(layer, layer)) == bytes_of(layer)
    tied = nn.Linear(8, 4)
    tied.weight = layer.weight
    assert bytes_of(nn.Sequential(layer, tied)) == bytes_of(layer) + 4 * 4
    assert bytes_of(nn.Embedding(3, 2, _weight=torch.ones(3, 2).to_sparse())) == 4 * 6 + 8 * 12
