"""A thousand products take no more memory than a hundred."""

import gc
import tracemalloc

import pytest
import torch
from torch import nn

from howsparse.risk import GGN, EmpiricalRisk, Hessian


def held() -> tuple[int, int]:
    """Bytes of Python objects, and the number of objects; a tensor that is kept is one of them."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0], len(gc.get_objects())


@pytest.mark.parametrize("matrix", [Hessian, GGN])
@pytest.mark.parametrize("memory", [0, None])
def test_products_leave_nothing_in_memory(matrix: type[Hessian | GGN], memory: int | None) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))
    product = matrix(EmpiricalRisk(model, [(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))]), memory)
    vector = torch.randn(product.shape[0])
    tracemalloc.start()
    try:
        for _ in range(100):
            product @ vector
        size, objects = held()
        for _ in range(1000):
            product @ vector
        size_after, objects_after = held()
    finally:
        tracemalloc.stop()
    assert size_after - size < 50_000  # bytes; a tensor that each product leaves would take ten times that
    assert objects_after - objects < 100
