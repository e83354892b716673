"""Recipes: YAML files with a task's network, data and training. Every field is checked."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from howsparse.errors import InputError
from howsparse.training import Schedule

__all__ = ["Recipe", "change_recipe", "check_recipe", "load_recipe", "recipe_names"]


_FIXED = ("name", "network", "num_weights", "data")  # fields that identify the task and cannot be changed
_FOLDER = resources.files("howsparse.tasks") / "recipes"
_AUTHORS = "@authors"  # end of the name of a task that is trained as the code of the paper's authors does


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Strict):
    source: str = Field(description="'digits', or a dataset's name on the hub or folder in the hub's schema")
    image: str = Field(default="img", description="column that holds the image")
    label: str = Field(default="label", description="column that holds the class")
    train: str = Field(default="train", description="split to train on")
    test: str = Field(default="test", description="split to test on")
    mean: tuple[float, ...] = Field(description="mean of each channel, for pixels in [0, 1]")
    std: tuple[float, ...] = Field(description="standard deviation of each channel, for pixels in [0, 1]")


class Recipe(_Strict):
    """All settings of one task, as `howsparse train NAME` uses them.

    Attributes:
        name: the task's name on the command line.
        network: a name in `howsparse.tasks.networks.NETWORKS`.
        num_weights: number of prunable weights that the network must have.
        data: images to train and test on.
        epochs: number of passes over the training images.
        batch_size: number of images in a training step.
        learning_rate: learning rate of SGD before the schedule.
        momentum: momentum of SGD.
        schedule: the factors of the learning rate in each epoch.
        l1: strength of the l1 term, loss per absolute weight.
        l1_scope: parameters with an l1 term: "prunable", the weights that can be pruned; "all", also biases and norms.
        proximal: form of the l1 term; True is a soft-threshold after each step.
        weight_decay: weight decay of SGD, for all parameters.
        augment: whether images are cropped at random after padding by 4 pixels, and flipped.

    >>> load_recipe("digits").network
    'digits_mlp'
    """

    name: str = Field(description="the task's name on the command line")
    network: str = Field(description="a name in howsparse.tasks.networks.NETWORKS")
    num_weights: int = Field(gt=0, description="prunable weights the network must have")
    data: Data = Field(description="images to train and test on")
    epochs: int = Field(gt=0, le=1_000_000, description="number of passes over the training images")
    batch_size: int = Field(default=128, gt=0, description="number of images in a training step")
    learning_rate: float = Field(gt=0, description="learning rate of SGD before the schedule")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD")
    schedule: Schedule = Field(default=Schedule(), description="factors of the learning rate in each epoch")
    l1: float = Field(default=0.0, ge=0, description="strength of the l1 term, loss per absolute weight")
    l1_scope: Literal["prunable", "all"] = Field(default="prunable", description="parameters with an l1 term")
    proximal: bool = Field(default=False, description="form of the l1 term: soft-threshold after the step")
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay of SGD, all parameters")
    augment: bool = Field(default=False, description="random crop with padding 4, and horizontal flip")


def recipe_names() -> list[str]:
    """The names of all tasks.

    Returns:
        The names in alphabetical order.

    >>> "digits" in recipe_names()
    True
    """
    return sorted(file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml"))


def load_recipe(name: str) -> Recipe:
    """Read and check the recipe of a task.

    The paper's text and the code of its authors differ in two settings: the code changes the learning rate in each
    iteration and not in each epoch, and its l1 term covers all parameters. NAME@authors is the recipe with these.

    Args:
        name: name of the task, or NAME@authors.

    Returns:
        The recipe, with defaults for the fields that its file leaves out.

    Raises:
        InputError: the task does not exist, or a field is not valid.

    >>> load_recipe("fc5-cifar10").l1
    5e-05
    >>> load_recipe("fc5-cifar10@authors").l1_scope
    'all'
    """
    task = name.removesuffix(_AUTHORS)
    file = _FOLDER / f"{task}.yaml"
    if not file.is_file():
        raise InputError(f"no task is called '{task}'; choose from: {', '.join(recipe_names())}")
    recipe = check_recipe(yaml.safe_load(file.read_text()), file.name)
    if name == task:
        return recipe
    schedule = replace(recipe.schedule, unit="iteration")
    return recipe.model_copy(update={"name": name, "schedule": schedule, "l1_scope": "all"})


def check_recipe(fields: object, name: str) -> Recipe:
    """Check ``fields``, and return the recipe with these fields; ``name`` appears in error messages.

    Raises:
        InputError: a field is not valid; the message names the first such field.
    """
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"recipe {name}, field '{where}': {first['msg']}; correct it") from error


def change_recipe(recipe: Recipe, changes: Mapping[str, object]) -> Recipe:
    """The recipe with some fields changed.

    Args:
        recipe: the recipe of a task.
        changes: new values by field; the name, the network and the data cannot be changed.

    Raises:
        InputError: a field does not exist, cannot be changed, or is not valid.

    >>> change_recipe(load_recipe("digits"), {"epochs": 5}).epochs
    5
    """
    fixed = [name for name in changes if name in _FIXED]
    if fixed:
        raise InputError(
            f"recipe {recipe.name}, field '{fixed[0]}', makes the task and cannot be changed; leave it out"
        )
    return check_recipe(recipe.model_dump() | dict(changes), recipe.name)
