"""The numbers that the paper prints, from a YAML file in which every field is checked."""

from functools import cache
from importlib import resources
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

__all__ = ["METHODS", "PaperTask", "paper_tasks"]

METHODS = ("dense", "one_shot", "rare_gems", "lottery_ticket", "smart_ratio")  # the columns of the paper's Table 3

Printed = Annotated[str, Field(pattern=r"^(-|-?\d+(\.\d+)?( ± \d+(\.\d+)?)?)$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PaperAccuracy(_Strict):
    """Table 3: test accuracy of each method, in per cent."""

    dense: Printed
    one_shot: Printed
    rare_gems: Printed
    lottery_ticket: Printed
    smart_ratio: Printed


class PaperTask(_Strict):
    """The numbers that the paper prints for one task, in per cent; "-" if it prints none.

    Attributes:
        title: title of the task.
        epochs: number of epochs of one training.
        images: number of training images.
        bounds: difference between the two bounds (Table 1).
        limit: predicted limit (Table 2).
        measured: limit found by pruning and testing (Table 2).
        difference: limit - measured (Table 2).
        sparsity: sparsity to which all methods prune (Table 3).
        accuracy: test accuracy of each method (Table 3).
    """

    title: str
    epochs: int
    images: int
    bounds: Printed
    limit: Printed
    measured: Printed
    difference: Printed
    sparsity: Printed
    accuracy: PaperAccuracy


@cache
def paper_tasks() -> dict[str, PaperTask]:
    """The paper's tasks by name, in the paper's order.

    >>> paper_tasks()["fc5-cifar10"].limit
    '97.9 ± 0.25'
    """
    text = (resources.files("howsparse.paper") / "numbers.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, PaperTask]).validate_python(yaml.safe_load(text))
