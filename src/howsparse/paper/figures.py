"""The paper's figures from records of runs: small multiples, one panel for each task, legible in grey."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from howsparse.errors import InputError
from howsparse.paper.tables import TASKS, as_paper, settings, studies
from howsparse.report.plots import ACCENT, FAINT, INK, SHADE, clear_axes, sparsity_axis

__all__ = ["FIGURES", "paper_figure"]

Record = dict[str, Any]
Draw = Callable[[SubFigure, list[Record]], None]


def paper_figure(name: str, records: list[Record]) -> Figure:
    """Draw a figure of the paper.

    Args:
        name: "2" (weights, and the squared radius), "3" (loss and accuracy against sparsity), "4" (the limit along
            iterative pruning), "rows" (norms of Hessian rows) or "magnitudes" (the limit of larger weights).
        records: of kind "run"; for "4", of kind "iteration".

    Raises:
        InputError: there is no such figure, or no record that it could be drawn from.
    """
    if name not in FIGURES:
        raise InputError(f"there is no figure '{name}'; choose from: {', '.join(FIGURES)}")
    with rc_context({"font.size": 8.5, "pdf.fonttype": 42}):
        figure = FIGURES[name](records)
        FigureCanvasAgg(figure)
        return figure


def _each_task(columns: int, size: tuple[float, float], draw: Draw) -> Callable[[list[Record]], Figure]:
    """A figure with one panel for each task; what ``draw`` gets are the task's studies, one for each seed.

    Where some runs are like the paper's, others are left out; where none is, all are drawn and say so.
    """

    def whole(records: list[Record]) -> Figure:
        found = settings(records)
        like_paper = {setting: runs for setting, runs in found.items() if as_paper(*setting)}
        longest: dict[str, tuple[str, list[Record]]] = {}
        for (task, epochs, images), runs in (like_paper or found).items():
            how = "" if like_paper else ": not the paper's"
            longest.setdefault(task, (f"{TASKS[task]}\n{epochs} epochs, {images:,} images{how}", studies(runs)))
        return _panels(list(longest.values()), columns, size, draw)

    return whole


def _panels(titled: Sequence[tuple[str, list[Record]]], columns: int, size: tuple[float, float], draw: Draw) -> Figure:
    if not titled:
        raise InputError("the records have nothing to draw this figure from; `howsparse run TASK` makes such records")
    columns = min(columns, len(titled))
    rows = -(-len(titled) // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    places = np.array(figure.subfigures(rows, columns)).ravel()
    for place, (name, found) in zip(places, titled, strict=False):
        place.suptitle(name, fontsize=9, x=0.02, ha="left")
        draw(place, found)
    return figure


def _pruned(place: SubFigure, found: list[Record]) -> None:
    """Figure 3: measured loss and accuracy, every seed; the prediction as a vertical line in its bracket."""
    above, below = place.subplots(2, 1, sharex=True)
    for study in found:
        train, test = study["curves"]["train"], study["curves"]["test"]
        above.plot(train["sparsity"], train["loss"], color=INK, linewidth=1.3)
        above.plot(test["sparsity"], test["loss"], "--", color=FAINT, linewidth=1.2)
        below.plot(test["sparsity"], _percent(test["accuracy"]), color=INK, linewidth=1.3)
        below.axhline(100 * study["dense_accuracy"], color=INK, linewidth=0.7, linestyle=":")
    losses = [loss for study in found for loss in study["curves"]["train"]["loss"]]
    above.set_ylim(0.9 * min(losses), min(max(losses), 3 * min(study["dense_loss"] for study in found) + 1))
    above.set_ylabel("loss")
    below.set_ylabel("test accuracy, %")
    for axes in (above, below):
        clear_axes(axes)
        for study in found:
            axes.axvspan(study["limit_low"], study["limit_high"], color=SHADE, linewidth=0, alpha=0.6)
            axes.axvline(study["limit"], color=ACCENT, linewidth=1.4)
    limits = ", ".join(f"{100 * study['limit']:.2f}" for study in found)
    above.set_title(f"limit {limits} %", fontsize=8, loc="right", color=ACCENT)
    sparsity_axis(below)
    above.plot([], [], color=INK, label="training")
    above.plot([], [], "--", color=FAINT, label="test")
    above.legend(frameon=False, loc="upper left", handlelength=1.8)


def _weights(place: SubFigure, found: list[Record]) -> None:
    """Figure 2: how large the weights are, and what the smaller of them amount to; the first seed's."""
    left, right = place.subplots(1, 2)
    weights = found[0]["weights"]
    histogram = weights["histogram"]
    edges = np.linspace(histogram["low"], histogram["high"], len(histogram["counts"]) + 1)
    left.stairs(histogram["counts"], edges, fill=True, color=FAINT)
    left.set_yscale("log")
    left.set_xlabel("weight")
    left.set_ylabel("number of weights")
    clear_axes(left)
    densities, squared = np.array(weights["density"]), np.array(weights["squared_radius"])
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
    kept = 1 - found[0]["limit"]
    right.axvspan(1 - found[0]["limit_high"], 1 - found[0]["limit_low"], color=SHADE, linewidth=0, alpha=0.6)
    right.axvline(kept, color=ACCENT, linewidth=1.4)
    right.annotate(
        f"T = {kept:.4f}", (kept, 0.9), (4, 0), xycoords=right.get_xaxis_transform(), textcoords="offset points",
        color=ACCENT,
    )  # fmt: skip


