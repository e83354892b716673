"""The order of equal marginal losses on networks for which the best allocation is known."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from howsparse.pruning.orders import rank
from howsparse.pruning.orders.marginal import _cheapest, marginal
from howsparse.pruning.prune import pruned
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.weights import prunable_weights
from networks_for_tests import mlp_case


class Separate:
    """Squared error of two linear layers with inputs of sizes 1 and 10: a GGN that is known exactly."""

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return self.of_output(self.output(model, batch), batch)

    def output(self, model: nn.Module, batch: Any) -> Tensor:
        x, _ = batch
        small, large = (next(layer.parameters()) for layer in model.children())
        return torch.cat([x * small, 10 * x * large], dim=1)

    def of_output(self, output: Tensor, batch: Any) -> Tensor:
        value: Tensor = (output - batch[1]).square().sum(1).mean() / 2
        return value


def test_a_separable_quadratic_is_nearly_in_the_order_of_its_exact_costs() -> None:
    # With x a row of ones, removing weight i raises the loss by w_i^2 / 2 in layer 0 and by 50 w_i^2 in layer 1. A
    # layer goes at most twice as fast as the network, so the first steps are not the best ones.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 1, bias=False), nn.Linear(40, 1, bias=False)).double()
    x, loss = torch.ones(1, 40, dtype=torch.float64), Separate()
    batches = [(x, loss.output(model, (x, None)).detach())]
    order = rank(model, "marginal", batches, loss=loss)
    scales = {"0.weight": 0.5, "1.weight": 50}
    costs = {name: w.detach().square() * scales[name] for name, w in prunable_weights(model).items()}
    exact = torch.cat([cost.flatten() for cost in costs.values()]).sort().values
    for sparsity in (0.36, 0.51, 0.75, 0.91):
        mask, magnitude = order.mask(sparsity), rank(model, "magnitude").mask(sparsity)
        removed = sum(float(cost[~mask[name]].sum()) for name, cost in costs.items())
        best = float(exact[: mask.num_weights - mask.num_kept].sum())
        by_size = sum(float(cost[~magnitude[name]].sum()) for name, cost in costs.items())
        assert best * (1 - 1e-9) <= removed <= best * (1 + 1e-9) + 0.1 * (by_size - best)


def test_it_beats_magnitude_when_layers_differ_in_scale() -> None:
    model, batches = mlp_case()
    with torch.no_grad():  # the same function with small weights in the first layer and large ones in the second
        for name, p in model.named_parameters():
            p.mul_({"0.weight": 0.02, "0.bias": 0.02, "2.weight": 50}.get(name, 1))
    dense = EmpiricalRisk(model, batches).value()
    rises = {}
    for name in ("marginal", "magnitude"):
        with pruned(model, rank(model, name, batches).mask(0.5)):
            rises[name] = EmpiricalRisk(model, batches).value() - dense
    assert rises["marginal"] < 0.5 * rises["magnitude"]


def test_within_a_layer_it_is_magnitude() -> None:
    model, batches = mlp_case()
    order = marginal(model, batches, steps=7)
    for name, w in prunable_weights(model).items():
        by_score = order.scores[name].flatten().argsort()
        sizes = w.detach().abs().flatten()[by_score]
        assert (sizes.diff() >= 0).all()
    places = torch.cat([score.flatten() for score in order.scores.values()]).sort().values
    assert torch.equal(places, torch.arange(order.num_weights).double())


@pytest.mark.parametrize("count", [1, 5, 64, 200])
def test_cheapest_bands_are_whole_and_in_order(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    costs = {name: torch.randn(100, generator=generator).double().numpy() for name in "abc"}
    taken = list(_cheapest(costs, count))
    assert sum(size for _, size in taken) == count
