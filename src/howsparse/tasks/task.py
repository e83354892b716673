"""`load_task`: make a problem from a task's recipe, with its network, images and training."""

from dataclasses import dataclass

import torch
from torch import nn

from howsparse.errors import InputError
from howsparse.parallel import own_device
from howsparse.problem import Problem, Training
from howsparse.risk.fitting import check_fits
from howsparse.risk.weights import prunable_weights
from howsparse.tasks.data import Batches, Images, ShuffledBatches, load_images
from howsparse.tasks.networks import NETWORKS, kaiming_normal_
from howsparse.tasks.recipe import Recipe, change_recipe, load_recipe

__all__ = ["RecipeNetwork", "load_task"]

_STUDY_BATCH = 1000  # images in a batch for limits and measurements


@dataclass(frozen=True)
class RecipeNetwork:
    """A function that makes a recipe's network with He et al.'s initialisation.

    Attributes:
        name: name of the network in `howsparse.tasks.networks.NETWORKS`.
        num_weights: expected number of prunable weights.
        device: device of the network.
    """

    name: str
    num_weights: int
    device: torch.device

    def __call__(self) -> nn.Module:
        model = NETWORKS[self.name]()
        kaiming_normal_(model)
        count = sum(w.numel() for w in prunable_weights(model).values())
        if count != self.num_weights:
            raise InputError(
                f"network {self.name} has {count:,} weights, its recipe says {self.num_weights:,}; correct num_weights"
            )
        if any(isinstance(module, nn.Conv2d) for module in model.modules()):  # fastest in this memory format
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.to(self.device)

    def settings(self) -> str:
        """The name of the network, for records."""
        return self.name


def load_task(name: str, source: str | None = None, **changes: object) -> Problem:
    """Load a task as a problem. Its images are on the GPU if there is one.

    Args:
        name: name of the task; NAME@authors trains as the code of the paper's authors does.
        source: name of a data set on the hub, or a local folder with the same columns; by default the recipe's.
        **changes: fields of the recipe to change, for example ``epochs=5`` or ``l1=0.0``.

    Returns:
        The problem of the task.

    Raises:
        InputError: the task or field does not exist, or the data cannot be loaded or do not fit the network.

    >>> task = load_task("digits", epochs=5)
    >>> task.num_examples, task.epochs
    (1437, 5)
    """
    recipe = change_recipe(load_recipe(name), changes)
    device = own_device()
    train, test = (images.to(device) for images in load_images(recipe.data, source))
    problem = task_problem(recipe, train, test)
    model = problem.initial()
    for images, split in ((train, recipe.data.train), (test, recipe.data.test)):
        first = images.first(2)
        two = first.normalised(first.pixels), first.labels
        batches = [two, (two[0], images.labels)]  # the first is computed; of all, the labels are checked
        check_fits(model, batches, problem.loss, f"split '{split}' of the data of {name}")
    return problem


def task_problem(recipe: Recipe, train: Images, test: Images) -> Problem:
    """Make the problem of a recipe.

    Args:
        recipe: network and training.
        train: training images.
        test: test images.
    """
    return Problem(
        network=RecipeNetwork(recipe.network, recipe.num_weights, train.pixels.device),
        train=ShuffledBatches(train, recipe.batch_size, recipe.augment),
        test=Batches(test, _STUDY_BATCH),
        fit=Training(
            recipe.learning_rate,
            recipe.momentum,
            recipe.weight_decay,
            recipe.schedule,
            recipe.proximal,
            recipe.l1_scope,
        ),
        epochs=recipe.epochs,
        l1=recipe.l1,
        name=recipe.name,
        study=Batches(train, _STUDY_BATCH),
    )
