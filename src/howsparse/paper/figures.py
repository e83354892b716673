"""The paper's figures from records of runs: one panel for each task, legible without colours."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from howsparse.errors import InputError
from howsparse.paper.numbers import paper_tasks
from howsparse.paper.tables import settings, studies
from howsparse.records import CaseRecord, IterationRecord, Study, read_records
from howsparse.report.plots import ACCENT, FAINT, INK, SHADE, clear_axes, sparsity_axis

__all__ = ["FIGURES", "iterations_figure", "paper_figure", "runs_figure"]


Drawn = TypeVar("Drawn")


def paper_figure(name: str, paths: Sequence[str | Path]) -> Figure:
    """Draw a figure of the paper.

    Args:
        name: "2" (weights, and the squared radius), "3" (loss and accuracy against sparsity), "4" (the limit along
            iterative pruning), "rows" (norms of Hessian rows) or "magnitudes" (the limit of larger weights).
        paths: files with the records; Figure 4 uses records of kind "iteration", the others those of kind "run".

    Raises:
        InputError: the figure does not exist, or there is no record for it.
    """
    if name not in FIGURES:
        raise InputError(f"there is no figure '{name}'; choose from: {', '.join(FIGURES)}")
    if name == "4":
        return iterations_figure(read_records(IterationRecord, ("iteration",), *paths))
    return runs_figure(name, read_records(CaseRecord, ("run",), *paths))


def runs_figure(name: str, records: Sequence[CaseRecord]) -> Figure:
    """Draw a figure that has one panel for each task, from the task's runs.

    If some runs have the paper's epochs and images, the other runs are left out. If none has, all are drawn, and their
    titles say so.

    Args:
        name: "2", "3", "rows" or "magnitudes".
        records: records of kind "run".

    Raises:
        InputError: there is no record for the figure.
    """
    found, tasks = settings(records), paper_tasks()
    like_paper = {setting: runs for setting, runs in found.items() if setting.as_paper}
    longest: dict[str, tuple[str, list[Study]]] = {}
    for setting, runs in (like_paper or found).items():
        how = "" if setting.as_paper else ": not the paper's"
        title = f"{tasks[setting.task].title}\n{setting.epochs} epochs, {setting.images:,} images{how}"
        longest.setdefault(setting.task, (title, studies(runs)))
    if not longest:
        raise InputError("the records have nothing to draw this figure from; `howsparse run TASK` makes such records")
    return _panels(list(longest.values()), *_PANELS[name])


def iterations_figure(records: Sequence[IterationRecord]) -> Figure:
    """Draw Figure 4: the fraction of the remaining weights that must stay, and the fraction that stays in each step.

    Raises:
        InputError: there is no record for the figure.
    """
    tasks: dict[str, list[IterationRecord]] = {}
    for record in records:
        paper = paper_tasks().get(record.problem)
        title = record.problem if paper is None else paper.title
        tasks.setdefault(f"{title}, {record.epochs} epochs a training", []).append(record)
    if not tasks:
        how = "`python -m benchmarks.iteration TASK` makes such records"
        raise InputError(f"the records have nothing to draw this figure from; {how}")
    return _panels(list(tasks.items()), _iteration, 4, (3.6, 5.0))


def _panels(
    titled: Sequence[tuple[str, Drawn]],
    draw: Callable[[SubFigure, Drawn], None],
    columns: int,
    size: tuple[float, float],
) -> Figure:
    """A figure with one panel for each title, in rows of at most ``columns`` panels."""
    with rc_context({"font.size": 8.5, "pdf.fonttype": 42}):
        columns = min(columns, len(titled))
        rows = -(-len(titled) // columns)
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        places = np.array(figure.subfigures(rows, columns)).ravel()
        for place, (name, found) in zip(places, titled, strict=False):
            place.suptitle(name, fontsize=9, x=0.02, ha="left")
            draw(place, found)
        FigureCanvasAgg(figure)
    return figure


def _pruned(place: SubFigure, found: list[Study]) -> None:
    """Figure 3: measured loss and accuracy of every seed; the limit is a vertical line in its bracket."""
    above, below = place.subplots(2, 1, sharex=True)
    for study in found:
        train, test = study.curves.train, study.curves.test
        above.plot(train.sparsity, train.loss, color=INK, linewidth=1.3)
        above.plot(test.sparsity, test.loss, "--", color=FAINT, linewidth=1.2)
        below.plot(test.sparsity, _percent(test.accuracy), color=INK, linewidth=1.3)
        below.axhline(_percent([study.dense_accuracy])[0], color=INK, linewidth=0.7, linestyle=":")
    losses = [loss for study in found for loss in study.curves.train.loss]
    above.set_ylim(0.9 * min(losses), min(max(losses), 3 * min(study.dense_loss for study in found) + 1))
    above.set_ylabel("loss")
    below.set_ylabel("test accuracy, %")
    for axes in (above, below):
        clear_axes(axes)
        for study in found:
            axes.axvspan(study.answer.limit_low, study.answer.limit_high, color=SHADE, linewidth=0, alpha=0.6)
            if study.answer.limit is not None:
                axes.axvline(study.answer.limit, color=ACCENT, linewidth=1.4)
    limits = ", ".join(f"{100 * study.answer.limit:.2f}" for study in found if study.answer.limit is not None)
    above.set_title(f"limit {limits} %" if limits else "limit not resolved", fontsize=8, loc="right", color=ACCENT)
    sparsity_axis(below)
    above.plot([], [], color=INK, label="training")
    above.plot([], [], "--", color=FAINT, label="test")
    above.legend(frameon=False, loc="upper left", handlelength=1.8)


def _weights(place: SubFigure, found: list[Study]) -> None:
    """Figure 2, for the first seed: histogram of the weights, and squared norm of the removed weights by density."""
    left, right = place.subplots(1, 2)
    weights = found[0].weights
    histogram = weights.histogram
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    left.stairs(histogram.counts, edges, fill=True, color=FAINT)
    left.set_yscale("log")
    left.set_xlabel("weight")
    left.set_ylabel("number of weights")
    clear_axes(left)
    densities, squared = np.array(weights.density), np.array(weights.squared_radius)
    right.plot(densities[1:], squared[1:], color=INK, linewidth=1.3)
    right.set_xscale("log")
    right.set_xlim(densities[1], 1)
    right.set_ylim(0, None)
    right.xaxis.set_major_locator(FixedLocator([0.01, 0.1, 1]))
    right.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    right.xaxis.set_minor_formatter(NullFormatter())
    right.set_xlabel("density")
    right.set_ylabel("R², squared norm of the rest")
    clear_axes(right)
    limit = found[0].answer
    right.axvspan(1 - limit.limit_high, 1 - limit.limit_low, color=SHADE, linewidth=0, alpha=0.6)
    if limit.limit is None:
        return
    kept = 1 - limit.limit
    right.axvline(kept, color=ACCENT, linewidth=1.4)
    right.annotate(
        f"T = {kept:.4f}", (kept, 0.9), (4, 0), xycoords=right.get_xaxis_transform(), textcoords="offset points",
        color=ACCENT,
    )  # fmt: skip


def _rows(place: SubFigure, found: list[Study]) -> None:
    """Appendix B: norms of Hessian rows. A logarithmic axis cannot show rows that are zero; the title counts them."""
    axes = place.subplots()
    percentiles = np.concatenate([study.rows.percentile for study in found])
    norms = np.concatenate([study.rows.norm for study in found])
    there = norms > 0
    axes.plot(percentiles[there], norms[there], "o", color=INK, markersize=2.4)
    axes.set_yscale("log")
    axes.set_xlim(0, 100)
    axes.set_xlabel("percentile of the weight's magnitude")
    axes.set_ylabel("l1 norm of its Hessian row")
    clear_axes(axes)
    zeros = f"{np.count_nonzero(~there)} of {len(norms)} rows are zero"
    axes.set_title(zeros, fontsize=8, loc="right", color=FAINT)


def _scaled(place: SubFigure, found: list[Study]) -> None:
    """Appendix E.1: the limit for weights that are multiplied by a factor."""
    axes = place.subplots()
    for study in found:
        scaled = study.scaled
        low, high = _percent(scaled.limit_low), _percent(scaled.limit_high)
        axes.fill_between(scaled.factor, low, high, color=SHADE, linewidth=0, alpha=0.6)
        axes.plot(scaled.factor, _percent(scaled.limit), "o-", color=ACCENT, linewidth=1.3, markersize=2.6)
    axes.set_xticks([1, 2, 3, 4, 5], [f"{factor}×" for factor in (1, 2, 3, 4, 5)])
    axes.set_xlabel("weights scaled by")
    axes.set_ylabel("limit, %")
    clear_axes(axes)


def _iteration(place: SubFigure, found: list[IterationRecord]) -> None:
    """Figure 4: the lottery ticket above, Rare Gems below."""
    above, below = place.subplots(2, 1, sharex=True, sharey=True)
    tickets = [record for record in found if record.method == "lottery_ticket"]
    gems = [record for record in found if record.method.startswith("rare_gems")]
    for axes, group, name in ((above, tickets, "lottery ticket"), (below, gems, "Rare Gems")):
        for record, (colour, line, marker) in zip(group, ((INK, "-", "o"), (ACCENT, "--", "s")), strict=False):
            steps = record.steps
            density, needed = [step.density for step in steps], _percent([step.needed for step in steps])
            low, high = _percent([step.needed_low for step in steps]), _percent([step.needed_high for step in steps])
            axes.fill_between(density, low, high, color=colour, alpha=0.12, linewidth=0)
            label = record.method.removeprefix("rare_gems ").replace("lottery_ticket", "must stay")
            axes.plot(density, needed, line, marker=marker, color=colour, markersize=2.6, linewidth=1.2, label=label)
        if group:
            density, stays = [step.density for step in group[0].steps], [step.stays for step in group[0].steps]
            axes.plot(density, _percent(stays), ":", color=FAINT, linewidth=1.3, label="stays")
            axes.legend(frameon=False, fontsize=7, loc="lower left", bbox_to_anchor=(0, 0.98), ncols=3, borderaxespad=0)
        axes.set_ylabel(f"{name}: must stay, %")
        axes.set_ylim(0, 100)
        clear_axes(axes)
    below.set_xscale("log")
    below.invert_xaxis()
    below.xaxis.set_major_locator(FixedLocator([1, 0.5, 0.2, 0.1, 0.05, 0.02]))
    below.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g} %"))
    below.xaxis.set_minor_formatter(NullFormatter())
    below.set_xlabel("density before the step")


def _percent(shares: Sequence[float | None]) -> list[float]:
    return [math.nan if share is None else 100 * share for share in shares]


# For each figure: the function that draws a panel, the number of columns, and the size of a panel in inches.
_PANELS: dict[str, tuple[Callable[[SubFigure, list[Study]], None], int, tuple[float, float]]] = {
    "2": (_weights, 2, (5.6, 2.4)),
    "3": (_pruned, 4, (2.9, 3.6)),
    "rows": (_rows, 4, (2.9, 2.5)),
    "magnitudes": (_scaled, 4, (2.9, 2.5)),
}
FIGURES = ("2", "3", "4", "rows", "magnitudes")
