"""The method that CONTRIBUTING shows is run as it stands, and its diagram has the rooms that there are."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from howsparse.methods import METHODS, load_method
from howsparse.tasks import load_task
from test_rooms import ROOMS

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="not a checkout")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [code for named, code in found if named == language]


def test_the_method_shown_works(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    (code,) = blocks("python")
    made: dict[str, Any] = {"__name__": "layerwise"}
    exec(code, made)
    monkeypatch.setitem(METHODS, "layerwise", made["layerwise"])
    ticket = load_method("layerwise:fine_tune=1")(load_task("digits", epochs=2), 0.75)
    assert ticket.epochs == 3
    assert all(density == 0.25 for density in ticket.mask.layer_densities().values())
    weights = dict(ticket.model.named_parameters())
    assert all((weights[name][~kept] == 0).all() for name, kept in ticket.mask.items())


def test_the_diagram_has_the_rooms_from_the_ground_up() -> None:
    house = blocks("")[0]
    assert re.findall(r"^(\w+)  +\S", house, re.MULTILINE) == ROOMS


def test_the_recipe_shown_is_the_one_there_is() -> None:
    (recipe,) = blocks("yaml")
    file = PAGE.parent / "src" / "howsparse" / "tasks" / "recipes" / "fc5-cifar10.yaml"
    assert yaml.safe_load(recipe) == yaml.safe_load(file.read_text())
