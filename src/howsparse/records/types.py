"""The types of records, one for each kind. All have the same first fields."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from howsparse.limit.result import LimitSummary
from howsparse.methods.ticket import Stage
from howsparse.records.origin import Provenance

__all__ = [
    "SCHEMA_VERSION",
    "AnswerRecord",
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

    >>> from howsparse.records import provenance
    >>> record = Record(kind="note", made=provenance("howsparse demo"))
    >>> record.made.command, record.schema_version
    ('howsparse demo', 1)
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

    >>> from tempfile import TemporaryDirectory
    >>> from howsparse.records import append_record, provenance, read_records
    >>> results = {"train_loss": 0.4, "dense_accuracy": 0.9, "seconds": 1.5, "loss": [1.9, 0.6], "accuracy": [0.4, 0.8]}
    >>> about = {"problem": "digits", "settings": {"epochs": 2}, "seed": 0, "weights": "digits.safetensors"}
    >>> with TemporaryDirectory() as folder:
    ...     append_record(TrainRecord(made=provenance(), **about, **results), f"{folder}/runs.jsonl")
    ...     [record.dense_accuracy for record in read_records(TrainRecord, ("train",), f"{folder}/runs.jsonl")]
    [0.9]
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

    >>> from howsparse.records import provenance
    >>> made, answer = provenance("howsparse limit digits"), {"limit": 0.93, "predicted": 0.95}
    >>> AnswerRecord(kind="limit", made=made, model="digits", seed=0, answer=answer).answer["limit"]
    0.93
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

    >>> import torch
    >>> from howsparse import Problem
    >>> from howsparse.experiments.study import study
    >>> from howsparse.methods import Run
    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> problem = Problem(lambda: torch.nn.Linear(8, 3), train=batches, test=batches, epochs=1)
    >>> [stage.name for stage in study(problem, seed=0, run=Run()).history]
    ['dense with l1, for the limit']
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
