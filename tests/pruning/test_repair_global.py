"""The repair of the whole network: against dense float64 algebra, closed forms, and torch's own losses."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn import functional

from howsparse import InputError, magnitude_mask
from howsparse.pruning.masks import Mask
from howsparse.pruning.prune import prune
from howsparse.pruning.repair import repair_globally, repair_layers
from howsparse.pruning.repair.gauss_newton import _names
from howsparse.pruning.repair.objectives import Objective, distance, with_targets
from howsparse.pruning.repair.scaling import curvature_scales
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.losses import Criterion, CrossEntropy, cross_entropy

Batches = list[tuple[Tensor, Tensor]]
WHOLE: dict[str, Any] = {"steps": 1, "products": 400, "damping": 1e-12}


def case(seed: int = 0) -> tuple[Any, Batches, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
        x = torch.randn(90, 6, dtype=torch.float64)
    return model, [(part, part.argmax(1) % 3) for part in x.split(40)], x


def changes(model: nn.Module, before: nn.Module, names: list[str]) -> Tensor:
    pairs = [(model.get_parameter(name), before.get_parameter(name)) for name in names]
    return torch.cat([(now - then).detach().flatten() for now, then in pairs])


def jacobian(model: nn.Module, names: list[str], x: Tensor) -> Tensor:
    """Derivatives of all outputs, ``(examples * outputs, parameters)``."""
    values = {name: model.get_parameter(name).detach() for name in names}
    parts = jacrev(lambda given: functional_call(model, given, (x,)).flatten())(values)
    return torch.cat([parts[name].flatten(1) for name in names], dim=1)


def test_a_step_is_that_of_dense_algebra() -> None:
    dense, batches, x = case()
    mask = magnitude_mask(dense, 0.6)
    start = copy.deepcopy(dense)
    mask.apply_(start)
    names = ["0.weight", "3.weight", "0.bias", "1.weight", "1.bias", "3.bias"]
    kept = torch.cat(
        [mask[n].flatten() if n in mask else torch.ones_like(start.get_parameter(n)).flatten().bool() for n in names]
    )
    j = jacobian(start, names, x)[:, kept]
    missing = (start(x) - dense(x)).detach().flatten()
    gradient, curvature = j.T @ missing / len(x), j.T @ j / len(x)
    near = distance("squares", cross_entropy, dense, batches)
    units = curvature_scales(EmpiricalRisk(start, with_targets(near, dense, batches), near, names))[kept]
    expected = torch.zeros(len(kept), dtype=torch.float64)
    expected[kept] = -torch.linalg.solve(curvature + 0.05 * units.diag(), gradient)

    repaired = copy.deepcopy(dense)
    repair_globally(repaired, mask, batches, objective="squares", steps=1, products=400, damping=0.05)
    found = changes(repaired, start, names)
    length = float(found @ expected / (expected @ expected))  # the line search may have halved it
    assert length in [pytest.approx(0.5**k, rel=1e-2) for k in range(6)]
    assert torch.allclose(found, length * expected, atol=2e-2 * float(expected.norm()))


def test_a_linear_model_is_solved_in_one_step() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Linear(7, 3).double()
        x = torch.randn(60, 7, dtype=torch.float64) @ torch.randn(7, 7, dtype=torch.float64)
    wanted, mask = model(x).detach(), magnitude_mask(model, 0.5)
    before, after = repair_globally(model, mask, [(x, torch.zeros(60).long())], objective="squares", **WHOLE)
    errors = 0.0
    for i, kept in enumerate(mask["weight"]):
        inputs = torch.cat([x[:, kept], torch.ones(60, 1, dtype=torch.float64)], dim=1)
        best = torch.linalg.lstsq(inputs, wanted[:, i : i + 1]).solution
        errors += float((inputs @ best - wanted[:, i : i + 1]).square().sum())
    assert after == pytest.approx(errors / 120, rel=1e-3)
    assert after < before


def value(objective: str, model: nn.Module, dense: nn.Module, batches: Batches, x: Tensor) -> float:
    labels = torch.cat([batch[1] for batch in batches])
    with torch.no_grad():
        now, wanted = model(x), dense(x)
        if objective == "labels":
            return float(functional.cross_entropy(now, labels))
        if objective == "divergence":
            found, sought = (functional.log_softmax(each, 1) for each in (now, wanted))
            return float(functional.kl_div(found, sought, reduction="batchmean", log_target=True))
        if objective == "squares":
            return 3 * float(functional.mse_loss(now, wanted)) / 2
        pairs = [(now, wanted), (model[:3](x), dense[:3](x))]  # type: ignore[index]
        return sum(float((a - b).square().sum() / (b - b.mean()).square().sum()) for a, b in pairs) / 2


@pytest.mark.parametrize("objective", ["features", "squares", "divergence", "labels"])
def test_the_objective_falls_and_is_the_models(objective: Any) -> None:
    model, batches, x = case()
    dense, mask = copy.deepcopy(model), magnitude_mask(model, 0.7)
    start = copy.deepcopy(model)
    mask.apply_(start)
    values = repair_globally(model, mask, batches, objective=objective, steps=3)
    assert values[0] == pytest.approx(value(objective, start, dense, batches, x))
    assert values[-1] == pytest.approx(value(objective, model, dense, batches, x))
    assert list(values) == sorted(values, reverse=True)
    assert values[-1] < 0.9 * values[0]
    assert all(not model.get_parameter(name)[~kept].any() for name, kept in mask.items())


def test_it_makes_the_repair_of_layers_better() -> None:
    model, batches, x = case()
    dense, mask = copy.deepcopy(model), magnitude_mask(model, 0.7)
    repair_layers(model, mask, batches)
    before = value("squares", model, dense, batches, x)
    values = repair_globally(model, mask, batches, dense=dense, objective="squares")
    assert values[0] == pytest.approx(before)
    assert value("squares", model, dense, batches, x) < 0.9 * before


def test_a_step_that_would_make_it_worse_is_shortened_or_left_out() -> None:
    model, batches, _ = case()
    mask = magnitude_mask(model, 0.9)
    with torch.no_grad():
        model[3].weight.mul_(40)  # probabilities of 0 and 1, far from any quadratic model
    values = repair_globally(model, mask, batches, objective="divergence", steps=4, damping=1e-12)
    assert list(values) == sorted(values, reverse=True)


def test_frozen_biases_and_other_weights_do_not_change() -> None:
    model, batches, _ = case()
    model[0].bias.requires_grad_(False)
    before = copy.deepcopy(model)
    mask = Mask({"0.weight": magnitude_mask(model, 0.5)["0.weight"]})
    repair_globally(model, mask, batches)
    assert _names(model, mask) == ["0.weight", "1.weight", "1.bias", "3.bias"]
    for name in ("0.bias", "3.weight"):
        assert torch.equal(model.get_parameter(name), before.get_parameter(name))
    assert not torch.equal(model[3].bias, before[3].bias)
    assert torch.equal(model[1].running_mean, before[1].running_mean)


def test_products_over_fewer_examples_change_the_step_and_not_the_objective() -> None:
    found = []
    for examples in (None, 30):
        model, batches, _ = case()
        found.append(repair_globally(model, magnitude_mask(model, 0.7), batches, steps=1, curvature_examples=examples))
    (start, full), (again, fewer) = found
    assert start == again
    assert full != fewer < start


def test_a_network_that_is_not_pruned_stays_as_it_is() -> None:
    model, batches, _ = case()
    before = copy.deepcopy(model)
    assert repair_globally(model, magnitude_mask(model, 0.0), batches, steps=2) == (0.0, 0.0, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_regression_is_repaired_too() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batches = [(x, torch.zeros(50, 1, dtype=torch.float64))]
    before, *_, after = repair_globally(model, magnitude_mask(model, 0.5), batches, loss=Criterion(nn.MSELoss()))
    assert after < 0.9 * before


def test_the_model_is_unchanged_after_an_error() -> None:
    model, batches, _ = case()
    before, calls = copy.deepcopy(model), 0

    class Fails(CrossEntropy):
        def output(self, model: nn.Module, batch: Any) -> Tensor:
            nonlocal calls
            calls += 1
            if calls > 20:
                raise KeyboardInterrupt
            return super().output(model, batch)

    with pytest.raises(KeyboardInterrupt):
        repair_globally(model, magnitude_mask(model, 0.7), batches, steps=20, loss=Fails())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "give at least 1 for each"),
        ({"products": 0}, "give at least 1 for each"),
        ({"curvature_examples": 0}, "give at least 1 for each"),
        ({"damping": 0.0}, "damping 0 is not above 0"),
        ({"objective": "best"}, "objective 'best' is not known"),
        ({"loss": lambda model, batch: model(batch[0]).mean()}, "needs a loss in two parts"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    model, batches, _ = case()
    before = copy.deepcopy(model)
    with pytest.raises(InputError, match=message):
        repair_globally(model, magnitude_mask(model, 0.5), batches, **options)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_wrong_models_and_data_are_refused() -> None:
    model, batches, _ = case()
    mask = magnitude_mask(model, 0.5)
    with pytest.raises(InputError, match="there are no batches"):
        repair_globally(model, mask, [])
    with pytest.raises(InputError, match="dense is the model itself"):
        repair_globally(model, mask, batches, dense=model)
    with pytest.raises(InputError, match="not a prunable weight"):
        repair_globally(model, Mask({"5.weight": torch.ones(2, 2).bool()}), batches)
    prune(model, mask)
    with pytest.raises(InputError, match="remove first"):
        repair_globally(model, mask, batches)


@pytest.mark.parametrize("objective", ["squares", "divergence"])
def test_the_objectives_are_torchs_losses(objective: Objective) -> None:
    model, batches, _ = case()
    other, _, _ = case(seed=1)
    near = distance(objective, cross_entropy, other, batches)
    (batch,) = with_targets(near, other, batches[:1])
    assert float(near(model, batch).detach()) == pytest.approx(
        value(objective, model, other, batches[:1], batches[0][0])
    )


class Pooled(nn.Module):
    """A convolutional network in a wrapper."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


