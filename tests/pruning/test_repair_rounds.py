"""Pruning in rounds."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from howsparse import InputError, magnitude_mask
from howsparse.pruning.orders import Order, rank
from howsparse.pruning.repair import repair_layers, repair_rounds, round_sparsities


def case(seed: int = 0) -> tuple[Any, list[tuple[Tensor, Tensor]], Tensor]:
    """A network with correlated inputs, so that one weight can replace another."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10)).double()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(300, 5, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(5, 20, generator=generator, dtype=torch.float64)
    x += 0.1 * torch.randn(300, 20, generator=generator, dtype=torch.float64)
    return model, [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(100)], x


def test_one_round_is_a_repair_of_the_orders_mask() -> None:
    model, batches, _ = case()
    other = copy.deepcopy(model)
    mask = repair_rounds(model, 0.8, batches, rounds=1)
    by_hand = magnitude_mask(other, 0.8)
    repair_layers(other, by_hand, batches)
    assert all(torch.equal(mask[name], by_hand[name]) for name in by_hand)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_rounds_are_better_than_one_round(seed: int) -> None:
    model, batches, x = case(seed)
    dense, errors = copy.deepcopy(model), []
    for rounds in (1, 6):
        pruned = copy.deepcopy(model)
        mask = repair_rounds(pruned, 0.8, batches, rounds=rounds)
        assert mask.num_kept == 180
        assert all(not pruned.get_parameter(name)[~kept].any() for name, kept in mask.items())
        with torch.no_grad():
            errors.append(float((pruned(x) - dense(x)).square().mean()))
    assert errors[1] < 0.8 * errors[0]


def test_what_a_round_removed_stays_removed_under_any_order() -> None:
    model, batches, _ = case()
    kept = []

    def upside_down(model: nn.Module, batches: object, **options: object) -> Order:
        order = rank(model, "magnitude")
        kept.append({name: model.get_parameter(name) != 0 for name in order.scores})
        return Order("upside down", {name: -score for name, score in order.scores.items()})

    last = repair_rounds(model, 0.75, batches, rounds=3, order=upside_down)
    for name, final in last.items():
        assert not (final & ~kept[2][name]).any()
        assert not (kept[2][name] & ~kept[1][name]).any()
    assert last.num_kept == 225


def test_wrong_input_is_refused() -> None:
    model, batches, _ = case()
    with pytest.raises(InputError, match="0 rounds are not enough"):
        repair_rounds(model, 0.5, batches, rounds=0)
    with pytest.raises(InputError, match="sparsity 1 is outside"):
        repair_rounds(model, 1.0, batches)
    with pytest.raises(InputError, match="stays the same in all rounds"):
        repair_rounds(model, 0.5, batches, order=rank(model, "magnitude"))  # type: ignore[arg-type]


def test_each_round_removes_the_same_fraction_of_what_is_left() -> None:
    left = [1.0, *(1 - each for each in round_sparsities(0.936, 3))]
    assert [b / a for a, b in pairwise(left)] == pytest.approx([0.4, 0.4, 0.4])
