"""Pictures of the answers for one network. They are legible without colours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from howsparse.errors import InputError
from howsparse.files import write_whole
from howsparse.limit.assess import Assessment
from howsparse.limit.measure import Measured
from howsparse.limit.prediction import LossCurve
from howsparse.limit.result import LimitSummary
from howsparse.records.types import Curve, Curves, PredictedCurve

__all__ = [
    "ACCENT",
    "FAINT",
    "INK",
    "SHADE",
    "clear_axes",
    "plot_answer",
    "plot_assessment",
    "save_figure",
    "sparsity_axis",
]

INK, ACCENT, SHADE, FAINT = "#1b1b1b", "#b5402a", "#e4b7ab", "#7d7d7d"


def plot_assessment(assessment: Assessment, title: str) -> Figure:
    """Draw an assessment: loss and accuracy against sparsity, with the limit and the predicted sparsity."""
    limit = assessment.limit
    curves = Curves(
        train=_measured(assessment.on_train),
        test=_measured(assessment.on_test),
        predicted=_predicted(limit.losses),
    )
    return plot_answer(limit.summary(), curves, title, random_masks=_predicted(limit.random_losses))


def plot_answer(
    answer: LimitSummary, curves: Curves, title: str, *, random_masks: PredictedCurve | None = None
) -> Figure:
    """Draw loss and accuracy against sparsity, with the limit and the predicted sparsity as vertical lines.

    Args:
        answer: the limit's numbers; the loss is drawn in units of its tolerance.
        curves: curves measured on training and test data, and predicted for magnitude masks.
        title: title of the picture.
        random_masks: predicted curve of random masks; it is not drawn by default.

    Raises:
        InputError: the answer has no tolerance, as in some records of earlier versions.
    """
    if answer.tolerance is None:
        raise InputError("this answer has no tolerance, so its losses cannot be drawn; compute the limit again")
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    _loss_panel(above, answer.tolerance, curves.train, curves.predicted, random_masks)
    _accuracy_panel(below, curves.test)
    for axes in (above, below):
        _mark_answer(axes, answer)
        clear_axes(axes)
    sparsity_axis(below, (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995))
    below.set_xlabel("sparsity: weights removed, %")
    above.legend(loc="upper left", frameon=False)
    return figure


def clear_axes(axes: Axes) -> None:
    """Remove the frame, and add faint horizontal lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def sparsity_axis(axes: Axes, ticks: Sequence[float] = (0, 0.7, 0.9, 0.97, 0.99, 0.997)) -> None:
    """Make x a sparsity axis on which equal ratios of density have equal distances."""
    axes.set_xscale("function", functions=(_stretch, _unstretch))
    axes.set_xlim(0, 0.999)
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}"))
    axes.set_xlabel("sparsity, %")


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure in the format of the path's suffix, in one step. Equal figures give equal bytes."""
    dateless = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix)
    write_whole(path, lambda file: figure.savefig(file, dpi=150, metadata=dateless))


def _loss_panel(
    axes: Axes, tolerance: float, train: Curve, predicted: PredictedCurve, random_masks: PredictedCurve | None
) -> None:
    increases = [(loss - train.loss[0]) / tolerance for loss in train.loss]  # the first point is the dense network
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.annotate("tolerance", (0.01, 1), va="bottom", fontsize=9, color=INK)
    axes.plot(train.sparsity, increases, "o-", color=INK, markersize=3.5, linewidth=1.2, label="measured")
    expected = np.array(predicted.increase) / tolerance
    axes.plot(predicted.sparsity, expected, "--", color=ACCENT, linewidth=1.6, label="predicted, g'd + ½d'Hd")
    if random_masks is not None:
        by_chance = np.array(random_masks.increase) / tolerance
        axes.plot(random_masks.sparsity, by_chance, ":", color=FAINT, linewidth=1.6, label="predicted, random masks")
    axes.set_ylim(min(-0.5, 1.2 * min(increases)), 4)
    axes.set_ylabel("training loss increase / tolerance")


def _accuracy_panel(axes: Axes, test: Curve) -> None:
    points = [
        (s, 100 * accuracy) for s, accuracy in zip(test.sparsity, test.accuracy, strict=True) if accuracy is not None
    ]
    if not points:
        return
    sparsities, accuracies = zip(*points, strict=True)
    axes.axhline(accuracies[0], color=INK, linewidth=0.8, linestyle=":")
    axes.annotate("dense", (0.01, accuracies[0]), va="bottom", fontsize=9, color=INK)
    axes.plot(sparsities, accuracies, "o-", color=INK, markersize=3.5)
    axes.set_ylabel("test accuracy, %")


def _mark_answer(axes: Axes, answer: LimitSummary) -> None:
    limit, predicted = answer.limit, answer.predicted
    bracket = None if limit is not None else f"limit {100 * answer.limit_low:.0f} to {100 * answer.limit_high:.0f} %"
    axes.axvspan(answer.limit_low, answer.limit_high, color=SHADE, linewidth=0, label=bracket)
    if limit is not None:
        axes.axvline(limit, color=ACCENT, linewidth=1.6, label=f"limit {100 * limit:.1f} %")
    axes.axvline(predicted, color=ACCENT, linewidth=1.2, linestyle="-.", label=f"predicted {100 * predicted:.1f} %")


def _measured(measured: Measured) -> Curve:
    points = measured.curve
    return Curve(
        sparsity=[point.sparsity for point in points],
        loss=[point.loss for point in points],
        accuracy=[point.accuracy for point in points],
    )


def _predicted(losses: LossCurve) -> PredictedCurve:
    return PredictedCurve(sparsity=losses.sparsities.tolist(), increase=losses.increases.tolist())


def _stretch(sparsity: np.ndarray) -> np.ndarray:
    return -np.log10(np.maximum(1.0 - np.asarray(sparsity), 1e-6))


def _unstretch(position: np.ndarray) -> np.ndarray:
    return 1.0 - 10.0 ** -np.asarray(position)
