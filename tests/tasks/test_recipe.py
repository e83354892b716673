"""Recipes: every file loads, every mistake is one line."""

from importlib import resources
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import BaseModel, ValidationError

from howsparse.errors import InputError
from howsparse.tasks import recipe as module
from howsparse.tasks.networks import NETWORKS
from howsparse.tasks.recipe import Recipe, change_recipe, load_recipe, recipe_names
from howsparse.training.schedule import learning_rate_factors

FILES = {Path(str(file)).stem: file for file in (resources.files("howsparse.tasks") / "recipes").iterdir()}

GOOD: dict[str, object] = {
    "name": "toy",
    "network": "digits_mlp",
    "num_weights": 6464,
    "data": {"source": "digits", "mean": [0.5], "std": [0.5]},
    "epochs": 3,
    "learning_rate": 0.1,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "_FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("schema", [Recipe, module.Data])
def test_every_field_is_described(schema: type[BaseModel]) -> None:
    assert [name for name, field in schema.model_fields.items() if not field.description] == []


def test_every_file_has_a_name() -> None:
    assert recipe_names() == sorted(FILES)
    assert {"digits", "fc5-cifar10"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_every_recipe_says_what_its_file_says(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    written = yaml.safe_load(FILES[name].read_text())
    dumped = recipe.model_dump(mode="json")
    for field, value in written.items():
        if isinstance(value, dict):
            assert {key: dumped[field][key] for key in value} == value
        else:
            assert dumped[field] == value
    assert len(recipe.data.mean) == len(recipe.data.std)
    with torch.device("meta"):
        weights = [p for p in NETWORKS[recipe.network]().parameters() if p.ndim > 1]
    assert sum(w.numel() for w in weights) == recipe.num_weights
    assert 0 < learning_rate_factors(recipe.schedule, recipe.epochs)[0] <= 1


def test_the_authors_variant_differs_in_two_settings() -> None:
    plain, theirs = load_recipe("resnet18-cifar100"), load_recipe("resnet18-cifar100@authors")
    assert (theirs.l1_scope, theirs.schedule.unit) == ("all", "iteration")
    same = {"l1_scope": "prunable", "name": plain.name, "schedule": plain.schedule}
    assert theirs.model_copy(update=same) == plain
    with pytest.raises(InputError, match="no task is called 'mnist'"):
        load_recipe("mnist@authors")


def test_unknown_task() -> None:
    with pytest.raises(InputError, match=r"no task is called 'mnist'; choose from: .*digits.*fc5-cifar10") as caught:
        load_recipe("mnist")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": "many"}, "epochs"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"l1": -1e-5}, "l1"),
        ({"lerning_rate": 0.1}, "lerning_rate"),
        ({"schedule": {"kind": "linear"}}, r"schedule\.kind"),
        ({"data": {"source": "digits", "mean": [0.5]}}, r"data\.std"),
        ({"data": {"source": "digits", "mean": ["a"], "std": [1]}}, r"data\.mean\.0"),
    ],
)
def test_a_wrong_field_is_one_line(folder: Path, change: dict[str, object], field: str) -> None:
    (folder / "toy.yaml").write_text(yaml.safe_dump(GOOD))
    assert load_recipe("toy").epochs == 3
    (folder / "toy.yaml").write_text(yaml.safe_dump(GOOD | change))
    with pytest.raises(InputError, match=rf"recipe toy\.yaml, field '{field}': ") as caught:
        load_recipe("toy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["name", "network", "num_weights", "data", "epochs", "learning_rate"])
def test_a_missing_field_is_named(folder: Path, field: str) -> None:
    (folder / "toy.yaml").write_text(yaml.safe_dump({key: value for key, value in GOOD.items() if key != field}))
    with pytest.raises(InputError, match=f"field '{field}': .*required"):
        load_recipe("toy")


def test_changes_are_checked_like_a_file() -> None:
    recipe = Recipe.model_validate(GOOD)
    changed = change_recipe(recipe, {"epochs": 7, "schedule": {"kind": "cosine"}})
    assert (changed.epochs, changed.schedule.kind, changed.learning_rate) == (7, "cosine", 0.1)
    assert change_recipe(recipe, {}) == recipe
    for field in ("name", "network", "num_weights", "data"):
        with pytest.raises(InputError, match=f"field '{field}', makes the task and cannot be changed"):
            change_recipe(recipe, {field: GOOD[field]})
    with pytest.raises(InputError, match="field 'epoch'"):
        change_recipe(recipe, {"epoch": 7})


def test_recipes_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_recipe("digits").epochs = 1  # type: ignore[misc]
