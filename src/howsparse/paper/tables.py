"""The paper's three tables, from records of runs, with the paper's numbers beside them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from howsparse.errors import InputError

__all__ = ["PAPER", "TASKS", "as_paper", "settings", "studies", "table"]

Record = dict[str, Any]
Row = dict[str, Any]

TASKS = {
    "fc5-cifar10": "FC5 / CIFAR-10",
    "fc12-cifar10": "FC12 / CIFAR-10",
    "alexnet-cifar10": "AlexNet / CIFAR-10",
    "vgg16-cifar10": "VGG16 / CIFAR-10",
    "resnet18-cifar100": "ResNet18 / CIFAR-100",
    "resnet50-cifar100": "ResNet50 / CIFAR-100",
    "resnet18-tinyimagenet": "ResNet18 / TinyImageNet",
    "resnet50-tinyimagenet": "ResNet50 / TinyImageNet",
}

# Tables 1, 2 and 3 of the paper, per cent. Table 3 in the order of its columns.
PAPER: dict[str, dict[str, str]] = {
    "fc5-cifar10": {
        "bounds": "0.25 ± 0.09", "limit": "97.9 ± 0.25", "measured": "98.3 ± 0.12", "difference": "-0.40 ± 0.35",
        "sparsity": "98.3", "dense": "55.3 ± 0.62",
        "one_shot": "59.96 ± 0.45", "rare_gems": "58.76 ± 0.15", "lottery_ticket": "38.71 ± 2.25", "smart_ratio": "-",
    },
    "fc12-cifar10": {
        "bounds": "0.03 ± 0.02", "limit": "99.0 ± 0.30", "measured": "99.2 ± 0.06", "difference": "-0.15 ± 0.26",
        "sparsity": "99.0", "dense": "55.5 ± 0.26",
        "one_shot": "60.84 ± 0.21", "rare_gems": "54.96 ± 0.28", "lottery_ticket": "10.00 ± 0.00", "smart_ratio": "-",
    },
    "alexnet-cifar10": {
        "bounds": "0.02 ± 0.01", "limit": "99.1 ± 0.00", "measured": "99.2 ± 0.08", "difference": "-0.14 ± 0.08",
        "sparsity": "99.3", "dense": "89.60 ± 0.31",
        "one_shot": "90.55 ± 0.04", "rare_gems": "85.55 ± 0.11", "lottery_ticket": "21.65 ± 2.63",
        "smart_ratio": "10.00 ± 0.00",
    },
    "vgg16-cifar10": {
        "bounds": "0.01 ± 0", "limit": "99.2 ± 0.06", "measured": "99.2 ± 0.06", "difference": "0.04 ± 0.08",
        "sparsity": "99.4", "dense": "90.73 ± 0.22",
        "one_shot": "91.66 ± 0.08", "rare_gems": "87.66 ± 0.11", "lottery_ticket": "86.59 ± 0.21",
        "smart_ratio": "10.00 ± 0.00",
    },
    "resnet18-cifar100": {
        "bounds": "0.01 ± 0.01", "limit": "98.5 ± 0.05", "measured": "98.0 ± 0.13", "difference": "0.54 ± 0.15",
        "sparsity": "98.1", "dense": "72.19 ± 0.23",
        "one_shot": "71.82 ± 0.09", "rare_gems": "67.52 ± 0.30", "lottery_ticket": "64.42 ± 0.20",
        "smart_ratio": "66.50 ± 0.24",
    },
    "resnet50-cifar100": {
        "bounds": "0.01 ± 0.01", "limit": "98.1 ± 0.05", "measured": "97.9 ± 0.16", "difference": "0.28 ± 0.19",
        "sparsity": "98.0", "dense": "74.07 ± 0.43",
        "one_shot": "75.22 ± 0.11", "rare_gems": "70.96 ± 0.23", "lottery_ticket": "61.17 ± 0.45",
        "smart_ratio": "66.99 ± 0.21",
    },
    "resnet18-tinyimagenet": {
        "bounds": "0.31 ± 0.08", "limit": "96.1 ± 0.82", "measured": "95.7 ± 0.38", "difference": "0.46 ± 0.71",
        "sparsity": "95.8", "dense": "52.92 ± 0.13",
        "one_shot": "55.42 ± 0.02", "rare_gems": "37.14 ± 0.20", "lottery_ticket": "55.02 ± 0.27",
        "smart_ratio": "53.28 ± 0.25",
    },
    "resnet50-tinyimagenet": {
        "bounds": "0.27 ± 0.11", "limit": "97.4 ± 0.24", "measured": "97.1 ± 0.33", "difference": "0.36 ± 0.10",
        "sparsity": "97.1", "dense": "56.45 ± 0.17",
        "one_shot": "57.49 ± 0.01", "rare_gems": "36.78 ± 0.13", "lottery_ticket": "49.35 ± 1.27",
        "smart_ratio": "53.65 ± 0.34",
    },
}  # fmt: skip
METHODS = ("one_shot", "rare_gems", "lottery_ticket", "smart_ratio")


def table(number: int, records: list[Record]) -> list[Row]:
    """One row for each task, number of epochs and of training images that runs of it are recorded for.

    Runs of other than the paper's epochs and images are rows of their own, never mixed with those; ``as_paper`` tells.

    Args:
        number: 1 (the two bounds), 2 (limit and measured) or 3 (methods).
        records: of kind "run".

    Raises:
        InputError: there is no such table.
    """
    makers: dict[int, Callable[[list[Record]], Row]] = {1: _bounds, 2: _prediction, 3: _methods}
    if number not in makers:
        raise InputError(f"there is no table {number}; the paper has 1, 2 and 3")
    return [
        {"task": task, "epochs": epochs, "images": images, "as_paper": as_paper(task, epochs, images)}
        | makers[number](group)
        for (task, epochs, images), group in settings(records).items()
    ]


def settings(records: list[Record]) -> dict[tuple[str, int, int], list[Record]]:
    """Runs of the paper's tasks by task, epochs and training images; in the paper's order, the longest first."""
    groups: dict[tuple[str, int, int], list[Record]] = {}
    for record in records:
        if record.get("kind") == "run" and record["task"] in TASKS:
            setting = record["task"], record["recipe"]["epochs"], record["train_images"]
            groups.setdefault(setting, []).append(record)
    order = sorted(groups, key=lambda setting: (list(TASKS).index(setting[0]), -setting[1], -setting[2]))
    return {setting: groups[setting] for setting in order}


def as_paper(task: str, epochs: int, images: int) -> bool:
    """Whether a run was as long, and on as many images, as the paper's."""
    return epochs == 200 and images == (100_000 if task.endswith("tinyimagenet") else 50_000)


