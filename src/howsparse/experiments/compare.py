"""Comparison of methods: run every method at every sparsity for several seeds, and record the runs."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from howsparse.errors import InputError, UnsuitableNetwork
from howsparse.experiments.study import study
from howsparse.limit.options import Answer
from howsparse.methods import Run, Sparsity, Stages, Ticket, load_method
from howsparse.methods.stages import parse_sparsity
from howsparse.problem import Problem
from howsparse.records import CaseKey, CaseRecord, provenance, settings_hash

__all__ = ["MOST_SEEDS", "Case", "cases", "compare", "find_record", "run_case"]

Kind = Literal["method", "run"]
MOST_SEEDS = 10_000  # a list of more cases would fill the memory


@dataclass(frozen=True)
class Case:
    """One run: a method with its options, the target sparsity, and a seed.

    Attributes:
        method: name of the method with its options.
        target: sparsity as a fraction, or the name of an answer.
        seed: seed of initialisation, batches and masks.

    >>> Case("lottery_ticket:rewind=2", 0.9, seed=0).target
    0.9
    """

    method: str
    target: Sparsity
    seed: int


def cases(methods: Iterable[str], targets: Iterable[Sparsity], seeds: int) -> list[Case]:
    """List the cases of a comparison: every method at every sparsity for seeds 0, 1, ...

    The dense network has one case for each seed, because it does not depend on the sparsity.

    Args:
        methods: names of methods, with options after a colon; duplicates are removed.
        targets: fractions or names of answers; duplicates are removed.
        seeds: number of seeds.

    Returns:
        The cases in the order in which to run them.

    Raises:
        InputError: a method, option, sparsity or number of seeds is not valid.

    >>> [case.target for case in cases(["dense", "random"], ["0.9", 0.90], 1)]
    [0.0, 0.9]
    """
    if not 1 <= seeds <= MOST_SEEDS:
        raise InputError(f"seeds {seeds} is not between 1 and {MOST_SEEDS:,}; give the number of runs of each case")
    methods, parsed = list(dict.fromkeys(methods)), list(dict.fromkeys(parse_sparsity(target) for target in targets))
    for method in methods:
        load_method(method)
    return [
        Case(method, str(target) if isinstance(target, Answer) else target, seed)
        for seed in range(seeds)
        for method in methods
        for target in (parsed if method != "dense" else [0.0])
    ]


def run_case(problem: Problem, case: Case, run: Run, *, whole: bool = False, command: str | None = None) -> CaseRecord:
    """Run a method and make its record.

    Args:
        problem: the problem to train.
        case: method, sparsity and seed.
        run: folder, options of limits, and callbacks.
        whole: whether the record also contains the study of the dense network, which the paper's tables need.
        command: command for the record; by default that of this process.

    Returns:
        The record. If the method cannot be used for the network, ``refused`` contains the reason.

    >>> import torch
    >>> from torch import nn
    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> problem = Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=1)
    >>> run_case(problem, Case("one_shot", 0.75, seed=0), Run()).sparsity
    0.75
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
        # "limit" and "predicted" are the same number for all methods, as in the paper's Table 3.
        sparsity = Stages(problem, case.seed, run).target(case.target)
        about |= outcome(load_method(case.method)(problem, sparsity, case.seed, run))
        about["seconds"] = round(time.perf_counter() - began, 3)
    except UnsuitableNetwork as error:
        about["refused"] = str(error)
    return CaseRecord(made=provenance(command), **about)


def outcome(ticket: Ticket) -> dict[str, Any]:
    """The fields of a record that come from a ticket."""
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
    """Run the cases that have no record yet.

    Args:
        problem: the problem to train.
        wanted: the cases, in order.
        run: folder, options of limits, and callbacks.
        recorded: existing records; their cases are not run again.
        on_case: called as ``on_case(case, known)`` before each case; ``known`` says whether it has a record.

    Yields:
        The record of each case, and whether it is new.

    >>> import torch
    >>> from torch import nn
    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> problem = Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=1)
    >>> [(record.sparsity, new) for record, new in compare(problem, cases(["dense"], [0.5], 1), Run(), [])]
    [(0.0, True)]
    """
    for case in wanted:
        known = find_record(recorded, case_key(problem, case, run, "method"))
        on_case(case, known is not None)
        yield (run_case(problem, case, run), True) if known is None else (known, False)


def find_record(records: list[CaseRecord], key: CaseKey) -> CaseRecord | None:
    """The record with this key; None if there is none.

    Args:
        records: records to search.
        key: the key of the run.

    Returns:
        The first record with this key, or None.

    >>> import torch
    >>> from torch import nn
    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> problem = Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=1)
    >>> case = Case("dense", 0.0, seed=0)
    >>> record = run_case(problem, case, Run())
    >>> find_record([record], case_key(problem, case, Run(), "method")) is record
    True
    >>> find_record([record], case_key(problem, Case("dense", 0.0, seed=1), Run(), "method")) is None
    True
    """
    return next((record for record in records if record.key == key), None)


def case_key(problem: Problem, case: Case, run: Run, kind: Kind) -> CaseKey:
    """The key that identifies a case in records.

    Args:
        problem: the problem.
        case: method, sparsity and seed.
        run: options of limits.
        kind: "method", or "run" for a record with the study of the dense network.
    """
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
