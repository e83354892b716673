"""Summaries of recorded comparisons: a row for each method and sparsity, and a table for each problem."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from howsparse.methods import Sparsity
from howsparse.records import CaseKey, CaseRecord

__all__ = ["Row", "rows", "tables"]


@dataclass(frozen=True)
class Row:
    """The results of a method at one target sparsity, over its seeds.

    Attributes:
        method: name of the method with its options.
        target: target sparsity, a fraction or the name of an answer.
        refused: why the method cannot be used for the network; if it is set, the other results are not.
        seeds: seeds of the runs.
        sparsity: mean sparsity of the pruned networks.
        accuracy: mean test accuracy; None if the loss has no ``score``.
        accuracy_deviation: standard deviation of the accuracy over the seeds; None for one seed.
        accuracies: test accuracy for each seed.
        test_loss: mean test loss; None if the records do not contain it.
        epochs: mean number of epochs of all trainings together.
        trainings: mean number of trainings.

    >>> Row("dense", 0.0, None, (0, 1), 0.0, 0.975, 0.007, (0.97, 0.98), 0.1, 5.0, 1.0).accuracy
    0.975
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


def rows(records: list[CaseRecord]) -> list[Row]:
    """Summarise records of one problem: one row for each method and target sparsity, over its seeds.

    A record that is there twice counts once.

    Args:
        records: records of one problem.

    Returns:
        The rows, in the order in which their first record appears.

    >>> import torch
    >>> from torch import nn
    >>> from howsparse import Problem
    >>> from howsparse.experiments.compare import cases, run_case
    >>> from howsparse.methods import Run
    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> problem = Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=1)
    >>> records = [run_case(problem, case, Run()) for case in cases(["random"], [0.5, 0.75], seeds=2)]
    >>> [(row.method, row.sparsity, row.seeds) for row in rows(records)]
    [('random', 0.5, (0, 1)), ('random', 0.75, (0, 1))]
    """
    groups: dict[tuple[str, Sparsity], list[CaseRecord]] = {}
    for record in {record.key.hash: record for record in records}.values():
        groups.setdefault((record.key.method, record.key.target), []).append(record)
    return [_row(method, target, group) for (method, target), group in groups.items()]


def tables(records: list[CaseRecord]) -> list[tuple[str, list[Row]]]:
    """Summarise records of several problems: the title and the rows of a table for each.

    Only runs whose keys differ in nothing but method, sparsity and seed are in one table. So a problem has a table for
    each of its settings, data and options of limits, and the titles say in which settings these differ.

    Args:
        records: records of any problems.

    Returns:
        Pairs of a title and its rows.

    >>> import torch
    >>> from torch import nn
    >>> from howsparse import Problem
    >>> from howsparse.experiments.compare import Case, run_case
    >>> from howsparse.methods import Run
    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> records = []
    >>> for epochs in (1, 2):
    ...     problem = Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=epochs, name="mine")
    ...     records.append(run_case(problem, Case("random", 0.5, seed=0), Run()))
    >>> [title for title, _ in tables(records)]
    ['mine, epochs 1', 'mine, epochs 2']
    """
    groups: dict[str, list[CaseRecord]] = {}
    for record in records:
        groups.setdefault(_about(record.key).hash, []).append(record)
    firsts = [group[0] for group in groups.values()]
    return [(_title(group[0], firsts), rows(group)) for group in groups.values()]


def _about(key: CaseKey) -> CaseKey:
    """A key that is the same for all runs of one table."""
    return key.model_copy(update={"kind": "run", "method": "", "target": 0.0, "seed": 0})


def _title(record: CaseRecord, others: list[CaseRecord]) -> str:
    """The name of a record's problem, and the settings in which it differs from others of this name."""
    same = [_told(other) for other in others if other.key.problem == record.key.problem]
    told = _told(record)
    odd = [name for name in told if any(other.get(name) != told[name] for other in same)]
    return ", ".join([record.key.problem, *(f"{name} {told[name]}" for name in odd)])


def _told(record: CaseRecord) -> dict[str, Any]:
    """What a table's title can name: the settings, the data and the options of limits."""
    key = record.key
    return {
        **record.settings,
        "data": key.data,
        "images": key.examples or "all",
        "max_products": key.limit.max_products,
    }


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
