"""`plot` of a limit and of a measurement: axes of matplotlib that show the numbers."""

from collections.abc import Iterator
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

from howsparse import Measured, PruningLimit, pruning_limit
from howsparse.limit.bracket import Bracket
from howsparse.limit.goal import Goal, Point
from networks_for_tests import mlp_case


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def limit() -> PruningLimit:
    model, batches = mlp_case()
    found = pruning_limit(model, batches, tolerance=0.05, max_products=40)
    return replace(found, errors=Bracket(0.90, 0.94, 0.02, 0.0, 0.0))


def labels(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def vertical_lines(axes: Axes) -> list[float]:
    """Places of the lines from the bottom to the top."""
    places = [np.asarray(line.get_xdata()) for line in axes.lines if np.array_equal(line.get_ydata(), [0, 1])]
    return [float(place[0]) for place in places]


def test_a_resolved_limit_is_a_line_in_its_bracket(limit: PruningLimit) -> None:
    axes = limit.plot()
    assert vertical_lines(axes) == [limit.sparsity]
    assert "limit 92.0 %" in labels(axes)
    assert f"predicted {100 * limit.predicted:.1f} %" in labels(axes)
    (span,) = axes.patches
    assert span.get_extents().width > 0
    axes.figure.canvas.draw()


def test_a_limit_that_is_not_resolved_is_its_bracket_only(limit: PruningLimit) -> None:
    wide = replace(limit, errors=Bracket(0.30, 0.99, 0.345, 0.0, 0.0), recoverable=None)
    axes = wide.plot()
    assert vertical_lines(axes) == []
    assert "limit 30.0 % to 99.0 %" in labels(axes)
    assert not any("recoverable" in label for label in labels(axes))


def test_a_measurement_draws_its_points_into_axes_that_are_given() -> None:
    points = tuple(Point(s, 0.3 + s, 0.9 - s**3) for s in (0.0, 0.2, 0.4, 0.8))
    measured = Measured(points, Goal(max_drop=0.01))
    given = plt.subplots()[1]
    axes = measured.plot(given)
    assert axes is given
    curve = next(line for line in axes.lines if line.get_label() == "all data")
    assert np.array_equal(curve.get_ydata(), [100 * (0.9 - s**3) for s in (0.0, 0.2, 0.4, 0.8)])
    assert vertical_lines(axes) == [0.2]
