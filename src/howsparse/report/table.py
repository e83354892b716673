"""Answers in plain words, for a terminal."""

from typing import Any

from rich.table import Table

from howsparse.limit.assess import Assessment
from howsparse.limit.measure import Point

__all__ = ["answer_table", "comparison_table", "percent"]


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as a percentage.

    >>> percent(0.9491)
    '94.9 %'
    """
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def answer_table(assessment: Assessment, after: Point) -> Table:
    """One row per question a person has; ``after`` is the network pruned in the end."""
    limit = assessment.limit
    low, high = limit.bracket
    table = Table(title="How sparse can this network be pruned?", title_justify="left", show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_row("Weights that pruning may remove", f"{limit.num_weights:,}")
    table.add_row("Loss increase that counts as no worse", f"{limit.tolerance:.4g}")
    table.add_row("The limit: no random subspace sparser than this holds the loss", percent(limit.sparsity))
    table.add_row("   where it lies for sure, at 99 %", f"{percent(low)} to {percent(high)}")
    table.add_row("Promised to exist by the upper bound", percent(limit.upper_bound))
    table.add_row("Certified for removing the smallest weights, now, without retraining", percent(limit.certified))
    table.add_row("Measured: the training loss holds up to", percent(assessment.on_train.sparsity))
    table.add_row("Measured: the test accuracy holds up to", percent(assessment.on_test.sparsity_by_accuracy))
    table.add_row("Test accuracy, all weights", percent(assessment.on_test.dense.accuracy, 2))
    table.add_row(f"Test accuracy, {percent(after.sparsity)} of the weights removed", percent(after.accuracy, 2))
    return table


def comparison_table(title: str, rows: list[dict[str, Any]]) -> Table:
    """Test accuracy in per cent, a row for each method and a column for each sparsity, with what it took in epochs."""
    targets = list(dict.fromkeys(row["target"] for row in rows if row["method"] != "dense"))
    table = Table(title=f"{title}: test accuracy, %", title_justify="left", caption_justify="left")
    table.add_column("method", no_wrap=True)
    for target in targets:
        table.add_column(_target(target, rows), justify="right", no_wrap=True)
    table.add_column("epochs, at most", justify="right")
    refused: dict[str, str] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {row["target"]: row for row in rows if row["method"] == method}
        refused.update((method, row["refused"]) for row in own.values() if "refused" in row)
        cells = [_accuracy(own.get(0.0 if method == "dense" else target)) for target in targets]
        epochs = [row["epochs"] for row in own.values() if "epochs" in row]
        table.add_row(method, *cells, f"{max(epochs):.0f}" if epochs else "-")
    table.caption = "\n".join(f"{method}: {reason}" for method, reason in refused.items()) or None
    return table


def _target(target: float | str, rows: list[dict[str, Any]]) -> str:
    if not isinstance(target, str):
        return percent(target)
    found = [row["sparsity"] for row in rows if row["target"] == target and "sparsity" in row]
    return f"{target}, {percent(sum(found) / len(found))}" if found else target


def _accuracy(row: dict[str, Any] | None) -> str:
    if row is None or "refused" in row:
        return "-"
    spread = row["accuracy_deviation"]
    return f"{100 * row['accuracy']:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")
