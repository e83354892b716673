"""The sentence, tables and picture of a measurement and of a certificate."""

import io
import re

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import howsparse
from howsparse.limit.best import OrderComparison
from howsparse.limit.goal import Goal, Point
from howsparse.limit.measure import Measured
from howsparse.report.measured import (
    certificate_table,
    measured_sentence,
    measured_table,
    orders_table,
    plot_measured,
)

CURVE = (Point(0.0, 0.4, 0.9), Point(0.5, 0.42, 0.895), Point(0.75, 0.5, 0.8))
NUMBERS = {"effective_weights_baseline": 0.25, "examples": 1234, "seconds": 2.0}


def measured(goal: Goal, metric: str | None = "accuracy", order: str = "magnitude") -> Measured:
    return Measured(CURVE, goal, order, metric)


def shown(table: Table, width: int = 80) -> list[str]:
    text = io.StringIO()
    Console(width=width, file=text).print(table)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_the_answer_is_a_sentence() -> None:
    assert measured_sentence(measured(Goal(max_drop=0.01)), 2000) == (
        "50.0 % of 2,000 weights can go while the accuracy drops by at most 1 point (measured)"
    )
    assert measured_sentence(measured(Goal(tolerance=0.001)), 2000) == (
        "None of 2,000 weights can go while the loss rises by at most 0.001 (measured)"
    )


@pytest.mark.parametrize("width", [80, 120])
def test_a_row_is_a_line(width: int) -> None:
    lines = shown(measured_table(measured(Goal(max_drop=0.01)), NUMBERS, "test examples"), width)
    assert lines == [
        "accuracy  90.00 % -> 89.50 %",
        "loss      0.4 -> 0.42",
        "order     magnitude: which weights go first",
        "data      1,234 test examples; 3 networks in 2.0 s",
        "baseline  25.0 % by the effective number of weights, no data",
    ]


def test_a_metric_of_ones_own_is_no_percentage() -> None:
    lines = shown(measured_table(measured(Goal(max_drop=0.01), "f1"), NUMBERS, "examples"))
    assert lines[0] == "f1        0.9 -> 0.895"
    (axes,) = plot_measured(measured(Goal(max_drop=0.01), "f1"), "mine").axes
    assert axes.get_ylabel() == "f1"
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == [0.9, 0.895, 0.8]


def test_orders_side_by_side() -> None:
    found = (measured(Goal(max_drop=0.01), order="wanda"), measured(Goal(max_drop=0.001)))
    lines = shown(orders_table(OrderComparison(found, {"wanda": 1.5, "magnitude": 0.25}, {"erk": "no layers"})))
    assert [line.split() for line in lines[1:3]] == [
        ["wanda", "50.0", "%", "89.50", "%", "1.5"],
        ["magnitude", "0.0", "%", "90.00", "%", "0.2"],
    ]
    assert lines[-1] == "erk: no layers"


def test_the_picture_shows_what_the_goal_is_about() -> None:
    """The curve, the allowed value and the measured sparsity."""
    cases = [
        (Goal(max_drop=0.01), "accuracy, %", [90.0, 89.5, 80.0], 89.0),
        (Goal(tolerance=0.03), "loss", [0.4, 0.42, 0.5], 0.43),
        (Goal(max_rise=0.1), "loss", [0.4, 0.42, 0.5], 0.44),
    ]
    for goal, label, heights, allowed in cases:
        (axes,) = plot_measured(measured(goal), "mine").axes
        curve, line, answer = axes.lines
        assert axes.get_ylabel() == label
        assert np.asarray(curve.get_ydata()).tolist() == pytest.approx(heights)
        assert np.asarray(line.get_ydata())[0] == pytest.approx(allowed)
        assert (np.asarray(answer.get_xdata())[0], answer.get_label()) == (0.5, "measured 50.0 %")
        low, high = axes.get_ylim()
        assert low < min(heights[0], allowed) < max(heights[0], allowed) < high


def test_the_last_tests_of_a_certificate() -> None:
    model = nn.Linear(4, 2, bias=False)
    model.weight.data = torch.tensor([[4.0, 0.1, 0.2, 3.0], [0.1, 4.0, 0.3, 0.2]])
    inputs = torch.eye(4)[:2].repeat(400, 1)
    data = [(inputs, torch.tensor([0, 1]).repeat(400))]
    found = howsparse.certify(model, data, max_drop=0.01, candidates=[0.125, 0.25, 0.375, 0.5, 0.625, 0.875])
    lines = shown(certificate_table(found))
    assert found.sparsity == 0.625
    assert lines[0].split() == ["removed", "held-out", "accuracy", "worse", "better", "p-value"]
    assert lines[1].split() == ["0.0", "%", "100.00", "%", "before", "pruning"]
    assert [line.split()[0] for line in lines[2:]] == ["37.50", "50.00", "62.50", "87.50"]
    assert [re.split(r"\s{2,}", line)[-1] for line in lines[2:]] == ["passed", "passed", "certified", "did not pass"]
    assert lines[-1].split()[2:6] == ["50.00", "%", "400", "0"]
