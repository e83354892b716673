"""The paper's tasks and the embedded digits: a network, its data, and the recipe that trains it."""

from howsparse.tasks.recipe import Recipe, load_recipe, recipe_names
from howsparse.tasks.task import load_task

__all__ = ["Recipe", "load_recipe", "load_task", "recipe_names"]
