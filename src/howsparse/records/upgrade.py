"""Conversion of lines that earlier versions wrote to the present schema."""

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from howsparse.errors import InputError
from howsparse.records.cases import CaseKey, key_hash
from howsparse.records.origin import portable_command
from howsparse.records.types import SCHEMA_VERSION

__all__ = ["settings_hash", "upgrade"]

Line = dict[str, Any]

_HEAD = ("command", "commit", "machine", "versions")
_ANSWER_ABOUT = ("kind", "model", "seed", "images", "weights")  # fields of a limit's line that are not its answer
_STUDY = ("dense_accuracy", "dense_loss", "measured", "measured_by_accuracy", "seconds", "curves", "weights", "scaled")
_STUDY_ANSWER = ("num_weights", "tolerance", "upper_bound", "upper_low", "upper_high", "products", "stopped")


def upgrade(line: Line) -> Line:
    """Convert a line to the present schema.

    Lines of version 0 have no ``schema_version``, and other names for the predicted sparsity.

    Raises:
        InputError: a newer version wrote the line.
        KeyError: the line lacks a field of its kind.
    """
    version = line.get("schema_version", 0)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise InputError(
            f"schema version {version} is newer than {SCHEMA_VERSION}, the newest that this howsparse reads; upgrade it"
        )
    return line if version else _from_0(line)


def settings_hash(settings: Mapping[str, object]) -> str:
    """Short digest of a problem's settings, without its data.

    Args:
        settings: settings by name, as JSON values.

    Returns:
        12 hexadecimal digits.

    >>> len(settings_hash({"epochs": 5}))
    12
    """
    return key_hash(settings)[:12]


def _from_0(line: Line) -> Line:
    kind = line.get("kind", "limit")
    if kind == "limit" and "num_weights" not in line:
        kind = "limit_benchmark"
    makers: dict[str, Callable[[Line], Line]] = {
        "train": _train,
        "limit": _answer,
        "prune": _answer,
        "method": _case,
        "run": _case,
        "iteration": _iteration,
    }
    body = makers.get(kind, _measurement)(line)
    made = {name: line[name] for name in _HEAD} | {"command": _portable(line["command"])}
    return {"kind": kind, "schema_version": SCHEMA_VERSION, **body, "made": made}


def _portable(command: str) -> str:
    """The command without folders of its machine, and with the present names of methods' options."""
    words = shlex.split(command)
    return portable_command([",".join(map(_method, word.split(","))) if "rate=" in word else word for word in words])


def _measurement(line: Line) -> Line:
    """Records of benchmarks: the same fields with their present names."""
    names = {name: name.replace("certified", "predicted") for name in line if name not in (*_HEAD, "kind")}
    return {new: line[old] for old, new in names.items()}


def _answer(line: Line) -> Line:
    answer = {name: value for name, value in line.items() if name not in (*_HEAD, *_ANSWER_ABOUT, "certified")}
    about = {
        "model": line["model"],
        "seed": line["seed"],
        "examples": line.get("images"),
        "weights": line.get("weights"),
    }
    return about | {"answer": answer | {"predicted": line["certified"]}}


def _train(line: Line) -> Line:
    same = ("seed", "train_loss", "dense_accuracy", "seconds", "weights")
    return {
        "problem": line["task"],
        "settings": _settings(line["recipe"]),
        **{name: line[name] for name in same},
        "loss": line["history"]["loss"],
        "accuracy": line["history"]["accuracy"],
    }


def _case(line: Line) -> Line:
    settings = _settings(line["recipe"])
    key = CaseKey.model_validate(
        {
            "kind": line["kind"],
            "problem": line["task"],
            "settings_hash": settings_hash(settings),
            "data": line.get("data"),
            "examples": line["limit_images"],
            "limit": {"max_products": line["limit_max_products"]},
            "method": _method(line["method"]),
            "target": "predicted" if line["target"] == "certified" else line["target"],
            "seed": line["seed"],
        }
    )
    same = ("refused", "sparsity", "accuracy", "loss", "epochs", "trainings", "training_seconds", "seconds")
    return {
        "key": key.model_dump(mode="json"),
        "hash": key.hash,
        "settings": settings,
        "train_examples": line.get("train_images"),
        **{name: line[name] for name in same if name in line},
        "history": [_stage(stage) for stage in line.get("history", [])],
        **({"study": _study(line["study"])} if "study" in line else {}),
    }


def _study(study: Line) -> Line:
    answer = {name: study[name] for name in _STUDY_ANSWER if name in study}
    answer |= {name: study[name] for name in ("limit", "limit_low", "limit_high")} | {"predicted": study["certified"]}
    rest = {name: study[name] for name in _STUDY}
    return {"answer": answer, **rest, "rows": study["rows"], "history": [_stage(stage) for stage in study["history"]]}


def _stage(stage: Line) -> Line:
    limits = stage.get("limits")
    if limits is None:
        return stage
    answer = {
        "limit": limits["limit"],
        "limit_low": limits["low"],
        "limit_high": limits["high"],
        "upper_bound": limits["upper_bound"],
        "predicted": limits["certified"],
        "products": limits["products"],
    }
    return stage | {"limits": answer}


def _iteration(line: Line) -> Line:
    same = ("epochs", "seed", "target", "method", "steps", "accuracy")
    return {"problem": line["task"], "examples": line["images"], **{name: line[name] for name in same}}


def _method(name: str) -> str:
    """A method's name with the present names of its options."""
    if name.startswith("lottery_ticket:"):
        return re.sub(r"\brate=", "fraction=", name)
    return re.sub(r"\brate=", "learning_rate=", name)


def _settings(recipe: Line) -> Line:
    """A recipe's settings in the form of `Problem.settings`."""
    fit = ("learning_rate", "momentum", "weight_decay", "schedule", "proximal")
    return {
        "network": recipe["network"],
        "epochs": recipe["epochs"],
        "l1": recipe["l1"],
        "loss": {"name": "howsparse.risk.losses.CrossEntropy"},
        "fit": {name: recipe[name] for name in fit},
        "train": {"batch_size": recipe["batch_size"], "augment": recipe["augment"]},
    }
