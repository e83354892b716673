"""The paper's three tables, made from records of runs, with the paper's numbers."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from howsparse.errors import InputError
from howsparse.limit.bracket import RESOLVED_WIDTH
from howsparse.limit.summary import LimitSummary
from howsparse.paper.numbers import METHODS, paper_tasks
from howsparse.records import CaseRecord, Study

__all__ = [
    "TABLE_METHODS",
    "BoundsRow",
    "MethodsRow",
    "PaperRow",
    "PredictionRow",
    "Setting",
    "Spread",
    "settings",
    "studies",
    "table",
]

TABLE_METHODS = (*METHODS, "random")  # columns of Table 3; the paper has no column of random masks

_NARROW = 0.1  # points; a wider bracket of the difference has no middle in Table 1
_SAME_SPARSITY = 0.001  # Table 3: methods that were pruned to a fraction this near to the limit are in its row


@dataclass(frozen=True)
class Setting:
    """The settings of some runs.

    Attributes:
        task: name of the task.
        epochs: number of epochs of one training.
        images: number of training images.
        as_paper: whether epochs and images are those of the paper.
    """

    task: str
    epochs: int
    images: int
    as_paper: bool


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over the seeds; the deviation of one value is None."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class BoundsRow:
    """Table 1: the difference between the two bounds, in points of sparsity.

    Attributes:
        setting: of the runs.
        seeds: number of seeds.
        difference: (1 - T) - (1 - U); None unless the brackets of all seeds are narrow.
        bracket: interval that contains the differences of the seeds with a bracket; None if nothing is known, because
            the limits are not resolved, or the records have no bracket of U.
        trivial: whether the upper end of the bracket is T itself, which no difference exceeds.
        paper: the paper's value.
    """

    setting: Setting
    seeds: int
    difference: Spread | None
    bracket: tuple[float, float] | None
    trivial: bool
    paper: str

    def as_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return _flat(self)


@dataclass(frozen=True)
class PredictionRow:
    """Table 2: the limit and the measured sparsities, in per cent.

    Attributes:
        setting: of the runs.
        seeds: number of seeds.
        limit: middle of the limit's bracket.
        bracket: lowest and highest end of the brackets of all seeds.
        predicted: largest sparsity with a predicted loss increase of at most the tolerance.
        measured: largest sparsity with a test accuracy of at least that of the dense network.
        measured_by_loss: largest sparsity with a training loss increase of at most the tolerance.
        difference: limit - measured.
        paper_limit, paper_measured, paper_difference: the paper's values.
    """

    setting: Setting
    seeds: int
    limit: Spread | None
    bracket: tuple[float, float]
    predicted: Spread | None
    measured: Spread | None
    measured_by_loss: Spread | None
    difference: Spread | None
    paper_limit: str
    paper_measured: str
    paper_difference: str

    def as_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return _flat(self)


@dataclass(frozen=True)
class MethodsRow:
    """Table 3: test accuracy of each method, in per cent.

    Attributes:
        setting: of the runs.
        seeds: number of seeds.
        accuracy: test accuracy by method, the paper's methods and random masks; None for a method without runs.
        options: options that were given to the methods, by method; "" for none.
        paper_accuracy: the paper's values, by method; it has none for random masks.
        sparsity: sparsity of the pruned networks, in per cent.
        paper_sparsity: the paper's value.
    """

    setting: Setting
    seeds: int
    accuracy: dict[str, Spread | None]
    options: dict[str, str]
    paper_accuracy: dict[str, str]
    sparsity: Spread | None
    paper_sparsity: str

    def as_json(self) -> dict[str, Any]:
        """The row as JSON values. For each method there are two keys: its name, and "paper_" with its name.

        ``options`` has the options of the methods that were given some.
        """
        fields = _flat(self)
        ours, papers = fields.pop("accuracy"), fields.pop("paper_accuracy")
        fields["options"] = {name: given for name, given in self.options.items() if given}
        return {**fields, **ours, **{f"paper_{name}": printed for name, printed in papers.items()}}


PaperRow = BoundsRow | PredictionRow | MethodsRow


def table(number: int, records: Sequence[CaseRecord]) -> list[PaperRow]:
    """Make the rows of a table: one for each task, number of epochs and number of training images.

    Runs whose epochs or images differ from the paper's are in separate rows with ``row.setting.as_paper`` False.

    Args:
        number: 1 (the two bounds), 2 (limit and measured) or 3 (methods).
        records: of kind "run", which have a study; records of other tasks are left out. Table 3 also counts those of
            kind "method" that were trained like a run, and are dense or within 0.1 points of its sparsity.

    Raises:
        InputError: there is no such table.
    """
    makers: dict[int, Callable[[Setting, list[CaseRecord]], PaperRow]] = {1: _bounds, 2: _prediction, 3: _methods}
    if number not in makers:
        raise InputError(f"there is no table {number}; choose 1, 2 or 3")
    found = settings(records)
    if number == 3:
        found = {setting: runs + _without_study(setting, runs, records) for setting, runs in found.items()}
    return [makers[number](setting, runs) for setting, runs in found.items()]


def settings(records: Sequence[CaseRecord]) -> dict[Setting, list[CaseRecord]]:
    """The runs of the paper's tasks, grouped by setting. Tasks are in the paper's order, the longest training first."""
    tasks = paper_tasks()
    groups: dict[Setting, list[CaseRecord]] = {}
    for record in records:
        if record.kind == "run" and record.key.problem in tasks:
            groups.setdefault(_setting(record), []).append(record)
    places = {task: place for place, task in enumerate(tasks)}
    order = sorted(groups, key=lambda setting: (places[setting.task], -setting.epochs, -setting.images))
    return {setting: groups[setting] for setting in order}


def studies(records: Sequence[CaseRecord]) -> list[Study]:
    """The studies of the dense networks, one for each seed."""
    found = {record.key.seed: record.study for record in records if record.study is not None}
    return list(found.values())


def _without_study(setting: Setting, runs: list[CaseRecord], records: Sequence[CaseRecord]) -> list[CaseRecord]:
    """The records of kind "method" that belong in a row of Table 3: same training, and the sparsity of its runs."""
    sparsities = [run.sparsity for run in runs if run.key.method != "dense" and run.sparsity is not None]
    return [
        record
        for record in records
        if record.kind == "method" and record.key.problem == setting.task and _setting(record) == setting
        if record.key.method == "dense"
        or (record.sparsity is not None and any(abs(record.sparsity - s) <= _SAME_SPARSITY for s in sparsities))
    ]


def _setting(record: CaseRecord) -> Setting:
    task, epochs, images = record.key.problem, int(record.settings["epochs"]), record.train_examples or 0
    paper = paper_tasks()[task]
    return Setting(task, epochs, images, as_paper=(epochs, images) == (paper.epochs, paper.images))


def _bounds(setting: Setting, records: list[CaseRecord]) -> BoundsRow:
    found = studies(records)
    known = [ends for ends in (_difference(study.answer) for study in found) if ends is not None]
    narrow = [ends for ends in known if not ends[2] and ends[1] - ends[0] <= _NARROW]
    return BoundsRow(
        setting,
        seeds=len(found),
        # A mean over some of the seeds would leave out those that are hardest to compute.
        difference=_spread([(low + high) / 2 for low, high, _ in narrow]) if len(narrow) == len(found) else None,
        bracket=(min(low for low, *_ in known), max(high for _, high, _ in known)) if known else None,
        trivial=any(trivial for *_, trivial in known),
        paper=paper_tasks()[setting.task].bounds,
    )


def _difference(answer: LimitSummary) -> tuple[float, float, bool] | None:
    """Bracket of (1 - T) - (1 - U) in points, and whether its upper end is T itself; None if nothing is known."""
    limit, low, high = answer.limit, answer.upper_low, answer.upper_high
    if limit is None or low is None or high is None or answer.limit_high - answer.limit_low > RESOLVED_WIDTH:
        return None
    return 100 * (limit - high), 100 * (limit - low), low <= 1 - 2 * (1 - limit) + 1e-9


def _prediction(setting: Setting, records: list[CaseRecord]) -> PredictionRow:
    found, paper = studies(records), paper_tasks()[setting.task]
    # Every task of the paper has accuracies, so this leaves out no record.
    pairs = [(study.answer.limit, study.measured_by_accuracy) for study in found]
    measured = [100 * accuracy for _, accuracy in pairs if accuracy is not None]
    resolved = [(100 * limit, 100 * a) for limit, a in pairs if limit is not None and a is not None]
    return PredictionRow(
        setting,
        seeds=len(found),
        limit=_spread([100 * limit for limit, _ in pairs if limit is not None]),
        bracket=(100 * min(s.answer.limit_low for s in found), 100 * max(s.answer.limit_high for s in found)),
        predicted=_spread([100 * study.answer.predicted for study in found]),
        measured=_spread(measured),
        measured_by_loss=_spread([100 * study.measured for study in found]),
        difference=_spread([limit - sparsity for limit, sparsity in resolved]),
        paper_limit=paper.limit,
        paper_measured=paper.measured,
        paper_difference=paper.difference,
    )


def _methods(setting: Setting, records: list[CaseRecord]) -> MethodsRow:
    paper = paper_tasks()[setting.task]
    by_method = {
        method: [run for run in records if run.key.method.partition(":")[0] == method] for method in TABLE_METHODS
    }
    pruned = [run.sparsity for run in records if run.key.method != "dense" and run.sparsity is not None]
    return MethodsRow(
        setting,
        seeds=len(studies(records)),
        accuracy={
            method: _spread([100 * run.accuracy for run in runs if run.accuracy is not None])
            for method, runs in by_method.items()
        },
        options={
            method: "; ".join(sorted({run.key.method.partition(":")[2] for run in runs} - {""}))
            for method, runs in by_method.items()
        },
        paper_accuracy=paper.accuracy.model_dump() | {"random": "-"},
        sparsity=_spread([100 * sparsity for sparsity in pruned]),
        paper_sparsity=paper.sparsity,
    )


def _spread(values: list[float]) -> Spread | None:
    """Mean and sample deviation; None without values."""
    if not values:
        return None
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def _flat(row: PaperRow) -> dict[str, Any]:
    """A row's fields, with those of its setting first."""
    fields = asdict(row)
    setting: dict[str, Any] = fields.pop("setting")
    return setting | fields
