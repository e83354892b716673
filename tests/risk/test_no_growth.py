"""1,000 products leave nothing in memory."""

import pytest
from benchmarks.reliability_cost import growth

from howsparse.risk import GGN, Hessian


@pytest.mark.parametrize("matrix", [Hessian, GGN])
@pytest.mark.parametrize("memory", [0, None])
def test_products_leave_nothing_in_memory(matrix: type[Hessian | GGN], memory: int | None) -> None:
    size, objects = growth(matrix, memory)
    assert size < 50_000  # bytes; a tensor that each product leaves would take ten times that
    assert objects < 100
