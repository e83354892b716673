"""The table and the picture of an audit."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from howsparse.limit.audit import Audit, LayerShare
from howsparse.report.plots import ACCENT, INK, SHADE

__all__ = ["audit_lines", "audit_table", "plot_audit"]

_SHOWN = 7  # layers in a table, so that an answer has at most fifteen lines


def audit_table(audit: Audit) -> Table:
    """A table of the layers with the largest shares first, the totals, and whether the prediction agrees.

    Args:
        audit: the audit of a change.

    Returns:
        A table of at most seven layers; the lines of `audit_lines` are below it.

    >>> layers = (LayerShare("fc.weight", 4, 4, 0.1, 0.1, 0.3, None),)
    >>> audit_table(Audit(layers, 1.0, 0.5, 0.0, (), "hessian", 0, 1e-6)).row_count  # layer, total, measured
    3
    """
    table = Table(box=None, pad_edge=False, caption_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("changed", justify="right")
    table.add_column("change / norm", justify="right")
    for name in _columns(audit):
        table.add_column(name, justify="right", max_width=10)
    ordered = sorted(audit.layers, key=lambda layer: -layer.share)
    for layer in ordered[:_SHOWN]:
        moved = f"{layer.num_changed:,}", f"{layer.relative_change:.3g}"
        table.add_row(layer.name, *moved, *_numbers(audit, layer))
    rest = ordered[_SHOWN:]
    if rest:
        table.add_row(f"{len(rest)} more layer{'s' if len(rest) > 1 else ''}", "", "", *_sums(audit, rest))
    table.add_row("predicted in total" if audit.path is None else "in total", "", "", *_sums(audit, ordered))
    table.add_row("measured", "", "", *[""] * (len(_columns(audit)) - 1), _signed(audit.measured))
    table.caption = "\n".join(audit_lines(audit))
    return table


def audit_lines(audit: Audit) -> list[str]:
    """The result of an audit in plain sentences: the worst layer, and whether the prediction agrees.

    Args:
        audit: the audit of a change.

    >>> layers = (LayerShare("fc.weight", 4, 4, 0.1, 0.1, 0.3, None),)
    >>> audit_lines(Audit(layers, 1.0, 0.5, 0.0, (), "hessian", 0, 1e-6))[0]
    'fc.weight raises the loss most, by +0.4; the whole change makes +0.5 (measured).'
    """
    worst = audit.worst
    if worst.share > 0:
        lines = [
            f"{worst.name} raises the loss most, by {_signed(worst.share)};"
            f" the whole change makes {_signed(audit.measured)} (measured)."
        ]
    else:
        lines = ["No layer raises the loss."]
    if audit.agrees:
        lines.append("Prediction and measurement agree: they differ by at most half of the larger.")
    else:
        lines.append(
            f"The local model does not hold for this change: it predicts {audit.predicted:.3g},"
            f" but measured is {audit.measured_weights:.3g}."
        )
        lines.append(_about_path(audit))
    if audit.buffers:
        lines.append(
            f"{len(audit.buffers)} buffers differ too, such as {audit.buffers[0]}: they add"
            f" {audit.measured_buffers:.3g} to the measured loss, which no layer's share has."
        )
    return lines


def plot_audit(audit: Audit) -> Figure:
    """Draw each layer's share as a bar, in the order of the network.

    Without a path, each layer has two bars, filled for the first order and hatched for the second order, and a line at
    their sum. With a path, the bar is the share along the path.

    Args:
        audit: the audit of a change.

    >>> layers = (LayerShare("fc.weight", 4, 4, 0.1, 0.1, 0.3, None),)
    >>> plot_audit(Audit(layers, 1.0, 0.5, 0.0, (), "hessian", 0, 1e-6)).axes[0].get_xlabel()
    'share in the change of the loss'
    """
    count = len(audit.layers)
    figure = Figure(figsize=(8, 1.6 + 0.19 * max(count, 4)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rows = np.arange(count)
    if audit.path is None:
        _draw_local(axes, audit, rows)
    else:
        _draw_path(axes, audit, rows)
    worst = audit.layers.index(audit.worst)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(rows, [layer.name for layer in audit.layers], fontsize=8)
    axes.get_yticklabels()[worst].set_fontweight("bold")
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_xlabel("share in the change of the loss")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    figure.suptitle(_title(audit), x=0.01, ha="left", fontweight="bold", fontsize=11)
    figure.legend(loc="outside lower center", frameon=False, fontsize=9, ncols=3)
    return figure


def _draw_local(axes: Axes, audit: Audit, rows: np.ndarray) -> None:
    first = np.array([layer.first_order for layer in audit.layers])
    second = np.array([layer.second_order for layer in audit.layers])
    axes.barh(rows - 0.2, first, 0.38, color=INK, label="first order, d'g")
    axes.barh(rows + 0.2, second, 0.38, color=SHADE, edgecolor=ACCENT, hatch="////", linewidth=0.6,
              label="second order, ½d'Hd")  # fmt: skip
    axes.plot(first + second, rows, "D", color=INK, markerfacecolor="white", markersize=4.5, label="predicted: the sum")


def _draw_path(axes: Axes, audit: Audit, rows: np.ndarray) -> None:
    shares = np.array([layer.share for layer in audit.layers])
    axes.barh(rows, shares, 0.7, color=SHADE, edgecolor=ACCENT, linewidth=0.6, label="share along the change")


def _title(audit: Audit) -> str:
    about = f"measured {audit.measured:.3g}, predicted {audit.predicted:.3g}"
    return f"Change of the loss by layer: {about}" + (
        "" if audit.path is None else f", along the change {audit.path:.3g}"
    )


def _about_path(audit: Audit) -> str:
    if not math.isfinite(audit.measured_weights):
        return "The loss of the changed model is not a finite number, so its shares are not reliable."
    if audit.path is None:
        return "Its shares are not reliable; leave out points=0, so that they are computed along the change."
    about = f"{audit.points} gradients along the change, and add up to {audit.path:.3g}"
    if audit.reliable:
        return f"The shares are computed by {about}."
    return f"The shares are computed by {about}, which does not agree either; give more points."


def _columns(audit: Audit) -> list[str]:
    local = ["first order", "second order", "predicted"]
    return local if audit.path is None else ["predicted", "along the change"]


def _numbers(audit: Audit, layer: LayerShare) -> list[str]:
    if audit.path is None:
        return [_signed(layer.first_order), _signed(layer.second_order), _signed(layer.predicted)]
    return [_signed(layer.predicted), _signed(layer.share)]


def _sums(audit: Audit, layers: list[LayerShare]) -> list[str]:
    if audit.path is None:
        orders = sum(layer.first_order for layer in layers), sum(layer.second_order for layer in layers)
        return [_signed(value) for value in (*orders, sum(orders))]
    predicted, shares = sum(layer.predicted for layer in layers), sum(layer.share for layer in layers)
    return [_signed(predicted), _signed(shares)]


def _signed(value: float) -> str:
    return f"{value:+.3g}"
