"""Answers in plain words, for a terminal."""

import io
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from howsparse.measure import Point
from howsparse.report.assessment import Assessment

__all__ = ["answer_table", "comparison_table", "markdown_table", "paper_table", "percent"]


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


_COLUMNS: dict[int, tuple[tuple[str, str, str | None], ...]] = {
    1: (("1 - T above 1 - U, points", "difference", "paper"), ("bracket", "bracket", None)),
    2: (
        ("limit", "limit", "paper_limit"),
        ("bracket", "bracket", None),
        ("measured by accuracy", "measured", "paper_measured"),
        ("limit - measured", "difference", "paper_difference"),
        ("certified", "certified", None),
        ("measured by loss", "measured_by_loss", None),
    ),
    3: tuple(
        (name, name, f"paper_{name}")
        for name in ("sparsity", "dense", "one_shot", "rare_gems", "lottery_ticket", "smart_ratio")
    ),
}


def paper_table(number: int, rows: list[dict[str, Any]]) -> Table:
    """A table of the paper's, the paper's numbers beside ours; rows of other settings come last and have none."""
    table = Table(title=f"Table {number}, per cent (in brackets, the paper's)", title_justify="left")
    table.add_column("task", no_wrap=True)
    table.add_column("training")
    table.add_column("seeds", justify="right")
    for head, _, _ in _COLUMNS[number]:
        table.add_column(head, justify="right")
    for like_paper in (True, False):
        for row in (row for row in rows if row["as_paper"] == like_paper):
            papers = (row[paper] if paper and like_paper else None for _, _, paper in _COLUMNS[number])
            cells = (_beside(row[ours], paper) for (_, ours, _), paper in zip(_COLUMNS[number], papers, strict=True))
            table.add_row(row["task"], _setting(row), str(row["seeds"]), *cells)
        table.add_section()
    return table


def markdown_table(table: Table) -> str:
    """The same for a page: one line for each row, without a title."""
    table.title, table.box = None, box.MARKDOWN
    for column in table.columns:
        column.no_wrap = True
    for row in table.rows:
        row.end_section = False
    page = Console(width=1000, file=io.StringIO())
    page.print(table)
    lines = page.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _setting(row: dict[str, Any]) -> str:
    setting = f"{row['epochs']} epochs, {row['images']:,} images"
    return setting if row["as_paper"] else f"{setting}: not the paper's"


def _beside(ours: dict[str, float | None] | list[float] | None, paper: str | None) -> str:
    text = "-"
    if isinstance(ours, list):
        text = f"{ours[0]:.2f} to {ours[1]:.2f}"
    elif ours is not None:
        spread = ours["deviation"]
        text = f"{ours['mean']:.2f}" + ("" if spread is None else f" ± {spread:.2f}")
    return text if paper is None else f"{text} (paper: {paper})"
