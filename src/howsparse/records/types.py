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
    "Measurement",
    "PredictedCurve",
    "Record",
    "RowNorms",
    "ScaledLimits",
    "Strict",
    "Study",
    "TrainRecord",
    "WeightStatistics",
    "key_hash",
]

SCHEMA_VERSION = 1


class Strict(BaseModel):
    """A value that cannot be changed, and that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Record(Strict):
    """The fields of every record.

    Attributes:
        kind: what was recorded, for example "train".
        schema_version: version of the fields.
        made: the command, commit, machine and versions.
    """

    kind: str
    schema_version: int = SCHEMA_VERSION
    made: Provenance


class Measurement(Record):
    """A record of a benchmark, with additional fields.

    >>> from howsparse.records.origin import provenance
    >>> Measurement(kind="speed", made=provenance("make bench"), seconds=0.5).seconds
    0.5
    """

    model_config = ConfigDict(extra="allow", frozen=True, ser_json_inf_nan="constants")


class TrainRecord(Record):
    """A training by ``howsparse train``; losses and accuracies of the history are in training mode.

    Attributes:
        kind: "train".
        problem: name of the problem.
        settings: settings of the training, as `Problem.settings` gives them.
        seed: seed of initialisation and batches.
        train_loss: loss on the training data at the end, in evaluation mode.
        dense_accuracy: accuracy on the test data; None if the loss has no ``score``.
        seconds: time of the training, in seconds.
        loss: mean training loss of each epoch.
        accuracy: training accuracy of each epoch.
        weights: file of the weights.
    """

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
    """The answer of ``howsparse limit`` or ``howsparse prune`` for one network.

    Attributes:
        kind: "limit" or "prune".
        model: the model, as on the command line.
        seed: seed of the probes.
        examples: number of examples; None if all were used.
        weights: file of the weights; None if there is none.
        answer: what ``--json`` prints.
    """

    kind: Literal["limit", "prune"]
    model: str
    seed: int
    examples: int | None = None
    weights: str | None = None
    answer: dict[str, Any]


class Curve(Strict):
    """A measured curve: loss and accuracy of pruned networks, by sparsity."""

    sparsity: list[float]
    loss: list[float]
    accuracy: list[float | None]


class PredictedCurve(Strict):
    """Predicted loss increase by sparsity."""

    sparsity: list[float]
    increase: list[float]


class Curves(Strict):
    """Figure 3: the measured curves on training and test data, and the predicted one."""

    train: Curve
    test: Curve
    predicted: PredictedCurve


class Histogram(Strict):
    """Counts of equal bins between two weights."""

    counts: list[int]
    low: float
    high: float


class WeightStatistics(Strict):
    """Figure 2: histogram of the weights, and squared norm of the removed weights by density."""

    histogram: Histogram
    density: list[float]
    squared_radius: list[float]


class ScaledLimits(Strict):
    """Appendix E.1: the limit for weights that are multiplied by a factor; None where it is not resolved."""

    factor: list[float]
    limit: list[float | None]
    limit_low: list[float]
    limit_high: list[float]


class RowNorms(Strict):
    """Appendix B: l1 norms of Hessian rows, by the percentile of their weight's magnitude."""

    percentile: list[float]
    norm: list[float]


class Study(Strict):
    """The study of a problem's dense network, for Tables 1 and 2 and all figures except Figure 4.

    Attributes:
        answer: the limit's numbers.
        dense_accuracy: accuracy of the dense network on the test data.
        dense_loss: its loss on the training data.
        measured: largest sparsity whose measured loss increase is at most the tolerance.
        measured_by_accuracy: largest evaluated sparsity whose test accuracy is at least the dense network's.
        seconds: time of the study, in seconds.
        curves: loss and accuracy against sparsity.
        weights: statistics of the weights' magnitudes.
        scaled: limits of networks whose weights were scaled.
        rows: l1 norms of sampled rows of the Hessian.
        history: all trainings in order.
    """

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


class CaseKey(Strict):
    """The key of a run of a method. A run with a recorded key is not repeated.

    Records of the first version have no ``data``, so their keys differ from all new keys.

    Attributes:
        kind: "method", or "run" if the record also has the study of the dense network.
        problem: name of the problem.
        settings_hash: digest of the problem's settings.
        data: digest of the data.
        examples: number of examples for limits; None if all are used.
        limit: options of limits.
        method: name of the method with its options.
        target: sparsity as a fraction, or the name of an answer.
        seed: seed of initialisation, batches and masks.
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

    Attributes:
        kind: "method" or "run".
        key: what tells this run from all others.
        hash: digest of the key.
        settings: settings of the problem.
        train_examples: number of training examples.
        refused: why the method cannot be used for the network.
        sparsity: sparsity of the pruned network.
        accuracy: accuracy on the test data.
        loss: loss on the training data.
        test_loss: loss on the test data.
        epochs: number of epochs of all trainings together.
        trainings: number of trainings.
        training_seconds: time of all trainings, in seconds.
        history: all trainings in order.
        seconds: time of the run, in seconds.
        study: the study of the dense network.
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


def key_hash(key: Mapping[str, object]) -> str:
    """Short digest of a key.

    >>> key_hash({"task": "digits", "seed": 0}) == key_hash({"seed": 0, "task": "digits"})
    True
    """
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
