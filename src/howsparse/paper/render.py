"""The paper's tables as text, for a terminal and as Markdown."""

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from howsparse.paper.tables import TABLE_METHODS, BoundsRow, MethodsRow, PaperRow, PredictionRow, Setting, Spread

__all__ = ["markdown_table", "paper_table"]

_HEADS: dict[int, tuple[str, ...]] = {
    1: ("1 - T above 1 - U, points", "upper end"),
    2: ("limit", "bracket", "measured by accuracy", "limit - measured", "predicted", "measured by loss"),
    3: ("sparsity", *TABLE_METHODS),
}


def paper_table(number: int, rows: Sequence[PaperRow]) -> Table:
    """A table of the paper, with the paper's numbers in brackets.

    Rows with settings that differ from the paper's come last. They do not show the paper's numbers.
    """
    table = Table(title=f"Table {number}, per cent (in brackets, the paper's)", title_justify="left")
    table.add_column("task", no_wrap=True)
    table.add_column("training")
    table.add_column("seeds", justify="right")
    for head in _HEADS[number]:
        table.add_column(head, justify="right")
    for like_paper in (True, False):
        for row in (row for row in rows if row.setting.as_paper == like_paper):
            table.add_row(row.setting.task, _training(row.setting), str(row.seeds), *_cells(row))
        table.add_section()
    return table


def markdown_table(table: Table) -> str:
    """The table as Markdown: one line for each row, without a title."""
    table.title, table.box = None, box.MARKDOWN
    for column in table.columns:
        column.no_wrap = True
    for row in table.rows:
        row.end_section = False
    text = io.StringIO()
    Console(width=1000, file=text).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())


def _cells(row: PaperRow) -> list[str]:
    """The texts of a row's cells."""
    shown = row.setting.as_paper

    def beside(ours: Spread | None, paper: str) -> str:
        return f"{_mean(ours)} (paper: {paper})" if shown and paper != "-" else _mean(ours)

    match row:
        case BoundsRow():
            ours = _bounds(row)
            return [f"{ours} (paper: {row.paper})" if shown else ours, _upper_end(row)]
        case PredictionRow():
            return [
                beside(row.limit, row.paper_limit),
                _range(row.bracket),
                beside(row.measured, row.paper_measured),
                beside(row.difference, row.paper_difference),
                _mean(row.predicted),
                _mean(row.measured_by_loss),
            ]
        case MethodsRow():
            accuracies = [beside(row.accuracy[method], row.paper_accuracy[method]) for method in TABLE_METHODS]
            given = [f", {row.options[method]}" if row.options[method] else "" for method in TABLE_METHODS]
            return [
                beside(row.sparsity, row.paper_sparsity),
                *(f"{cell}{options}" for cell, options in zip(accuracies, given, strict=True)),
            ]


def _bounds(row: BoundsRow) -> str:
    """The difference of the bounds, or what is known of it."""
    if row.bracket is None:
        return "unknown"
    if row.difference is not None:
        return _mean(row.difference)
    return f"at most {row.bracket[1]:.2f}" if f"{row.bracket[0]:.2f}" == "0.00" else _range(row.bracket)


def _upper_end(row: BoundsRow) -> str:
    """Where the upper end of the difference comes from."""
    if row.bracket is None:
        return "-"
    return "T itself, which always holds" if row.trivial else "computed"


def _training(setting: Setting) -> str:
    text = f"{setting.epochs} epochs, {setting.images:,} images"
    return text if setting.as_paper else f"{text}: not the paper's"


def _mean(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.2f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.2f}")


def _range(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"
