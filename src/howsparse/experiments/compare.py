"""Methods side by side: every method at every sparsity, over seeds, as records; and the table they make."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from howsparse.errors import UnsuitableNetwork
from howsparse.experiments.study import study
from howsparse.limit.compute import Progress
from howsparse.methods import Run, Sparsity, Stages, Ticket, load_method
from howsparse.records import key_hash
from howsparse.tasks import Task

__all__ = ["Case", "cases", "compare", "find_record", "rows", "run_case", "run_whole"]


@dataclass(frozen=True)
class Case:
    """One run: a method with its options, the sparsity asked for, a seed."""

    method: str
    target: Sparsity
    seed: int


def cases(methods: Iterable[str], targets: Iterable[Sparsity], seeds: int) -> list[Case]:
    """All of them; one run of the dense network serves every sparsity.

    Raises:
        InputError: an unknown method or option.
    """
    methods, targets = list(methods), list(targets)
    for method in methods:
        load_method(method)
    return [
        Case(method, target, seed)
        for seed in range(seeds)
        for method in methods
        for target in (targets if method != "dense" else [0.0])
    ]


def run_case(task: Task, case: Case, run: Run, kind: str = "method") -> dict[str, Any]:
    """Run it; a record of what came out. A method that the task's network does not suit is recorded as refused."""
    key = _key(task, case, run, kind)
    about = key | {
        "hash": key_hash(key),
        "task": task.recipe.name,
        "recipe": task.recipe.model_dump(mode="json"),
        "train_images": len(task.train),
    }
    began = time.perf_counter()
    try:
        # A word is one number for all methods, as in the paper's Table 3.
        sparsity = Stages(task, case.seed, run).target(case.target)
        ticket = load_method(case.method)(task, sparsity, case.seed, run)
    except UnsuitableNetwork as error:
        return about | {"refused": str(error)}
    return about | outcome(ticket) | {"seconds": round(time.perf_counter() - began, 3)}


def run_whole(task: Task, case: Case, run: Run, progress: Progress = lambda stage, done, total: None) -> dict[str, Any]:
    """`run_case` with the study of the task's dense network beside it: one line for all of the paper's tables."""
    studied = study(task, case.seed, run, progress)
    return run_case(task, case, run, "run") | {"study": studied}


def outcome(ticket: Ticket) -> dict[str, Any]:
    """What a record keeps of a ticket."""
    return {
        "sparsity": ticket.mask.sparsity,
        "accuracy": ticket.accuracy,
        "loss": ticket.loss,
        "epochs": ticket.epochs,
        "trainings": len(ticket.history),
        "training_seconds": round(sum(stage.seconds for stage in ticket.history), 3),
        "history": [asdict(stage) for stage in ticket.history],
    }


def compare(
    task: Task,
    wanted: list[Case],
    run: Run,
    recorded: list[dict[str, Any]],
    on_case: Callable[[Case, bool], None] = lambda case, known: None,
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Each case's record, and whether it is new; those in ``recorded`` are not run again."""
    for case in wanted:
        known = find_record(recorded, task, case, run)
        on_case(case, known is not None)
        yield (run_case(task, case, run), True) if known is None else (known, False)


def find_record(
    records: list[dict[str, Any]], task: Task, case: Case, run: Run, kind: str = "method"
) -> dict[str, Any] | None:
    """The record of a case, if it is among ``records``."""
    key = _key(task, case, run, kind)
    return next((r for r in records if all(r.get(name) == value for name, value in key.items())), None)


def _key(task: Task, case: Case, run: Run, kind: str) -> dict[str, Any]:
    """What makes a case this one."""
    return {
        "kind": kind,
        "recipe_hash": task.recipe.digest(),
        "data": task.train.digest,
        "limit_images": run.images,
        "limit_max_products": run.max_products,
        **asdict(case),
    }


def rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each method and sparsity asked for, over its seeds."""
    groups: dict[tuple[str, Sparsity], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["method"], record["target"]), []).append(record)
    return [{"method": method, "target": target} | _row(group) for (method, target), group in groups.items()]


def _row(group: list[dict[str, Any]]) -> dict[str, Any]:
    refused = next((record["refused"] for record in group if "refused" in record), None)
    if refused is not None:
        return {"refused": refused}
    accuracies = np.array([record["accuracy"] for record in group])
    return {
        "seeds": [record["seed"] for record in group],
        "sparsity": float(np.mean([record["sparsity"] for record in group])),
        "accuracy": float(accuracies.mean()),
        "accuracy_deviation": float(accuracies.std(ddof=1)) if len(group) > 1 else None,
        "accuracies": accuracies.tolist(),
        "epochs": float(np.mean([record["epochs"] for record in group])),
        "trainings": float(np.mean([record["trainings"] for record in group])),
    }
