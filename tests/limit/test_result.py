"""A limit as a file, as a mask, and under another tolerance; and the other answers that are saved."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from howsparse import (
    InputError,
    LimitOptions,
    Mask,
    Measured,
    PruningLimit,
    magnitude_mask,
    measure,
    prune,
    pruning_limit,
)
from howsparse.limit.goal import Goal, Point
from howsparse.limit.options import Answer
from howsparse.limit.summary import LimitSummary
from howsparse.methods import Stage, Ticket
from howsparse.pruning.masks import random_mask
from networks_for_tests import Batches, mlp_case

OPTIONS: dict[str, dict[str, Any]] = {
    "hessian": {},
    "ggn": {"curvature": "ggn"},
    "two probes": {"probes": 2, "max_products": 80},
    "sample": {"population": 400},
    "unbounded": {"negative": "unbounded"},
}


def limit_of(**options: Any) -> tuple[nn.Module, Batches, PruningLimit]:
    model, batches = mlp_case()
    return model, batches, pruning_limit(model, batches, **{"tolerance": 0.05, "max_products": 40} | options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_saved_limit_is_the_same_limit(options: dict[str, Any], tmp_path: Path) -> None:
    model, _, limit = limit_of(**options)
    limit.save(tmp_path / "limit.safetensors")
    loaded = PruningLimit.load(tmp_path / "limit.safetensors")
    assert loaded.summary() == limit.summary()
    assert np.array_equal(loaded.larsen_interval, limit.larsen_interval, equal_nan=True)
    assert loaded.at(tolerance=0.01).bracket == limit.at(tolerance=0.01).bracket
    assert loaded.at(negative="unbounded").bracket == limit.at(negative="unbounded").bracket
    one, other = loaded.mask(model, 0.5), limit.mask(model, 0.5)
    assert all(torch.equal(one[name], other[name]) for name in other)
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "limit.safetensors").read_bytes()


def frozen_backbone() -> tuple[nn.Sequential, Batches]:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40).requires_grad_(False), nn.ReLU(), nn.Linear(40, 4))
    x = torch.randn(512, 20, generator=generator)
    return model, [(x[:256], x[:256, :4].argmax(1)), (x[256:], x[256:, :4].argmax(1))]


def test_limit_mask_and_measurement_are_about_the_same_weights() -> None:
    """A frozen backbone with a head that is not: 160 of 960 weights."""
    model, batches = frozen_backbone()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    limit = pruning_limit(model, batches, tolerance=0.05, max_products=40)
    assert limit.names == ("2.weight",)
    assert limit.num_weights == 160
    for mask in (limit.mask(model), magnitude_mask(model, 0.5), random_mask(model, 0.5)):
        assert list(mask) == ["2.weight"]
    assert limit.mask(model).sparsity == pytest.approx(min(limit.predicted, 1 - 1 / 160), abs=0.5 / 160)
    points = measure(model, batches, tolerance=0.05).curve
    mask = magnitude_mask(model, points[-1].sparsity)
    prune(model, mask)
    with torch.no_grad():
        loss = float(torch.stack([nn.functional.cross_entropy(model(x), y) for x, y in batches]).mean())
    assert points[-1].loss == pytest.approx(loss, rel=1e-5)
    assert torch.equal(before["0.weight"], model.get_parameter("0.weight"))


def test_the_mask_of_a_pruned_network_keeps_what_is_removed_removed() -> None:
    model, batches = mlp_case()
    removed = ~torch.cat([kept.flatten() for kept in magnitude_mask(model, 0.5).values()])
    prune(model, magnitude_mask(model, 0.5))
    limit = pruning_limit(model, batches, tolerance=0.05, max_products=40)
    assert limit.num_weights == 28
    again = limit.mask(model, 0.25)
    assert again.num_kept == 21
    assert not torch.cat([kept.flatten() for kept in again.values()])[removed].any()


def test_a_predicted_sparsity_of_one_leaves_a_weight() -> None:
    model, _, limit = limit_of(tolerance=1e6)
    assert limit.predicted == 1.0
    assert limit.mask(model).num_kept == limit.mask(model, 1.0).num_kept == 1
    prune(model, limit.mask(model))
    for wrong in (-0.1, 1.1):
        with pytest.raises(InputError, match="is outside"):
            limit.mask(model, wrong)


def test_another_limit_has_no_upper_bound() -> None:
    *_, limit = limit_of()
    assert limit.at() is limit
    for other in (limit.at(tolerance=0.01), limit.at(negative="unbounded")):
        with pytest.raises(InputError, match="has no upper bound"):
            _ = other.upper_bound
        assert (other.summary().upper_bound, other.summary().upper_low) == (None, None)
        assert other.bracket != limit.bracket


def test_a_wide_bracket_has_no_middle(tmp_path: Path) -> None:
    model, _, limit = limit_of()
    low, high = limit.bracket
    assert high - low > 0.1
    assert not limit.resolved
    for number in (limit.sparsity, limit.radius, limit.scale, limit.effective_dimension, limit.upper_bound):
        assert np.isnan(number)
    answer = limit.summary()
    assert (answer.limit, answer.resolved, answer.upper_low, answer.radius) == (None, False, None, None)
    assert (answer.limit_low, answer.limit_high) == (low, high)
    assert f"not resolved: a bracket of {100 * low:.1f} % to {100 * high:.1f} %" in str(limit)
    for ask in (limit.resolved_sparsity, lambda: limit.mask(model, limit.sparsity)):
        with pytest.raises(InputError, match=r"the limit is not resolved, its bracket is .* % to .* %; use") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_a_narrow_bracket_has_one() -> None:
    model, _, limit = limit_of(probes=24, max_products=960)
    assert limit.resolved
    low, high = limit.bracket
    assert high - low <= 0.1
    assert limit.resolved_sparsity() == limit.sparsity == (low + high) / 2
    assert limit.summary().limit == limit.sparsity
    assert limit.mask(model, limit.sparsity).sparsity == pytest.approx(limit.sparsity, abs=0.5 / 56)


def test_options_are_given_whole_or_by_name() -> None:
    model, batches = mlp_case()
    options = LimitOptions(tolerance=0.05, max_products=40, curvature="ggn")
    whole = pruning_limit(model, batches, options=options)
    assert pruning_limit(model, batches, tolerance=0.05, max_products=40, curvature="ggn").summary() == whole.summary()
    changed = pruning_limit(model, batches, options=options, tolerance=0.01)
    assert changed.tolerance == 0.01
    assert changed.curvature == "ggn"
    with pytest.raises(InputError, match="has no option 'products'"):
        pruning_limit(model, batches, products=40)


def test_a_limit_prints_in_a_few_words() -> None:
    *_, limit = limit_of()
    assert "tolerance=0.05" in repr(limit)
    assert len(repr(limit)) < 400
    assert "\n" not in repr(limit)
    assert str(limit).splitlines()[0] == "Pruning limit"
    assert "held: its mask lowers the loss by" in str(limit)
    assert limit._repr_html_().count("<tr>") == 6
    assert limit == limit
    assert len({limit, replace(limit)}) == 2


def test_the_words_are_one_set() -> None:
    assert [str(word) for word in Answer] == ["measured", "predicted", "limit"]


points = st.builds(Point, st.floats(0, 1), st.floats(0, 10), st.none() | st.floats(0, 1))


@settings(max_examples=20, deadline=None)
@given(st.lists(points, min_size=1, max_size=4), st.floats(0, 1))
def test_a_saved_measurement_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, found: list[Point], tolerance: float
) -> None:
    file = tmp_path_factory.mktemp("measured") / "m.safetensors"
    measured = Measured(tuple(found), Goal(tolerance=tolerance), "erk", None, tuple(found))
    measured.save(file)
    assert Measured.load(file) == measured


def saved(kind: str, folder: Path) -> Path:
    """A file of this kind."""
    model, _, limit = limit_of()
    file, mask = folder / "file.safetensors", magnitude_mask(model, 0.5)
    things: dict[str, Any] = {
        "limit": limit,
        "mask": mask,
        "measured": Measured((Point(0.0, 1.0, None),), Goal(tolerance=0.1)),
        "ticket": ticket_of(model, mask),
    }
    things[kind].save(file)
    return file


def ticket_of(model: nn.Module, mask: Mask) -> Ticket:
    stage = Stage("training", 0.5, 3, 0.1, None, 1.5, LimitSummary(0.9, 0.8, 1.0, 0.7, 40))
    return Ticket(model, mask, 0.75, 0.5, 0.6, (stage,))


LOADERS: dict[str, Any] = {
    "limit": PruningLimit.load,
    "mask": Mask.load,
    "measured": Measured.load,
    "ticket": lambda path: Ticket.load(path, mlp_case(seed=1)[0]),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_every_flipped_bit_is_one_line(kind: str, tmp_path: Path) -> None:
    file = saved(kind, tmp_path)
    LOADERS[kind](file)
    whole = file.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            LOADERS[kind](file)
        assert "\n" not in str(caught.value)
    for size in (0, 7, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError):
            LOADERS[kind](file)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("other", LOADERS)
def test_a_file_of_another_kind_is_refused(kind: str, other: str, tmp_path: Path) -> None:
    if kind != other:
        with pytest.raises(InputError, match=f"holds a {other}, not a {kind}"):
            LOADERS[kind](saved(other, tmp_path))


def test_a_ticket_comes_back_with_weights_mask_and_history(tmp_path: Path) -> None:
    model, _ = mlp_case()
    ticket = ticket_of(model, magnitude_mask(model, 0.5))
    ticket.save(tmp_path / "ticket.safetensors")
    found = Ticket.load(tmp_path / "ticket.safetensors", mlp_case(seed=1)[0])
    same: dict[str, Tensor] = model.state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in found.model.state_dict().items())
    assert all(torch.equal(kept, ticket.mask[name]) for name, kept in found.mask.items())
    assert (found.accuracy, found.loss, found.test_loss, found.history) == (0.75, 0.5, 0.6, ticket.history)
