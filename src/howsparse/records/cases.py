"""The record of a run of a method, and the key that identifies the run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from howsparse.limit.options import LimitOptions
from howsparse.methods.ticket import Stage
from howsparse.records.types import Record, Strict, Study

__all__ = ["CaseKey", "CaseRecord", "key_hash"]


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

    >>> about = {"kind": "method", "problem": "digits", "settings_hash": "0123456789ab", "data": None, "examples": None}
    >>> def key(seed):
    ...     return CaseKey(**about, limit=LimitOptions(), method="random", target=0.9, seed=seed)
    >>> key(seed=0).hash == key(seed=0).hash, key(seed=0).hash == key(seed=1).hash
    (True, False)
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
        key: the key that identifies this run.
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

    >>> from howsparse.records import provenance
    >>> about = {"kind": "method", "problem": "digits", "settings_hash": "0123456789ab", "data": None, "examples": None}
    >>> key = CaseKey(**about, limit=LimitOptions(), method="random", target=0.9, seed=0)
    >>> results = {"settings": {"epochs": 5}, "train_examples": 1437, "sparsity": 0.9, "accuracy": 0.85, "epochs": 5}
    >>> CaseRecord(kind="method", made=provenance(), key=key, hash=key.hash, **results).accuracy
    0.85
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