def _bounds(records: list[Record]) -> Row:
    found = studies(records)
    differences = [100 * (study["limit"] - study["upper_bound"]) for study in found]
    bracketed = [study for study in found if "upper_low" in study]  # the first records have none
    open_ = [100 * (study["limit"] - study[end]) for study in bracketed for end in ("upper_high", "upper_low")]
    return {
        "seeds": len(found),
        "difference": _spread(differences),
        "bracket": [min(open_), max(open_)] if open_ else None,
        "paper": _paper(records, "bounds"),
    }


def _prediction(records: list[Record]) -> Row:
    found = studies(records)
    limits = [100 * study["limit"] for study in found]
    measured = [100 * study["measured_by_accuracy"] for study in found]
    return {
        "seeds": len(found),
        "limit": _spread(limits),
        "bracket": [100 * min(s["limit_low"] for s in found), 100 * max(s["limit_high"] for s in found)],
        "certified": _spread([100 * study["certified"] for study in found]),
        "measured": _spread(measured),
        "measured_by_loss": _spread([100 * study["measured"] for study in found]),
        "difference": _spread([a - b for a, b in zip(limits, measured, strict=True)]),
        **{f"paper_{name}": _paper(records, name) for name in ("limit", "measured", "difference")},
    }


def _methods(records: list[Record]) -> Row:
    row: Row = {"seeds": len(studies(records))}
    named = {method: [r for r in records if r["method"].partition(":")[0] == method] for method in ("dense", *METHODS)}
    for method, runs in named.items():
        accuracies = [100 * run["accuracy"] for run in runs if "accuracy" in run]
        row[method] = _spread(accuracies) if accuracies else None
        row[f"paper_{method}"] = _paper(records, method)
    pruned = [100 * run["sparsity"] for run in records if run["method"] != "dense" and "sparsity" in run]
    return row | {"sparsity": _spread(pruned) if pruned else None, "paper_sparsity": _paper(records, "sparsity")}


def studies(records: list[Record]) -> list[Record]:
    """One for each seed."""
    return list({record["seed"]: record["study"] for record in records}.values())


def _paper(records: list[Record], name: str) -> str:
    return PAPER[records[0]["task"]][name]


def _spread(values: list[float]) -> dict[str, float | None]:
    """Mean and sample deviation; of one value, none."""
    return {"mean": float(np.mean(values)), "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None}
