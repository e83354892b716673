"""Commands that show the paper's tables and figures from recorded runs."""

from pathlib import Path
from typing import Annotated

import typer

from howsparse.cli.app import app
from howsparse.cli.options import ForceOption, JsonOption
from howsparse.cli.terminal import check_output, note, print_json, show_table
from howsparse.errors import InputError

RunsOption = Annotated[
    list[Path], typer.Option("--record", help="JSON-lines file of runs; give it again for more files.")
]


@app.command("table")
def paper_table(
    number: Annotated[int, typer.Argument(help="Number of the table in the paper: 1, 2 or 3.")],
    record: RunsOption = [Path("results/runs.jsonl")],  # noqa: B006 (typer reads it)
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one of the paper's tables from recorded runs, with the paper's numbers."""
    from howsparse.paper.render import markdown_table
    from howsparse.paper.render import paper_table as shown
    from howsparse.paper.tables import table
    from howsparse.records import CaseRecord, read_records

    rows = table(number, read_records(CaseRecord, ("run", "method"), *record))
    if not rows:
        files = ", ".join(map(str, record))
        raise InputError(f"{files}: no run of a paper's task; `howsparse run TASK --record {record[0]}` makes one")
    if as_json:
        print_json({"table": number, "rows": [row.as_json() for row in rows]})
    elif markdown:
        typer.echo(markdown_table(shown(number, rows)))
    else:
        show_table(shown(number, rows))


@app.command("figure")
def paper_figure(
    name: Annotated[str, typer.Argument(help="2, 3 or 4, as in the paper; or rows or magnitudes (appendix).")],
    record: RunsOption = [Path("results/runs.jsonl"), Path("results/iteration.jsonl")],  # noqa: B006
    output: Annotated[Path | None, typer.Option(help="File name without suffix; default: figure-NAME.")] = None,
    force: ForceOption = False,
) -> None:
    """Draw one of the paper's figures from recorded runs, as a PDF file and a PNG file."""
    from howsparse.paper.figures import paper_figure as drawn
    from howsparse.report.plots import save_figure

    stem = Path(f"figure-{name}") if output is None else output
    files = [stem.with_name(stem.name + suffix) for suffix in (".pdf", ".png")]
    for file in files:
        check_output(file, force)
    figure = drawn(name, record)
    for file in files:
        save_figure(figure, file)
    note(f"figure {name}: {', '.join(map(str, files))}")
