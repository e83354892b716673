"""Costs of layers against dense Hessians in float64."""

import pytest
import torch
from torch import Tensor

from howsparse import InputError, magnitude_mask
from howsparse.limit.audit import audit
from howsparse.limit.layers import binding_layers, layer_costs, layer_sizes
from howsparse.risk import EmpiricalRisk, Hessian
from networks_for_tests import convnet_case, exact_curvature


def local_model(gradient: Tensor, dense: Tensor, step: Tensor) -> float:
    return float(gradient @ step + step @ dense @ step / 2)


def test_costs_add_up_to_the_prediction_of_the_mask_and_are_the_audits() -> None:
    model, batches = convnet_case()
    risk = EmpiricalRisk(model, batches)
    flat, gradient, dense = risk.flat_weights(), risk.gradient(), exact_curvature(model, batches)
    costs = layer_costs(Hessian(risk), flat, gradient, layer_sizes(risk), 0.6)
    mask = magnitude_mask(model, 0.6)
    kept = torch.cat([part.flatten() for part in mask.values()])
    assert sum(cost.cost for cost in costs) == pytest.approx(local_model(gradient, dense, -flat * ~kept), rel=1e-9)
    shares = {layer.name: layer.predicted for layer in audit(model, mask, batches).layers}
    assert {cost.name: cost.cost for cost in costs} == pytest.approx(shares, rel=1e-9)
    assert {cost.name: 1 - cost.sparsity for cost in costs} == pytest.approx(mask.layer_densities())
    assert [cost.num_removed for cost in costs] == [int((~part).sum()) for part in mask.values()]


def test_marginal_costs_add_up_to_what_the_next_weights_cost() -> None:
    model, batches = convnet_case()
    risk = EmpiricalRisk(model, batches)
    flat, gradient, dense = risk.flat_weights(), risk.gradient(), exact_curvature(model, batches)
    order = torch.randperm(flat.numel(), generator=torch.Generator().manual_seed(0))
    costs = layer_costs(Hessian(risk), flat, gradient, layer_sizes(risk), 0.5, order)
    removed = order[: round(0.5 * flat.numel())].tolist()
    following, start = [], 0
    for cost in costs:  # fewer than 150 weights in each layer: the next 1 % is one weight
        rest = order[len(removed) :].tolist()
        following.append(next(i for i in rest if start <= i < start + cost.num_weights))
        start += cost.num_weights
    steps = []
    for gone in (removed, removed + following):
        step = torch.zeros_like(flat)
        step[gone] = -flat[gone]
        steps.append(step)
    rise = local_model(gradient, dense, steps[1]) - local_model(gradient, dense, steps[0])
    assert sum(cost.marginal for cost in costs) == pytest.approx(rise, rel=1e-9)


def test_a_layer_with_nothing_left_binds_nowhere() -> None:
    model, batches = convnet_case()
    risk = EmpiricalRisk(model, batches)
    sizes = layer_sizes(risk)
    order = torch.arange(risk.num_weights)  # the first layer goes first
    sparsity = sizes["0.weight"] / risk.num_weights
    costs = layer_costs(Hessian(risk), risk.flat_weights(), risk.gradient(), sizes, sparsity, order)
    assert [cost.sparsity for cost in costs] == [1, 0]
    assert [cost.name for cost in binding_layers(costs)] == ["6.weight"]


def test_bad_input() -> None:
    model, batches = convnet_case()
    risk = EmpiricalRisk(model, batches)
    for sizes, sparsity, match in (({"a": 1}, 0.5, "give all layers"), (layer_sizes(risk), 1.5, "outside")):
        with pytest.raises(InputError, match=match):
            layer_costs(Hessian(risk), risk.flat_weights(), risk.gradient(), sizes, sparsity)
