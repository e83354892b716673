"""The paper's tables as a person reads them, in a terminal and on a page."""

import io
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["markdown_table", "paper_table"]


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
