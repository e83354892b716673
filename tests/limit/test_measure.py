from typing import Any

import pytest
import torch
from torch import Tensor, nn

from howsparse import InputError, measure
from howsparse.limit.best import measure_orders
from howsparse.risk.evaluate import evaluate
from networks_for_tests import convnet_case, mlp_case


def test_evaluation_weighs_uneven_batches_by_their_examples() -> None:
    model, batches = mlp_case(examples=40)
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    loss, accuracy = evaluate(model, batches)
    with torch.no_grad():
        output = model(inputs)
    assert loss == pytest.approx(float(nn.functional.cross_entropy(output, targets)))
    assert accuracy == pytest.approx(float((output.argmax(1) == targets).double().mean()))


def test_evaluation_is_in_evaluation_mode_and_puts_modes_back() -> None:
    model, batches = convnet_case()
    model.train()
    model.get_submodule("4").eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    assert evaluate(model, batches) == evaluate(model, batches)  # dropout is off
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_loss_that_cannot_score_has_no_accuracy() -> None:
    model, batches = mlp_case()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        squared: Tensor = model(batch[0]) ** 2
        return squared.mean()

    measured = measure(model, batches, tolerance=0.01, loss=loss)
    assert measured.sparsity_by_accuracy is None
    assert measured.dense.accuracy is None
    assert measured.dense.loss == pytest.approx(float(torch.cat([model(x).detach() ** 2 for x, _ in batches]).mean()))


def many_batches() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A network whose accuracy falls slowly with sparsity, and 3,200 examples."""
    generator = torch.Generator().manual_seed(3)
    model = nn.Linear(40, 5, bias=False).double()
    inputs = torch.randn(3200, 40, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.randn(5, 40, generator=generator, dtype=torch.float64))
        targets = model(inputs).argmax(1)
    return model, list(zip(inputs.split(400), targets.split(400), strict=True))


def accuracy_at(model: nn.Module, batches: list[tuple[Tensor, Tensor]], sparsity: float) -> float:
    weight = model.get_parameter("weight").detach()
    kept = weight.abs() > weight.abs().flatten().kthvalue(round(sparsity * weight.numel())).values
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    return float(((inputs @ (weight * kept).T).argmax(1) == targets).double().mean())


@pytest.mark.parametrize("max_drop", [0.01, 0.05, 0.3])
def test_a_search_that_begins_on_a_part_is_exact_on_all_data(max_drop: float) -> None:
    model, batches = many_batches()
    measured = measure(model, batches, max_drop=max_drop, precision=0.005)
    assert measured.dense.accuracy == 1.0
    assert accuracy_at(model, batches, measured.sparsity) >= 1 - max_drop
    next_ = min(point.sparsity for point in measured.curve if point.sparsity > measured.sparsity)
    assert next_ - measured.sparsity <= 0.005 + 1e-9
    assert accuracy_at(model, batches, next_) < 1 - max_drop
    assert measured.pruned.accuracy == pytest.approx(accuracy_at(model, batches, measured.sparsity))
    assert len(measured.curve) <= 12
    assert measured.glance[0].sparsity == 0.0


def test_goals_in_loss() -> None:
    model, batches = many_batches()
    dense = measure(model, batches, tolerance=0.1).dense
    by_loss, by_share = measure(model, batches, tolerance=dense.loss / 10), measure(model, batches, max_rise=0.1)
    assert by_loss.sparsity == by_share.sparsity
    assert by_loss.pruned.loss <= 1.1 * dense.loss
    assert str(by_share.goal) == "the loss rises by at most 10 %"


def test_a_metric_of_ones_own() -> None:
    model, batches = many_batches()

    def in_first_two(output: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (output.topk(2).indices == batch[1].unsqueeze(1)).any(1)

    own = measure(model, batches, max_drop=0.02, metric=in_first_two)
    named = measure(model, batches, max_drop=0.02, metric="top2")
    assert (own.metric, named.metric) == ("in_first_two", "top2")
    assert own.curve == named.curve
    assert named.sparsity > measure(model, batches, max_drop=0.02).sparsity


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({"tolerance": -0.1}, r"tolerance -0\.1 is negative"),
        ({"max_drop": 200}, r"max_drop 200 is not below 1; give a fraction"),
        ({"max_drop": float("nan")}, "max_drop nan is not a finite number"),
        ({"max_drop": 0.01, "tolerance": 0.1}, "2 goals are given; give exactly one"),
        ({"max_drop": 0.01, "precision": 0}, "precision 0 is not positive"),
        ({"max_drop": 0.01, "order": "magic"}, "order 'magic' is not known"),
        ({"max_drop": 0.01, "metric": "f1"}, "metric 'f1' is not known"),
    ],
)
def test_every_bad_goal_has_its_line(goal: dict[str, Any], message: str) -> None:
    model, batches = mlp_case()
    with pytest.raises(InputError, match=message) as caught:
        measure(model, batches, **goal)
    assert "\n" not in str(caught.value)


def test_without_a_metric_a_goal_in_loss_is_needed() -> None:
    model, batches = mlp_case()
    with pytest.raises(InputError, match="cannot tell which predictions are correct; give tolerance or max_rise"):
        measure(model, batches, loss=lambda model, batch: model(batch[0]).square().mean())
    with pytest.raises(InputError, match="cannot tell which"):
        measure(model, batches, max_drop=0.1, loss=lambda model, batch: model(batch[0]).square().mean())


def test_best_of_all_orders() -> None:
    model, batches = many_batches()
    comparison = measure_orders(model, batches, ["magnitude", "wanda", "random"], max_drop=0.05)
    alone = {name: measure(model, batches, max_drop=0.05, order=name) for name in ("magnitude", "wanda", "random")}
    assert {found.order: found.sparsity for found in comparison.measured} == {n: m.sparsity for n, m in alone.items()}
    best = max(alone.values(), key=lambda found: found.sparsity)
    assert comparison.best.sparsity == best.sparsity
    assert not comparison.refused


def test_orders_that_do_not_fit_are_named() -> None:
    model = nn.RNN(4, 4, batch_first=True).double()
    batches = [(torch.randn(8, 3, 4, dtype=torch.float64), torch.zeros(8, 4, dtype=torch.float64))]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.mse_loss(model(batch[0])[1][0], batch[1])

    comparison = measure_orders(model, batches, ["magnitude", "wanda"], max_rise=0.1, loss=loss)
    assert [found.order for found in comparison.measured] == ["magnitude"]
    assert list(comparison.refused) == ["wanda"]
