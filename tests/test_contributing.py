"""The method and the order that CONTRIBUTING shows are run as they stand, and its diagram has the rooms there are."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import howsparse
from howsparse.methods import METHODS, load_method
from howsparse.tasks import load_task
from test_rooms import ROOMS

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="not a checkout")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [code for named, code in found if named == language]


def test_the_method_shown_works(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    code, _ = blocks("python")
    made: dict[str, Any] = {"__name__": "layerwise"}
    exec(code, made)
    monkeypatch.setitem(METHODS, "layerwise", made["layerwise"])
    ticket = load_method("layerwise:fine_tune=1")(load_task("digits", epochs=2), 0.75)
    assert ticket.epochs == 3
    assert all(density == 0.25 for density in ticket.mask.layer_densities().values())
    weights = dict(ticket.model.named_parameters())
    assert all((weights[name][~kept] == 0).all() for name, kept in ticket.mask.items())


def test_the_order_shown_works() -> None:
    _, code = blocks("python")
    made: dict[str, Any] = {"__name__": "relative"}
    exec(code, made)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    batches = [(torch.randn(64, 6), torch.randint(3, (64,)))]
    assert howsparse.measure(model, batches, order=made["relative"], max_drop=0.2).order == "relative"
    before = howsparse.rank(model, made["relative"]).mask(0.5)
    scores = howsparse.rank(model, made["relative"]).scores
    assert all(score.mean() == pytest.approx(1.0) for score in scores.values())
    with torch.no_grad():
        model.get_parameter("0.weight").mul_(64)  # a power of two, so that nothing is rounded
    after = howsparse.rank(model, made["relative"]).mask(0.5)
    assert all(torch.equal(before[name], kept) for name, kept in after.items())


def test_the_diagram_has_the_rooms_from_the_ground_up() -> None:
    house = blocks("")[0]
    assert re.findall(r"^(\w+)  +\S", house, re.MULTILINE) == ROOMS


def test_the_recipe_shown_is_the_one_there_is() -> None:
    (recipe,) = blocks("yaml")
    file = PAGE.parent / "src" / "howsparse" / "tasks" / "recipes" / "fc5-cifar10.yaml"
    assert yaml.safe_load(recipe) == yaml.safe_load(file.read_text())
