"""Results as pictures of matplotlib: `PruningLimit.plot` and `Measured.plot`."""

from functools import singledispatch
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from howsparse.limit.measure import Measured
from howsparse.limit.result import PruningLimit
from howsparse.report.measured import draw_measured
from howsparse.report.plots import ACCENT, FAINT, INK, SHADE, clear_axes, sparsity_axis
from howsparse.report.table import percent

__all__ = ["draw"]

_TICKS = (0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
_HIGHEST = 3.0  # tolerances on the axis of the loss


@singledispatch
def draw(result: Any, axes: Axes | None) -> Axes:
    """Draw a result.

    Args:
        result: a limit or a measurement.
        axes: where to draw; by default the axes of a new figure of pyplot.

    Returns:
        The axes.
    """
    raise TypeError(f"a {type(result).__name__} cannot be drawn")


@draw.register
def _limit(result: PruningLimit, axes: Axes | None) -> Axes:
    """Predicted rise of the loss against sparsity, with the limit, the prediction and what is recoverable."""
    axes = _new_axes() if axes is None else axes
    curve, tolerance = result.losses, result.tolerance
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.annotate("tolerance", (0.01, 1), va="bottom", fontsize=9, color=INK)
    label = "predicted, smallest weights first"
    axes.plot(curve.sparsities, curve.increases / tolerance, color=INK, linewidth=1.6, label=label)
    by_chance = result.random_losses
    axes.plot(
        by_chance.sparsities,
        by_chance.increases / tolerance,
        ":",
        color=FAINT,
        linewidth=1.6,
        label="weights at random",
    )
    low, high = result.bracket
    named = f"limit {percent(result.sparsity)}" if result.resolved else f"limit {percent(low)} to {percent(high)}"
    axes.axvspan(low, high, color=SHADE, linewidth=0, label=None if result.resolved else named)
    if result.resolved:
        axes.axvline(result.sparsity, color=ACCENT, linewidth=1.6, label=named)
    axes.plot([result.predicted], [1], "^", color=INK, markersize=7, label=f"predicted {percent(result.predicted)}")
    if result.recoverable is not None:
        ends = " to ".join(map(percent, result.recoverable))
        height = 0.05 * _HIGHEST
        axes.plot(result.recoverable, [height] * 2, "|-", color=INK, linewidth=2.5, label=f"recoverable {ends}")
    clear_axes(axes)
    sparsity_axis(axes, _TICKS)
    axes.set_xlabel("sparsity: weights removed, %")
    axes.set_ylabel("predicted loss increase / tolerance")
    known = low, result.predicted, *((high,) if result.resolved else ()), *(result.recoverable or ())
    axes.set_xlim(0, 1 - max((1 - min(max(known), 0.999)) / 4, 1e-3))
    axes.set_ylim(min(-0.25, 1.2 * float(np.min(curve.increases)) / tolerance), _HIGHEST)
    axes.legend(loc="upper left", frameon=False)
    return axes


@draw.register
def _measured(result: Measured, axes: Axes | None) -> Axes:
    """The metric, or the loss, against sparsity, with what is allowed and the measured sparsity."""
    axes = _new_axes() if axes is None else axes
    draw_measured(axes, result)
    return axes


def _new_axes() -> Axes:
    return plt.subplots(figsize=(7, 4), layout="constrained")[1]