def test_features_of_a_convolutional_network_are_those_before_the_pooling() -> None:
    batches = [(torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(3).long())]
    model = Pooled()
    near = distance("features", cross_entropy, model, batches)
    (target,) = (target for _, target in with_targets(near, model, batches))
    assert len(target) == 3 * (2 + 4 * 3 * 3)
    features = model.body[:2](batches[0][0]).detach()
    scale = 3**0.5 / float((features - features.mean()).norm())
    assert torch.allclose(target[6:], scale * features.flatten(), rtol=1e-5)


def test_a_model_without_parts_has_no_features() -> None:
    model = nn.Linear(3, 2)
    batches = [(torch.eye(3), torch.zeros(3).long())]
    near = distance("features", cross_entropy, model, batches)
    (target,) = (target for _, target in with_targets(near, model, batches))
    assert len(target) == 6


def test_the_units_are_the_diagonal_of_the_curvature() -> None:
    model, batches, x = case()
    names = ["3.weight", "3.bias"]  # the outputs are linear in them: the Jacobian is that of the inputs
    risk = EmpiricalRisk(model, batches, names=names)
    found = curvature_scales(risk, probes=4000)
    squares = model[:3](x).detach().square().mean(0)
    expected = torch.cat([squares.repeat(3), torch.ones(3, dtype=torch.float64)])
    assert torch.allclose(found, expected, rtol=0.1)
