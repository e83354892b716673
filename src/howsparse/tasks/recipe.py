"""Recipes: how a task's network is trained, as YAML files whose every field is checked."""

from collections.abc import Mapping
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from howsparse.errors import InputError
from howsparse.training import Schedule

__all__ = ["Recipe", "change_recipe", "check_recipe", "load_recipe", "recipe_names"]


_FIXED = ("name", "network", "num_weights", "data")  # fields that make a recipe this one
_FOLDER = resources.files("howsparse.tasks") / "recipes"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Strict):
    source: str = Field(description="'digits', or a dataset's name on the hub or folder in the hub's schema")
    image: str = Field(default="img", description="column that holds the image")
    label: str = Field(default="label", description="column that holds the class")
    train: str = Field(default="train", description="split to train on")
    test: str = Field(default="test", description="split to test on")
    mean: tuple[float, ...] = Field(description="per channel, of pixels in [0, 1]")
    std: tuple[float, ...] = Field(description="per channel, of pixels in [0, 1]")


class Recipe(_Strict):
    """One task, whole: what `howsparse train NAME` does."""

    name: str = Field(description="the task's name on the command line")
    network: str = Field(description="a name in howsparse.tasks.networks.NETWORKS")
    num_weights: int = Field(gt=0, description="prunable weights the network must have")
    data: Data = Field(description="images to train and test on")
    epochs: int = Field(gt=0, description="passes over the training images")
    batch_size: int = Field(default=128, gt=0, description="images in a step")
    learning_rate: float = Field(gt=0, description="of SGD, before the schedule")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD")
    schedule: Schedule = Field(default=Schedule(), description="what the learning rate is multiplied by in each epoch")
    l1: float = Field(default=0.0, ge=0, description="strength of the l1 term, loss per absolute weight")
    proximal: bool = Field(default=False, description="soft-threshold after the step instead of the subgradient")
    weight_decay: float = Field(default=0.0, ge=0, description="of SGD, on all parameters")
    augment: bool = Field(default=False, description="random crop with padding 4, and horizontal flip")


def recipe_names() -> list[str]:
    """Names that `load_recipe` knows."""
    return sorted(file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml"))


def load_recipe(name: str) -> Recipe:
    """Read and check the recipe of a task.

    Raises:
        InputError: no such task, or a field that does not validate.

    >>> load_recipe("fc5-cifar10").l1
    5e-05
    """
    file = _FOLDER / f"{name}.yaml"
    if not file.is_file():
        raise InputError(f"no task is called '{name}'; choose from: {', '.join(recipe_names())}")
    return check_recipe(yaml.safe_load(file.read_text()), file.name)


def check_recipe(fields: object, name: str) -> Recipe:
    """The recipe with these fields.

    Raises:
        InputError: a field that does not validate; the first is named.
    """
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"recipe {name}, field '{where}': {first['msg']}") from error


def change_recipe(recipe: Recipe, changes: Mapping[str, object]) -> Recipe:
    """The recipe with some fields changed.

    Args:
        recipe: the task's.
        changes: values by field; the fields that make the task itself cannot be changed.

    Raises:
        InputError: a field that does not exist, is fixed, or does not validate.

    >>> change_recipe(load_recipe("digits"), {"epochs": 5}).epochs
    5
    """
    fixed = [name for name in changes if name in _FIXED]
    if fixed:
        raise InputError(f"recipe {recipe.name}, field '{fixed[0]}', makes the task and cannot be changed")
    return check_recipe(recipe.model_dump() | dict(changes), recipe.name)
