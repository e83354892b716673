"""Methods side by side: every method at every sparsity, over seeds, as records; and the table they make."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from howsparse.errors import UnsuitableNetwork
from howsparse.experiments.study import study
from howsparse.limit.options import Answer
from howsparse.methods import Run, Sparsity, Stages, Ticket, load_method
from howsparse.methods.stages import parse_sparsity
from howsparse.problem import Problem
from howsparse.records import CaseKey, CaseRecord, provenance, settings_hash

__all__ = ["Case", "Row", "cases", "compare", "find_record", "rows", "run_case"]

Kind = Literal["method", "run"]


@dataclass(frozen=True)
class Case:
    """One run: a method with its options, the sparsity asked for, a seed."""

    method: str
    target: Sparsity
    seed: int


@dataclass(frozen=True)
class Row:
    """A method at a sparsity over its seeds; only ``refused`` is set where the network does not suit the method.

    Attributes:
        method: with its options.
        target: the sparsity asked for, a fraction or a word.
        refused: why the method was not run.
        seeds: of the runs.
        sparsity: reached, mean.
        accuracy: on the test data, mean; None where the loss cannot score.
        accuracy_deviation: over the seeds; None for one seed.
        accuracies: of the seeds.
        test_loss: mean; None in records that do not hold it.
        epochs: of all trainings together, mean.
        trainings: mean.
    """

    method: str
    target: Sparsity
    refused: str | None = None
    seeds: tuple[int, ...] = ()
    sparsity: float | None = None
    accuracy: float | None = None
    accuracy_deviation: float | None = None
    accuracies: tuple[float, ...] = ()
    test_loss: float | None = None
    epochs: float | None = None
    trainings: float | None = None


def cases(methods: Iterable[str], targets: Iterable[Sparsity], seeds: int) -> list[Case]:
    """Every method at every sparsity for seeds 0, 1, ...; one run of the dense network serves every sparsity.

    Args:
        methods: names, with options after a colon.
        targets: fractions or words; one that is given twice counts once.
        seeds: how many.

    Raises:
        InputError: an unknown method or option, or something that is no sparsity.

    >>> [case.target for case in cases(["dense", "random"], ["0.9", 0.90], 1)]
    [0.0, 0.9]
    """
    methods, parsed = list(methods), list(dict.fromkeys(parse_sparsity(target) for target in targets))
    for method in methods:
        load_method(method)
    return [
        Case(method, str(target) if isinstance(target, Answer) else target, seed)
        for seed in range(seeds)
        for method in methods
        for target in (parsed if method != "dense" else [0.0])
    ]


def run_case(problem: Problem, case: Case, run: Run, *, whole: bool = False, command: str | None = None) -> CaseRecord:
    """Run a method; a record of what came out. A method that the network does not suit is recorded as refused.

    Args:
        problem: what to train.
        case: method, sparsity and seed.
        run: folder, options of limits, and callbacks.
        whole: put the study of the problem's dense network beside the result: one line for all of the paper's tables.
        command: for the record; this process's unless given.
    """
    key = case_key(problem, case, run, "run" if whole else "method")
    about: dict[str, Any] = {
        "kind": key.kind,
        "key": key,
        "hash": key.hash,
        "settings": problem.settings(),
        "train_examples": problem.num_examples,
    }
    if whole:
        about["study"] = study(problem, case.seed, run)
    began = time.perf_counter()
    try:
        # A word is one number for all methods, as in the paper's Table 3.
        sparsity = Stages(problem, case.seed, run).target(case.target)
        about |= outcome(load_method(case.method)(problem, sparsity, case.seed, run))
        about["seconds"] = round(time.perf_counter() - began, 3)
    except UnsuitableNetwork as error:
        about["refused"] = str(error)
    return CaseRecord(made=provenance(command), **about)


def outcome(ticket: Ticket) -> dict[str, Any]:
    """What a record holds of a ticket."""
    return {
        "sparsity": ticket.mask.sparsity,
        "accuracy": ticket.accuracy,
        "loss": ticket.loss,
        "test_loss": ticket.test_loss,
        "epochs": ticket.epochs,
        "trainings": len(ticket.history),
        "training_seconds": round(sum(stage.seconds for stage in ticket.history), 3),
        "history": list(ticket.history),
    }


def compare(
    problem: Problem,
    wanted: list[Case],
    run: Run,
    recorded: list[CaseRecord],
    on_case: Callable[[Case, bool], None] = lambda case, known: None,
) -> Iterator[tuple[CaseRecord, bool]]:
    """Each case's record, and whether it is new; those in ``recorded`` are not run again.

    Args:
        problem: what to train.
        wanted: the cases, in order.
        run: folder, options of limits, and callbacks.
        recorded: what is known already.
        on_case: called as ``on_case(case, known)`` before each.
    """
    for case in wanted:
        known = find_record(recorded, case_key(problem, case, run, "method"))
        on_case(case, known is not None)
        yield (run_case(problem, case, run), True) if known is None else (known, False)


def find_record(records: list[CaseRecord], key: CaseKey) -> CaseRecord | None:
    """The record of a case, if it is among ``records``."""
    return next((record for record in records if record.key == key), None)


def case_key(problem: Problem, case: Case, run: Run, kind: Kind) -> CaseKey:
    """What makes a case this one."""
    return CaseKey(
        kind=kind,
        problem=problem.name,
        settings_hash=settings_hash(problem.settings()),
        data=problem.data,
        examples=run.examples,
        limit=run.limit,
        method=case.method,
        target=case.target,
        seed=case.seed,
    )


def rows(records: list[CaseRecord]) -> list[Row]:
    """One row for each method and sparsity asked for, over its seeds."""
    groups: dict[tuple[str, Sparsity], list[CaseRecord]] = {}
    for record in records:
        groups.setdefault((record.key.method, record.key.target), []).append(record)
    return [_row(method, target, group) for (method, target), group in groups.items()]


def _row(method: str, target: Sparsity, group: list[CaseRecord]) -> Row:
    refused = next((record.refused for record in group if record.refused is not None), None)
    if refused is not None:
        return Row(method, target, refused)
    accuracies = [record.accuracy for record in group if record.accuracy is not None]
    losses = [record.test_loss for record in group if record.test_loss is not None]
    return Row(
        method,
        target,
        seeds=tuple(record.key.seed for record in group),
        sparsity=float(np.mean([record.sparsity for record in group if record.sparsity is not None])),
        accuracy=float(np.mean(accuracies)) if accuracies else None,
        accuracy_deviation=float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
        accuracies=tuple(accuracies),
        test_loss=float(np.mean(losses)) if losses else None,
        epochs=float(np.mean([record.epochs for record in group])),
        trainings=float(np.mean([record.trainings for record in group])),
    )
