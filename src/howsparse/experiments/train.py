"""Train a task as its recipe says."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from howsparse.risk.evaluate import evaluate
from howsparse.risk.weights import prunable_weights
from howsparse.tasks import Recipe, Task
from howsparse.training import Epoch, attach_l1, fit

__all__ = ["Trained", "train_task"]


@dataclass(frozen=True)
class Trained:
    """A trained network with its test accuracy, its training loss (both in evaluation mode) and its history."""

    model: nn.Module
    recipe: Recipe
    seed: int
    loss: float
    accuracy: float | None
    history: list[Epoch]

    def summary(self) -> dict[str, object]:
        """What a record keeps."""
        return {
            "kind": "train",
            "task": self.recipe.name,
            "recipe": self.recipe.model_dump(mode="json"),
            "recipe_hash": self.recipe.digest(),
            "seed": self.seed,
            "train_loss": self.loss,
            "dense_accuracy": self.accuracy,
            "seconds": sum(epoch.seconds for epoch in self.history),
            "history": {
                "loss": [round(epoch.loss, 6) for epoch in self.history],
                "accuracy": [None if epoch.accuracy is None else round(epoch.accuracy, 6) for epoch in self.history],
            },
        }


def train_task(
    task: Task,
    seed: int = 0,
    checkpoint: Path | None = None,
    *,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Trained:
    """Train ``task``'s network from its initialisation.

    Raises:
        InputError: the training diverged, or the checkpoint is of another model or cannot be read.
    """
    recipe = task.recipe
    model = task.network(seed)
    optimizer = task.optimizer(model)
    if recipe.l1:
        attach_l1(optimizer, prunable_weights(model).values(), recipe.l1, proximal=recipe.proximal)
    history = fit(
        model,
        optimizer,
        task.epochs(seed),
        recipe.epochs,
        factor=task.rate,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
        seed=seed,
    )
    loss, _ = evaluate(model, task.train_batches(1000))
    _, accuracy = evaluate(model, task.test_batches())
    return Trained(model, recipe, seed, loss, accuracy, history)
