"""The table and the picture of a measurement."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from howsparse.limit.best import OrderComparison
from howsparse.limit.certificate import Certificate
from howsparse.limit.goal import Point
from howsparse.limit.measure import Measured
from howsparse.report.plots import ACCENT, FAINT, INK, clear_axes, sparsity_axis
from howsparse.report.table import percent

__all__ = ["certificate_table", "draw_measured", "measured_sentence", "measured_table", "orders_table", "plot_measured"]

_TESTS = 4  # rows of a certificate: the last tests


def measured_sentence(measured: Measured, num_weights: int) -> str:
    """The answer of a measurement in one line.

    Args:
        measured: the measurement.
        num_weights: number of weights that could go.

    >>> from howsparse.limit.goal import Goal
    >>> measured_sentence(Measured((Point(0.0, 0.3, 0.9), Point(0.5, 0.3, 0.9)), Goal(max_drop=0.01)), 1200)
    '50.0 % of 1,200 weights can go while the accuracy drops by at most 1 point (measured)'
    """
    share = percent(measured.sparsity) if measured.sparsity > 0 else "None"
    goal = measured.goal.describe(measured.metric)
    return f"{share} of {num_weights:,} weights can go while {goal} (measured)"


def measured_table(measured: Measured, numbers: Mapping[str, Any], data: str) -> Table:
    """What was measured, in a few rows.

    Args:
        measured: the measurement.
        numbers: its numbers: ``effective_weights_baseline``, ``examples`` and ``seconds``.
        data: what the examples are, for example "test examples".
    """
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    dense, pruned = measured.dense, measured.pruned
    if dense.accuracy is not None and pruned.accuracy is not None:
        table.add_row(str(measured.metric), _before_and_after(measured.metric, dense.accuracy, pruned.accuracy))
    table.add_row("loss", f"{dense.loss:.4g} -> {pruned.loss:.4g}")
    table.add_row("order", f"{measured.order}: which weights go first")
    table.add_row(
        "data", f"{numbers['examples']:,} {data}; {len(measured.curve)} networks in {numbers['seconds']:.1f} s"
    )
    table.add_row(
        "baseline", f"{percent(numbers['effective_weights_baseline'])} by the effective number of weights, no data"
    )
    return table


def certificate_table(certificate: Certificate) -> Table:
    """The last tests of a certificate, with their counts.

    Args:
        certificate: the certificate of a network.
    """
    table = Table(box=None, pad_edge=False)
    heads = ("removed", f"held-out {certificate.metric}", "worse", "better", "p-value", "")
    for head in heads:
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    name = certificate.metric
    table.add_row(percent(0.0), _value(name, certificate.dense_score), "", "", "", "before pruning")
    for step in certificate.steps[-_TESTS:]:
        passed = step.p_value <= certificate.level
        said = "certified" if step is certificate.certified else "passed" if passed else "did not pass"
        counts = f"{step.lost:,}", f"{step.won:,}"
        table.add_row(
            percent(math.floor(1e4 * step.sparsity + 1e-6) / 1e4, 2),
            _value(name, step.score),
            *counts,
            f"{step.p_value:.2g}",
            said,
        )
    return table


def _before_and_after(metric: str | None, dense: float, pruned: float) -> str:
    return f"{_value(str(metric), dense)} -> {_value(str(metric), pruned)}"


def _value(metric: str, value: float) -> str:
    """A loss as a number; a score as a percentage if it is a share of predictions."""
    return percent(value, 2) if _is_share(metric) else f"{value:.4g}"


def _is_share(metric: str) -> bool:
    return metric == "accuracy" or metric.startswith("top")


def orders_table(comparison: OrderComparison) -> Table:
    """One row for each order, the best first.

    Args:
        comparison: what each order reaches.
    """
    table = Table(box=None, pad_edge=False, caption_justify="left")
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
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    draw_measured(figure.subplots(), measured)
    return figure


def draw_measured(axes: Axes, measured: Measured) -> None:
    """Draw the measured curve into axes: the metric (or the loss) against sparsity, with what is allowed.

    Args:
        axes: where to draw.
        measured: the measurement.
    """
    goal, dense = measured.goal, measured.dense
    scored = goal.max_drop is not None
    unit = 100 if _is_share(str(measured.metric)) else 1

    def height(point: Point) -> float:
        return unit * (point.accuracy or 0.0) if scored else point.loss

    for points, style, label in (
        (measured.glance, {"color": FAINT, "marker": ".", "linestyle": ":"}, "an eighth of the data"),
        (measured.curve, {"color": INK, "marker": "o", "markersize": 3.5, "linewidth": 1.2}, "all data"),
    ):
        if points:
            axes.plot([p.sparsity for p in points], [height(p) for p in points], label=label, **style)
    axes.axhline(_allowed(measured, unit), color=INK, linewidth=0.8, linestyle=":", label="allowed")
    axes.axvline(measured.sparsity, color=ACCENT, linewidth=1.6, label=f"measured {percent(measured.sparsity)}")
    axes.set_ylabel("loss" if not scored else f"{measured.metric}, %" if unit == 100 else str(measured.metric))
    if not scored:
        highest = max(np.percentile([p.loss for p in measured.curve], 80), _allowed(measured, unit))
        axes.set_ylim(dense.loss - 0.05 * (highest - dense.loss), highest + 0.1 * (highest - dense.loss))
    clear_axes(axes)
    sparsity_axis(axes, (0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99))
    axes.set_xlabel(f"sparsity: weights removed, % ({measured.order} order)")
    axes.legend(loc="lower left" if scored else "upper left", frameon=False)


def _allowed(measured: Measured, unit: int) -> float:
    """The worst value of the metric, or of the loss, that the goal allows."""
    goal, dense = measured.goal, measured.dense
    if goal.max_drop is not None:
        return unit * ((dense.accuracy or 0.0) - goal.max_drop)
    return dense.loss + (goal.tolerance if goal.tolerance is not None else (goal.max_rise or 0.0) * dense.loss)
