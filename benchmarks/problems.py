"""A task's images, and its network trained densely, as several benchmarks need them."""

from pathlib import Path

from torch import nn

from howsparse.methods import Run, Stages
from howsparse.problem import Problem
from howsparse.tasks.data import Batches, Images, ShuffledBatches

__all__ = ["test_images", "train_dense", "train_images"]


def train_images(problem: Problem) -> Images:
    """The training images of a task's problem."""
    assert isinstance(problem.train, ShuffledBatches), f"{problem.name} is not a task of this package"
    return problem.train.images


def test_images(problem: Problem) -> Images:
    """The test images of a task's problem."""
    assert isinstance(problem.test, Batches), f"{problem.name} is not a task of this package"
    return problem.test.images


def train_dense(problem: Problem, seed: int = 0, folder: Path | None = None) -> nn.Module:
    """The problem's network, trained with the problem's l1 term.

    Args:
        problem: what to train.
        seed: of initialisation and batches.
        folder: where the training is kept; nowhere unless given.
    """
    model = problem.initial(seed)
    Stages(problem, seed, Run(folder)).train("dense with l1", model, l1=problem.l1)
    return model
