"""The types of records, one for each kind. All have the same first fields."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from howsparse.limit.options import LimitOptions
from howsparse.limit.result import LimitSummary
from howsparse.methods.ticket import Stage
from howsparse.records.origin import Provenance

__all__ = [
    "SCHEMA_VERSION",
    "AnswerRecord",
    "CaseKey",
    "CaseRecord",
    "Curve",
    "Curves",
    "Histogram",
    "IterationRecord",
    "IterationStep",
    "Measurement",
    "PredictedCurve",
    "Record",
    "RowNorms",
    "ScaledLimits",
    "Study",
    "TrainRecord",
    "WeightStatistics",
    "key_hash",
]

SCHEMA_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Record(_Strict):
    """The fields of every record: its kind, the schema version, and the command, commit, machine and versions."""

    kind: str
    schema_version: int = SCHEMA_VERSION
    made: Provenance


class Measurement(Record):
    """A record of a benchmark, with additional fields."""

    model_config = ConfigDict(extra="allow", frozen=True, ser_json_inf_nan="constants")


class TrainRecord(Record):
    """A training by ``howsparse train``; losses and accuracies of the history are in training mode."""

    kind: Literal["train"] = "train"
    problem: str
    settings: dict[str, Any]
    seed: int
    train_loss: float
    dense_accuracy: float | None
    seconds: float
    loss: list[float]
    accuracy: list[float | None]
    weights: str


class AnswerRecord(Record):
    """The answer of ``howsparse limit`` or ``howsparse prune`` for one network."""

    kind: Literal["limit", "prune"]
    model: str
    seed: int
    examples: int | None = None
    weights: str | None = None
    answer: dict[str, Any]


class Curve(_Strict):
    """A measured curve: loss and accuracy of pruned networks, by sparsity."""

    sparsity: list[float]
    loss: list[float]
    accuracy: list[float | None]


class PredictedCurve(_Strict):
    """Predicted loss increase by sparsity."""

    sparsity: list[float]
    increase: list[float]


class Curves(_Strict):
    """Figure 3: the measured curves on training and test data, and the predicted one."""

    train: Curve
    test: Curve
    predicted: PredictedCurve


class Histogram(_Strict):
    """Counts of equal bins between two weights."""

    counts: list[int]
    low: float
    high: float


class WeightStatistics(_Strict):
    """Figure 2: histogram of the weights, and squared norm of the removed weights by density."""

    histogram: Histogram
    density: list[float]
    squared_radius: list[float]


class ScaledLimits(_Strict):
    """Appendix E.1: the limit for weights that are multiplied by a factor; None where it is not resolved."""

    factor: list[float]
    limit: list[float | None]
    limit_low: list[float]
    limit_high: list[float]


class RowNorms(_Strict):
    """Appendix B: l1 norms of Hessian rows, by the percentile of their weight's magnitude."""

    percentile: list[float]
    norm: list[float]


class Study(_Strict):
    """The study of a problem's dense network, for Tables 1 and 2 and all figures except Figure 4."""

    answer: LimitSummary
    dense_accuracy: float | None
    dense_loss: float
    measured: float
    measured_by_accuracy: float | None
    seconds: float
    curves: Curves
    weights: WeightStatistics
    scaled: ScaledLimits
    rows: RowNorms
    history: list[Stage]


class CaseKey(_Strict):
    """The key of a run of a method. A run with a recorded key is not repeated.

    Records of the first version have no ``data``, so their keys differ from all new keys.
    """

    kind: Literal["method", "run"]
    problem: str
    settings_hash: str
    data: str | None
    examples: int | None
    limit: LimitOptions
    method: str
    target: float | str
    seed: int

    @property
    def hash(self) -> str:
        """Short digest of the key. Records of several files with the same digest are merged."""
        return key_hash(self.model_dump(mode="json"))


class CaseRecord(Record):
    """A run of a method on a problem: its results, or the reason why it was refused.

    Records of kind "run" also contain the study. A field is None if a record of an earlier version does not have it.
    """

    kind: Literal["method", "run"]
    key: CaseKey
    hash: str
    settings: dict[str, Any]
    train_examples: int | None
    refused: str | None = None
    sparsity: float | None = None
    accuracy: float | None = None
    loss: float | None = None
    test_loss: float | None = None
    epochs: int = 0
    trainings: int = 0
    training_seconds: float = 0.0
    history: list[Stage] = Field(default=[])
    seconds: float = 0.0
    study: Study | None = None


class IterationStep(_Strict):
    """The state before one step of a method: the density, and the fractions of weights that must stay and that stay."""

    density: float
    needed: float
    needed_low: float
    needed_high: float
    stays: float


class IterationRecord(Record):
    """Figure 4: the limit along the steps of an iterative method."""

    kind: Literal["iteration"] = "iteration"
    problem: str
    epochs: int
    seed: int
    examples: int | None
    target: float
    method: str
    steps: list[IterationStep]
    accuracy: float | None


def key_hash(key: Mapping[str, object]) -> str:
    """Short digest of a key.

    >>> key_hash({"task": "digits", "seed": 0}) == key_hash({"seed": 0, "task": "digits"})
    True
    """
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
