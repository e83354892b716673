"""Repairs by name: each is what its functions do by hand, and leaves the model as it was if it fails."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from howsparse import InputError, magnitude_mask
from howsparse.pruning.orders import rank
from howsparse.pruning.repair import (
    REPAIRS,
    prune_and_repair,
    repair_batchnorm,
    repair_layers,
    repair_path,
    repair_rounds,
)

Batches = list[tuple[Tensor, Tensor]]


def case() -> tuple[Any, Batches]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5)).double().eval()
        x = torch.randn(120, 12, dtype=torch.float64)
        return model, [(part, part.argmax(1) % 5) for part in x.split(40)]


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def by_hand(name: str, model: nn.Module, batches: Batches) -> None:
    mask = magnitude_mask(model, 0.7)
    if name == "rounds":
        repair_rounds(model, 0.7, batches)
    elif name == "layers":
        repair_layers(model, mask, batches)
    else:
        mask.apply_(model)
    if name == "batchnorm":
        repair_batchnorm(model, batches)


@pytest.mark.parametrize("name", ["none", "batchnorm", "layers", "rounds"])
def test_a_name_does_what_its_function_does(name: str) -> None:
    model, batches = case()
    other = copy.deepcopy(model)
    mask = prune_and_repair(model, 0.7, batches, repair=name)
    by_hand(name, other, batches)
    assert same(model, other)
    assert mask.num_kept == round(0.3 * mask.num_weights)


@pytest.mark.parametrize("name", REPAIRS)
def test_each_repair_keeps_its_mask(name: str) -> None:
    model, batches = case()
    mask = prune_and_repair(model, 0.7, batches, repair=name, order="layerwise")
    assert all(not model.get_parameter(weight)[~kept].any() for weight, kept in mask.items())
    assert mask.num_kept == round(0.3 * mask.num_weights)


def test_an_order_that_was_made_before_gives_its_mask() -> None:
    model, batches = case()
    order = rank(model, "random", seed=3)
    mask = prune_and_repair(model, 0.5, batches, repair="layers", order=order)
    assert all(torch.equal(mask[name], kept) for name, kept in order.mask(0.5).items())


@pytest.mark.parametrize("name", ["layers", "rounds"])
def test_the_model_is_unchanged_if_a_repair_fails_in_the_middle(name: str) -> None:
    model, batches = case()
    before = copy.deepcopy(model)
    seen = 0

    def fails(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        nonlocal seen
        seen += 1
        if seen > 4:
            raise KeyboardInterrupt
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    with pytest.raises(KeyboardInterrupt):
        prune_and_repair(model, 0.7, batches, repair=name, loss=fails)
    assert same(model, before)


def test_wrong_input_is_refused() -> None:
    model, batches = case()
    before = copy.deepcopy(model)
    with pytest.raises(InputError, match="repair 'best' is not known; use one of none, batchnorm"):
        prune_and_repair(model, 0.7, batches, repair="best")
    with pytest.raises(InputError, match="sparsity 1 is outside"):
        prune_and_repair(model, 1.0, batches)
    with pytest.raises(InputError, match="can be made anew"):
        prune_and_repair(model, 0.7, batches, order=rank(model, "magnitude"))
    with pytest.raises(InputError, match="no BatchNorm"):
        prune_and_repair(nn.Linear(3, 2), 0.5, [(torch.eye(3), torch.arange(3) % 2)], repair="batchnorm")
    assert same(model, before)


def test_a_path_has_a_network_at_each_of_its_sparsities() -> None:
    model, batches = case()
    dense, first = copy.deepcopy(model), copy.deepcopy(model)
    found = []
    for mask in repair_path(model, [0.5, 0.7], batches):
        found.append((mask, copy.deepcopy(model)))
    repair_layers(first, magnitude_mask(first, 0.5), batches)
    assert same(first, found[0][1])
    repair_layers(first, found[1][0], batches, dense=dense)
    assert same(first, found[1][1])
    assert [round(mask.sparsity, 2) for mask, _ in found] == [0.5, 0.7]


def test_a_path_needs_growing_sparsities() -> None:
    model, batches = case()
    for wrong in ([], [0.5, 0.5], [0.7, 0.5]):
        with pytest.raises(InputError, match="in growing order"):
            repair_path(model, wrong, batches)
