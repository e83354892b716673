"""A task of this package as a problem: its recipe's network, images and training."""

from dataclasses import dataclass

import torch
from torch import nn

from howsparse.errors import InputError
from howsparse.parallel import own_device
from howsparse.problem import Problem, Training
from howsparse.risk.weights import prunable_weights
from howsparse.tasks.data import Batches, Images, ShuffledBatches, load_images
from howsparse.tasks.networks import NETWORKS, kaiming_normal_
from howsparse.tasks.recipe import Recipe, change_recipe, load_recipe

__all__ = ["RecipeNetwork", "load_task"]

_STUDY_BATCH = 1000  # images in a batch of limits and measurements


@dataclass(frozen=True)
class RecipeNetwork:
    """Makes a recipe's network, with He et al.'s initialisation.

    Attributes:
        name: in `howsparse.tasks.networks.NETWORKS`.
        num_weights: prunable weights that the network must have.
        device: where it is made.
    """

    name: str
    num_weights: int
    device: torch.device

    def __call__(self) -> nn.Module:
        model = NETWORKS[self.name]()
        kaiming_normal_(model)
        count = sum(w.numel() for w in prunable_weights(model).values())
        if count != self.num_weights:
            raise InputError(f"network {self.name} has {count:,} weights, its recipe says {self.num_weights:,}")
        if self.device.type == "cuda":  # the order of dimensions that a GPU convolves fastest in
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.to(self.device)

    def settings(self) -> str:
        """What records call it."""
        return self.name


def load_task(name: str, source: str | None = None, **changes: object) -> Problem:
    """A task as a problem; its images are loaded, onto the GPU if there is one.

    Args:
        name: of the task.
        source: a hub name, or a local folder in the same schema; the recipe's own unless given.
        **changes: fields of the recipe to change, for example ``epochs=5`` or ``l1=0.0``.

    Raises:
        InputError: no such task or field, or its data cannot be loaded.

    >>> task = load_task("digits", epochs=5)
    >>> task.num_examples, task.epochs
    (1437, 5)
    """
    recipe = change_recipe(load_recipe(name), changes)
    device = own_device()
    train, test = (images.to(device) for images in load_images(recipe.data, source))
    return task_problem(recipe, train, test)


def task_problem(recipe: Recipe, train: Images, test: Images) -> Problem:
    """The problem that a recipe describes, on these images."""
    return Problem(
        network=RecipeNetwork(recipe.network, recipe.num_weights, train.pixels.device),
        train=ShuffledBatches(train, recipe.batch_size, recipe.augment),
        test=Batches(test, _STUDY_BATCH),
        fit=Training(recipe.learning_rate, recipe.momentum, recipe.weight_decay, recipe.schedule, recipe.proximal),
        epochs=recipe.epochs,
        l1=recipe.l1,
        name=recipe.name,
        study=Batches(train, _STUDY_BATCH),
    )
