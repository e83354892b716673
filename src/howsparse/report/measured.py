"""The table and the picture of a measurement."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from howsparse.limit.best import OrderComparison
from howsparse.limit.goal import Point
from howsparse.limit.measure import Measured
from howsparse.report.plots import ACCENT, FAINT, INK, clear_axes, sparsity_axis
from howsparse.report.table import percent

__all__ = ["measured_table", "orders_table", "plot_measured"]


def measured_table(measured: Measured, numbers: Mapping[str, Any], next_: str) -> Table:
    """What was measured, in a few rows.

    Args:
        measured: the measurement.
        numbers: its numbers: ``num_weights``, ``effective_weights_baseline``, ``examples`` and ``seconds``.
        next_: what to do next, in one line.
    """
    table = Table(title="How sparse can this network be pruned?", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("Measured", f"[bold]{percent(measured.sparsity)}[/bold] of {numbers['num_weights']:,} weights can go")
    table.add_row("while", measured.goal.describe(measured.metric))
    dense, pruned = measured.dense, measured.pruned
    if dense.accuracy is not None and pruned.accuracy is not None:
        table.add_row(str(measured.metric), f"{percent(dense.accuracy, 2)} -> {percent(pruned.accuracy, 2)}")
    table.add_row("loss", f"{dense.loss:.4g} -> {pruned.loss:.4g}")
    table.add_row("order", measured.order)
    table.add_row("data", f"{numbers['examples']:,} examples, in {numbers['seconds']:.0f} s")
    table.add_row(
        "baseline without data", f"{percent(numbers['effective_weights_baseline'])} (effective number of weights)"
    )
    table.add_row("next", next_)
    return table


def orders_table(comparison: OrderComparison) -> Table:
    """One row for each order, the best first.

    Args:
        comparison: what each order reaches.
    """
    table = Table(title="Orders: which weights go first", title_justify="left", caption_justify="left")
    for head in ("order", "measured", "at this sparsity", "seconds"):
        table.add_column(head, justify="left" if head == "order" else "right", no_wrap=True)
    for each in comparison.measured:
        score = f"loss {each.pruned.loss:.4g}" if each.pruned.accuracy is None else percent(each.pruned.accuracy, 2)
        table.add_row(each.order, percent(each.sparsity), score, f"{comparison.seconds[each.order]:.1f}")
    table.caption = "\n".join(f"{name}: {reason}" for name, reason in comparison.refused.items()) or None
    return table


def plot_measured(measured: Measured, title: str) -> Figure:
    """Draw the measured curve: the metric (or the loss) against sparsity, with what is allowed.

    Args:
        measured: the measurement.
        title: title of the picture.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    scored = measured.dense.accuracy is not None

    def height(point: Point) -> float:
        return 100 * (point.accuracy or 0.0) if scored else point.loss

    for points, style, label in (
        (measured.glance, {"color": FAINT, "marker": ".", "linestyle": ":"}, "an eighth of the data"),
        (measured.curve, {"color": INK, "marker": "o", "markersize": 3.5, "linewidth": 1.2}, "all data"),
    ):
        if points:
            axes.plot([p.sparsity for p in points], [height(p) for p in points], label=label, **style)
    goal, dense = measured.goal, measured.dense
    if goal.max_drop is not None:
        axes.axhline(100 * ((dense.accuracy or 0.0) - goal.max_drop), color=INK, linewidth=0.8, linestyle=":")
    axes.axvline(measured.sparsity, color=ACCENT, linewidth=1.6, label=f"measured {percent(measured.sparsity)}")
    axes.set_ylabel(f"{measured.metric}, %" if scored else "loss")
    if not scored:
        axes.set_ylim(0.95 * dense.loss, np.percentile([p.loss for p in measured.curve], 80) * 1.1)
    clear_axes(axes)
    sparsity_axis(axes, (0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99))
    axes.set_xlabel(f"sparsity: weights removed, % ({measured.order} order)")
    axes.legend(loc="lower left" if scored else "upper left", frameon=False)
    return figure