def _rows(place: SubFigure, found: list[Record]) -> None:
    """Appendix B: norms of Hessian rows. Rows that are zero have no place on a logarithmic axis, and a line of text."""
    axes = place.subplots()
    percentiles, norms = (np.concatenate([study["rows"][name] for study in found]) for name in ("percentile", "norm"))
    there = norms > 0
    axes.plot(percentiles[there], norms[there], "o", color=INK, markersize=2.4)
    axes.set_yscale("log")
    axes.set_xlim(0, 100)
    axes.set_xlabel("percentile of the weight's magnitude")
    axes.set_ylabel("l1 norm of its Hessian row")
    clear_axes(axes)
    zeros = f"{np.count_nonzero(~there)} of {len(norms)} rows are zero"
    axes.set_title(zeros, fontsize=8, loc="right", color=FAINT)


def _scaled(place: SubFigure, found: list[Record]) -> None:
    """Appendix E.1: the limit had the weights been larger."""
    axes = place.subplots()
    for study in found:
        scaled = study["scaled"]
        low, high = _percent(scaled["limit_low"]), _percent(scaled["limit_high"])
        axes.fill_between(scaled["factor"], low, high, color=SHADE, linewidth=0, alpha=0.6)
        axes.plot(scaled["factor"], _percent(scaled["limit"]), "o-", color=ACCENT, linewidth=1.3, markersize=2.6)
    axes.set_xticks([1, 2, 3, 4, 5], [f"{factor}×" for factor in (1, 2, 3, 4, 5)])
    axes.set_xlabel("weights scaled by")
    axes.set_ylabel("limit, %")
    clear_axes(axes)


def _iterations(records: list[Record]) -> Figure:
    """Figure 4: of the weights left, the share that must stay and the one that does; a column for each task."""
    tasks: dict[str, list[Record]] = {}
    for record in records:
        if record.get("kind") == "iteration":
            name = TASKS.get(record["task"], record["task"])
            tasks.setdefault(f"{name}, {record['epochs']} epochs a training", []).append(record)
    return _panels(list(tasks.items()), 4, (3.6, 5.0), _iteration)


def _iteration(place: SubFigure, found: list[Record]) -> None:
    above, below = place.subplots(2, 1, sharex=True, sharey=True)
    tickets = [record for record in found if record["method"] == "lottery_ticket"]
    gems = [record for record in found if record["method"].startswith("rare_gems")]
    for axes, group, name in ((above, tickets, "lottery ticket"), (below, gems, "Rare Gems")):
        for record, (colour, line, marker) in zip(group, ((INK, "-", "o"), (ACCENT, "--", "s")), strict=False):
            steps = {name: np.array([step[name] for step in record["steps"]]) for name in record["steps"][0]}
            density, needed = steps["density"], 100 * steps["needed"]
            axes.fill_between(
                density, 100 * steps["needed_low"], 100 * steps["needed_high"], color=colour, alpha=0.12, linewidth=0
            )
            label = record["method"].removeprefix("rare_gems ").replace("lottery_ticket", "must stay")
            axes.plot(density, needed, line, marker=marker, color=colour, markersize=2.6, linewidth=1.2, label=label)
        stays = {name: [step[name] for step in group[0]["steps"]] for name in ("density", "stays")} if group else None
        if stays is not None:
            axes.plot(stays["density"], _percent(stays["stays"]), ":", color=FAINT, linewidth=1.3, label="stays")
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


FIGURES: dict[str, Callable[[list[Record]], Figure]] = {
    "2": _each_task(2, (5.6, 2.4), _weights),
    "3": _each_task(4, (2.9, 3.6), _pruned),
    "4": _iterations,
    "rows": _each_task(4, (2.9, 2.5), _rows),
    "magnitudes": _each_task(4, (2.9, 2.5), _scaled),
}
