"""Pictures: matplotlib, legible in grey."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from howsparse.files import write_whole
from howsparse.limit.assess import Assessment

__all__ = ["ACCENT", "FAINT", "INK", "SHADE", "clear_axes", "plot_assessment", "save_figure", "sparsity_axis"]

INK, ACCENT, SHADE, FAINT = "#1b1b1b", "#b5402a", "#e4b7ab", "#7d7d7d"


def plot_assessment(assessment: Assessment, title: str) -> Figure:
    """Loss and accuracy against sparsity, with the prediction as vertical lines."""
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    _loss_panel(above, assessment)
    _accuracy_panel(below, assessment)
    for axes in (above, below):
        _mark_limit(axes, assessment)
        clear_axes(axes)
    sparsity_axis(below, (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995))
    below.set_xlabel("sparsity: weights removed, %")
    above.legend(loc="upper left", frameon=False)
    return figure


def clear_axes(axes: Axes) -> None:
    """No frame, and faint lines to read values by."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def sparsity_axis(axes: Axes, ticks: Sequence[float] = (0, 0.7, 0.9, 0.97, 0.99, 0.997)) -> None:
    """Make x a sparsity, with room for the sparse end: equal steps for equal ratios of density."""
    axes.set_xscale("function", functions=(_stretch, _unstretch))
    axes.set_xlim(0, 0.999)
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}"))
    axes.set_xlabel("sparsity, %")


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure, in the format its suffix names, whole or not at all; the same figure is the same bytes."""
    dateless = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix)
    write_whole(path, lambda file: figure.savefig(file, dpi=150, metadata=dateless))


def _loss_panel(axes: Axes, assessment: Assessment) -> None:
    limit, measured = assessment.limit, assessment.on_train
    sparsities = [p.sparsity for p in measured.curve]
    increases = [(p.loss - measured.dense.loss) / limit.tolerance for p in measured.curve]
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.annotate("tolerance", (0.01, 1), va="bottom", fontsize=9, color=INK)
    axes.plot(sparsities, increases, "o-", color=INK, markersize=3.5, linewidth=1.2, label="measured")
    predicted = limit.losses.increases / limit.tolerance
    axes.plot(limit.losses.sparsities, predicted, "--", color=ACCENT, linewidth=1.6, label="predicted, g'd + ½d'Hd")
    by_chance = limit.random_losses.increases / limit.tolerance
    axes.plot(limit.losses.sparsities, by_chance, ":", color=FAINT, linewidth=1.6, label="predicted, random masks")
    axes.set_ylim(min(-0.5, 1.2 * min(increases)), 4)
    axes.set_ylabel("training loss increase / tolerance")


def _accuracy_panel(axes: Axes, assessment: Assessment) -> None:
    points = [p for p in assessment.on_test.curve if p.accuracy is not None]
    if not points:
        return
    dense = assessment.on_test.dense.accuracy
    axes.axhline(100 * (dense or 0), color=INK, linewidth=0.8, linestyle=":")
    axes.annotate("dense", (0.01, 100 * (dense or 0)), va="bottom", fontsize=9, color=INK)
    axes.plot([p.sparsity for p in points], [100 * (p.accuracy or 0) for p in points], "o-", color=INK, markersize=3.5)
    axes.set_ylabel("test accuracy, %")


def _mark_limit(axes: Axes, assessment: Assessment) -> None:
    limit = assessment.limit
    axes.axvspan(*limit.bracket, color=SHADE, linewidth=0)
    axes.axvline(limit.sparsity, color=ACCENT, linewidth=1.6, label=f"limit {100 * limit.sparsity:.1f} %")
    axes.axvline(
        limit.certified, color=ACCENT, linewidth=1.2, linestyle="-.", label=f"certified {100 * limit.certified:.1f} %"
    )


def _stretch(sparsity: np.ndarray) -> np.ndarray:
    return -np.log10(np.maximum(1.0 - np.asarray(sparsity), 1e-6))


def _unstretch(position: np.ndarray) -> np.ndarray:
    return 1.0 - 10.0 ** -np.asarray(position)
