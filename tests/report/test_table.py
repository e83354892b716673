"""What the terminal shows of a network's answer, and of methods side by side."""

import io

import pytest
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from howsparse.experiments.summary import Row
from howsparse.limit.assess import Assessment, assess
from howsparse.limit.measure import Point
from howsparse.limit.options import LimitOptions
from howsparse.report.plots import plot_assessment
from howsparse.report.table import answer_table, comparison_table

Batch = tuple[Tensor, Tensor]


def shown(table: Table, width: int = 200) -> list[str]:
    text = io.StringIO()
    Console(width=width, file=text).print(table)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def squared_error(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def regression() -> Assessment:
    """The answer for a linear regression, whose loss cannot score."""
    torch.manual_seed(0)
    model, inputs = nn.Linear(8, 2), torch.randn(256, 8)
    batches = [(inputs, inputs @ torch.randn(8, 2))]
    return assess(model, batches, batches, loss=squared_error, options=LimitOptions(tolerance=0.1, max_products=32))


def test_an_answer_says_limit_predicted_and_measured() -> None:
    digits = torch.eye(8).repeat(32, 1), torch.arange(8).repeat(32)
    answer = assess(nn.Linear(8, 8), [digits], [digits], options=LimitOptions(tolerance=0.1, max_products=32))
    lines = shown(answer_table(answer, Point(0.5, 1.25, 0.5)))
    text = "\n".join(lines)
    for word in ("now", "measured", "this is the answer", "at most", "bracket", "predicted", "its mask"):
        assert word in text
    for word in ("guaranteed", "Promised", "for sure"):
        assert word.lower() not in text.lower()
    assert f"{100 * answer.on_train.sparsity:.1f} % keeps the training loss" in text
    assert any("50.00 % with 50.0 % removed" in line for line in lines)


@pytest.mark.parametrize("width", [80, 160])
def test_an_answer_is_at_most_fifteen_lines(width: int) -> None:
    """Also on a narrow terminal, for a limit that is not resolved."""
    answer = regression()
    assert not answer.limit.resolved
    lines = shown(answer_table(answer, Point(0.5, 1.25, None)), width)
    assert len(lines) <= 13  # two lines with the commands to use next follow
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert "not resolved: a bracket of" in text
    middle = sum(answer.limit.bracket) / 2
    assert f"{100 * middle:.1f} %" not in text


def test_an_answer_without_accuracies_shows_test_losses() -> None:
    answer = regression()
    text = "\n".join(shown(answer_table(answer, Point(0.5, 1.25, None))))
    assert "accuracy" not in text
    assert "1.25 with 50.0 % removed" in text
    above, below = plot_assessment(answer, "regression").axes
    labels = [line.get_label() for line in above.lines]
    assert f"predicted {100 * answer.limit.predicted:.1f} %" in labels
    assert below.get_ylabel() == ""


def test_methods_side_by_side() -> None:
    rows = [
        Row("dense", 0.0, seeds=(0,), sparsity=0.0, accuracy=0.98, epochs=5.0),
        Row("one_shot", 0.9, seeds=(0, 1), sparsity=0.9, accuracy=0.97, accuracy_deviation=0.01, epochs=5.0),
        Row("one_shot", "limit", seeds=(0, 1), sparsity=0.95, accuracy=0.96, accuracy_deviation=0.01, epochs=10.0),
        Row("smart_ratio", 0.9, refused="no convolutions"),
    ]
    lines = shown(comparison_table("digits", rows))
    assert lines[0] == "digits: test accuracy, %"
    cells = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]] for line in lines if "│" in line
    }
    assert cells["dense"] == ["98.00", "98.00", "5"]
    assert cells["one_shot"] == ["97.00 ± 1.00", "96.00 ± 1.00", "10"]
    assert cells["smart_ratio"] == ["-", "-", "-"]
    assert any("limit, 95.0 %" in line for line in lines)
    assert lines[-1] == "smart_ratio: no convolutions"


def test_methods_whose_loss_cannot_score() -> None:
    rows = [
        Row("one_shot", 0.9, seeds=(0,), sparsity=0.9, test_loss=0.125, epochs=5.0),
        Row("random", 0.9, seeds=(0,), sparsity=0.9, test_loss=2.5, epochs=5.0),
    ]
    lines = shown(comparison_table("regression", rows))
    assert lines[0] == "regression: test loss"
    assert any("one_shot" in line and "0.125" in line for line in lines)
    assert any("random" in line and "2.5" in line for line in lines)


@pytest.mark.parametrize("rows", [[], [Row("smart_ratio", 0.9, refused="no convolutions")]])
def test_nothing_to_compare_is_no_fault(rows: list[Row]) -> None:
    assert comparison_table("digits", rows).row_count == len(rows)
