"""Networks and data at the edge of what has an answer: each answer is right, or refused in one line."""

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import howsparse
from howsparse import InputError

Batches = list[tuple[Tensor, Tensor]]


def _case(width: int = 3, classes: int = 3, examples: int = 24) -> tuple[nn.Module, Batches]:
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(width, classes, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.randn(classes, width, generator=generator))
    inputs = torch.randn(examples, width, generator=generator)
    return model, [(inputs, model(inputs).argmax(1))]


def _limit(model: nn.Module, data: Batches, tolerance: float = 0.05) -> howsparse.PruningLimit:
    return howsparse.pruning_limit(model, data, tolerance=tolerance, max_products=32, progress=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_measured_as_the_network_computes(dtype: torch.dtype) -> None:
    model, data = _case()
    model, data = model.to(dtype), [(x.to(dtype), y) for x, y in data]
    found = howsparse.measure(model, data, max_drop=0.1, precision=0.01, progress=False)
    mask = howsparse.magnitude_mask(model, found.sparsity)
    before = (model(data[0][0]).argmax(1) == data[0][1]).float().mean()
    mask.apply_(model)
    after = (model(data[0][0]).argmax(1) == data[0][1]).float().mean()
    assert before - after <= 0.1 + 1e-6
    limit = _limit(*_halved(dtype))
    assert 0 <= limit.bracket[0] <= limit.bracket[1] <= 1


def _halved(dtype: torch.dtype) -> tuple[nn.Module, Batches]:
    model, data = _case()
    return model.to(dtype), [(x.to(dtype), y) for x, y in data]


def test_a_loss_without_curvature_sets_no_limit() -> None:
    """All inputs are zero, so no weight matters: all can go but the last one, which always stays."""
    model, data = _case()
    flat = [(torch.zeros_like(x), y) for x, y in data]
    assert howsparse.measure(model, flat, max_drop=0.0, progress=False).sparsity == 1 - 1 / 9
    limit = _limit(model, flat)
    assert limit.bracket[1] == pytest.approx(1.0)


def test_the_only_weight_stays() -> None:
    model = nn.Linear(1, 1, bias=False)
    data = [(torch.ones(4, 1), torch.zeros(4, 1))]
    with torch.no_grad():
        model.weight.fill_(0.1)

    def square(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.mse_loss(model(batch[0]), torch.full((4, 1), 0.1))

    for tolerance in (0.02, 0.005):  # the loss without the weight is 0.01
        assert howsparse.measure(model, data, tolerance=tolerance, loss=square, progress=False).sparsity == 0.0
    limit = howsparse.pruning_limit(model, data, tolerance=0.02, loss=square, max_products=32, progress=False)
    assert 0 <= limit.bracket[0] <= limit.bracket[1] <= 1


def test_equal_weights_go_in_an_order_that_is_always_the_same() -> None:
    model, _ = _case()
    with torch.no_grad():
        model.get_parameter("weight").fill_(0.5)
    first = howsparse.magnitude_mask(model, 4 / 9)
    assert first.num_kept == 5
    assert torch.equal(first["weight"], howsparse.magnitude_mask(model, 4 / 9)["weight"])


def test_only_negative_curvature_is_a_wall_or_no_obstacle() -> None:
    """The loss is -|w|^2: its Hessian is -2 in every direction, and every weight that goes raises it."""
    model, data = _case()

    def concave(model: nn.Module, batch: Any) -> Tensor:
        return -cast(Tensor, model.weight).square().sum() + 0 * torch.sum(model(batch[0]))

    options: dict[str, Any] = {"tolerance": 1e-3, "loss": concave, "max_products": 32, "progress": False}
    unbounded = howsparse.pruning_limit(model, data, negative="unbounded", **options)
    wall = howsparse.pruning_limit(model, data, negative="wall", **options)
    assert wall.bracket[0] <= unbounded.bracket[0]
    assert wall.bracket[1] <= unbounded.bracket[1]
    smallest = float(model.get_parameter("weight").detach().abs().min()) ** 2
    kept = howsparse.measure(model, data, tolerance=smallest / 2, loss=concave, progress=False)
    assert kept.sparsity == 0.0


def test_one_class_and_fewer_examples_than_a_batch() -> None:
    model, data = _case(classes=1)
    assert (
        howsparse.measure(model, [(data[0][0], torch.zeros(24, dtype=torch.long))], max_drop=0.0).sparsity == 1 - 1 / 3
    )
    few, small = _case(examples=2)
    assert howsparse.outcomes(few, small).losses.shape == (2,)
    found = howsparse.measure(few, small, max_drop=0.0, progress=False)
    assert 0 <= found.sparsity < 1
    limit = howsparse.pruning_limit(few, small, max_products=32, progress=False)
    assert 0 < limit.tolerance < math.inf
    assert 0 <= limit.bracket[0] <= limit.bracket[1] <= 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    model, data = _case()
    with torch.no_grad():
        model.get_parameter("weight")[0, 0] = value
    for ask in (_limit, lambda net, batches: howsparse.measure(net, batches, max_drop=0.1, progress=False)):
        with pytest.raises(InputError, match=r"finite|did not diverge"):
            ask(model, data)
