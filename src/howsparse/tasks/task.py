"""A task, ready to train: its recipe, its network at initialisation, and its images."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from howsparse.errors import InputError
from howsparse.parallel import own_device
from howsparse.risk.weights import prunable_weights
from howsparse.tasks.data import Batches, Images, ShuffledBatches, load_images
from howsparse.tasks.networks import NETWORKS, kaiming_normal_
from howsparse.tasks.recipe import Recipe, check_recipe, load_recipe
from howsparse.training.schedule import Schedule, learning_rate_factors

__all__ = ["Task", "load_task"]


@dataclass(frozen=True)
class Task:
    """A recipe with its images in memory; its networks are made where the images are."""

    recipe: Recipe
    train: Images
    test: Images

    def with_recipe(self, **changes: object) -> "Task":
        """The same data under a changed recipe, for example ``task.with_recipe(l1=0.0)``."""
        return replace(self, recipe=check_recipe(self.recipe.model_dump() | changes, self.recipe.name))

    def to(self, device: torch.device) -> "Task":
        """The same task on ``device``."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    @property
    def device(self) -> torch.device:
        return self.train.pixels.device

    def network(self, seed: int = 0) -> nn.Module:
        """The network at its initialisation; torch's own random state is left as it was."""
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            model = NETWORKS[self.recipe.network]()
            kaiming_normal_(model)
        count = sum(w.numel() for w in prunable_weights(model).values())
        if count != self.recipe.num_weights:
            raise InputError(f"{self.recipe.name}: the network has {count:,} weights, its recipe says otherwise")
        if self.device.type == "cuda":  # the order of dimensions that a GPU convolves fastest in
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.to(self.device)

    def optimizer(self, model: nn.Module) -> torch.optim.SGD:
        """The recipe's optimizer for all parameters of ``model``; l1 and masks are attached to it."""
        recipe = self.recipe
        return torch.optim.SGD(
            model.parameters(), recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )

    def rate(self, epoch: int) -> float:
        """What the recipe's schedule multiplies the learning rate by."""
        factors = learning_rate_factors(Schedule(**self.recipe.schedule.model_dump()), self.recipe.epochs)
        return factors[min(epoch, len(factors) - 1)]  # a training that goes on longer keeps the last one

    def epochs(self, seed: int = 0) -> ShuffledBatches:
        """Training passes: ``epochs(seed)(epoch)`` yields the batches of one."""
        return ShuffledBatches(self.train, self.recipe.batch_size, seed, self.recipe.augment)

    def train_batches(self, size: int = 128, images: int | None = None) -> Batches:
        """The training images as they are, without augmentation; the first ``images`` of them."""
        return Batches(self.train if images is None else self.train.first(images), size)

    def test_batches(self, size: int = 1000) -> Batches:
        """The test images."""
        return Batches(self.test, size)


def load_task(name: str, source: str | None = None) -> Task:
    """Read a task's recipe and its data, onto the GPU if there is one.

    Args:
        name: of the task.
        source: a hub name, or a local folder in the same schema; the recipe's own unless given.

    Raises:
        InputError: no such task, or its data cannot be loaded.

    >>> task = load_task("digits")
    >>> len(task.train), len(task.test)
    (1437, 360)
    """
    recipe = load_recipe(name)
    train, test = load_images(recipe.data, source)
    return Task(recipe, train, test).to(own_device())
