"""A product for which a GPU has not enough memory is computed in smaller parts, with the same result."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from howsparse.risk import GGN, EmpiricalRisk, Hessian
from howsparse.risk.losses import CrossEntropy


class Narrow(CrossEntropy):
    """A loss that runs out of memory for more than ``most`` examples."""

    most = 100

    def output(self, model: nn.Module, batch: Any) -> Tensor:
        if len(batch[0]) > self.most:
            raise torch.OutOfMemoryError("no memory")
        return super().output(model, batch)

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return self.of_output(self.output(model, batch), batch)


def risk_of(loss: CrossEntropy) -> EmpiricalRisk:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    labels = torch.randint(0, 3, (23,))
    labels[::4] = -100
    inputs = torch.randn(23, 5, dtype=torch.float64)
    return EmpiricalRisk(model, [(inputs[:16], labels[:16]), (inputs[16:], labels[16:])], loss)


@pytest.mark.parametrize("matrix", [Hessian, GGN])
def test_products_and_gradients_are_those_of_whole_batches(matrix: type[Hessian | GGN]) -> None:
    loss = Narrow()
    whole, narrow = risk_of(CrossEntropy()), risk_of(loss)
    loss.most = 3
    vector = torch.randn(whole.num_weights, dtype=torch.float64)
    torch.testing.assert_close(narrow.gradient(), whole.gradient())
    torch.testing.assert_close(matrix(narrow, memory=0) @ vector, matrix(whole, memory=0) @ vector)
    assert narrow.micro_batches.size == 2
    assert whole.micro_batches.size is None


def test_one_example_that_does_not_fit_is_an_error() -> None:
    loss = Narrow()
    risk = risk_of(loss)
    loss.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        risk.gradient()
