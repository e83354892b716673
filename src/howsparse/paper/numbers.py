"""The paper's own numbers, read from a YAML file whose every field is checked."""

from functools import cache
from importlib import resources
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

__all__ = ["METHODS", "PaperTask", "paper_tasks"]

METHODS = ("dense", "one_shot", "rare_gems", "lottery_ticket", "smart_ratio")  # columns of Table 3

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
    """What the paper prints for one task, in per cent; "-" where it prints nothing.

    Attributes:
        title: of the task.
        epochs: of one training.
        images: training images.
        bounds: difference between the two bounds (Table 1).
        limit: predicted limit (Table 2).
        measured: limit found by pruning and testing (Table 2).
        difference: limit - measured (Table 2).
        sparsity: that all methods are pruned to (Table 3).
        accuracy: of each method (Table 3).
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
