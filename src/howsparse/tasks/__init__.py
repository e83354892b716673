"""The paper's tasks and the digits of scikit-learn. A task is a network, its data and a recipe for training."""

from howsparse.tasks.recipe import Recipe, load_recipe, recipe_names
from howsparse.tasks.task import load_task

__all__ = ["Recipe", "load_recipe", "load_task", "recipe_names"]
