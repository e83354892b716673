"""Commands that train, and those that show what came of it: train, compare, sweep, run, table, figure."""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from howsparse.cli.app import app
from howsparse.cli.options import (
    DataOption,
    ForceOption,
    ImagesOption,
    JsonOption,
    ProductsOption,
    RecordOption,
    SeedOption,
)
from howsparse.cli.terminal import (
    check_output,
    check_writable,
    note,
    print_json,
    progress_bar,
    resumable,
    show_table,
    stage_bars,
    ticker,
)
from howsparse.errors import InputError
from howsparse.limit.compute import MAX_PRODUCTS
from howsparse.report.table import percent

if TYPE_CHECKING:
    from howsparse.methods import Sparsity


@app.command()
def train(
    task: Annotated[str, typer.Argument(help="Name of a task, such as fc5-cifar10.")],
    output: Annotated[Path, typer.Option(help="Where the trained weights go (safetensors).")],
    data: Annotated[str | None, typer.Option(help="Data set: a hub name, or a local folder in its schema.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    l1: Annotated[float | None, typer.Option(min=0, help="Strength of the l1 term, instead of the recipe's.")] = None,
    proximal: Annotated[bool | None, typer.Option(help="Soft-threshold after the step: exact zeros.")] = None,
    seed: SeedOption = 0,
    record: RecordOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a task's network with l1. Ctrl-C or a crash loses at most one epoch: the same command resumes."""
    from howsparse.experiments.train import train_task
    from howsparse.files import save_tensors
    from howsparse.records import append_record, provenance
    from howsparse.tasks import load_task
    from howsparse.training import Epoch

    check_output(output, force)
    changes = {"epochs": epochs, "l1": l1, "proximal": proximal}
    loaded = load_task(task, data).with_recipe(**{name: value for name, value in changes.items() if value is not None})
    checkpoint = output.with_name(output.name + ".checkpoint")
    with resumable(checkpoint), progress_bar() as bar:
        row = bar.add_task(f"training {task}", total=loaded.recipe.epochs)

        tick = ticker()

        def show(epoch: Epoch) -> None:
            tick(f"training {task}: epoch {epoch.epoch + 1} of {loaded.recipe.epochs}, loss {epoch.loss:.4f}")
            bar.update(row, completed=epoch.epoch + 1, description=f"training {task}, loss {epoch.loss:.4f}")

        trained = train_task(loaded, seed, checkpoint, on_epoch=show)
    save_tensors(trained.model.state_dict(), output)
    checkpoint.unlink(missing_ok=True)
    result = trained.summary() | {"weights": str(output)}
    if record is not None:
        append_record(result | provenance(), record)
    if as_json:
        print_json(result)
    else:
        accuracy = percent(trained.accuracy, 2)
        note(f"{task}: test accuracy {accuracy}, training loss {trained.loss:.4f}; weights in {output}")


@app.command()
def compare(
    task: Annotated[str, typer.Argument(help="Name of a task, such as digits.")],
    methods: Annotated[
        str,
        typer.Option(help="Names with commas between, options after a colon: dense,lottery_ticket:rate=0.5; or all."),
    ] = "all",
    sparsities: Annotated[
        str, typer.Option(help="Fractions, limit, certified; commas between.")
    ] = "0.9,0.95,0.98,limit",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each, from seed 0 on.")] = 3,
    data: DataOption = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each training, instead of the recipe's.")] = None,
    l1: Annotated[float | None, typer.Option(min=0, help="Of one_shot, instead of the recipe's.")] = None,
    images: ImagesOption = None,
    max_products: ProductsOption = MAX_PRODUCTS,
    folder: Annotated[Path, typer.Option(help="Where trainings are kept, so that none is run twice.")] = Path("runs"),
    record: RecordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prune a task's network by many methods to many sparsities, and tabulate what accuracy is left.

    A comparison that was stopped goes on where it was. What --record FILE has already is not run again.
    """
    from howsparse.experiments.compare import cases, rows
    from howsparse.experiments.compare import compare as run_all
    from howsparse.methods import Run
    from howsparse.records import append_record, provenance, read_records
    from howsparse.report.table import comparison_table
    from howsparse.tasks import load_task
    from howsparse.training import Epoch

    wanted = cases(method_list(methods), sparsity_list(sparsities), seeds)
    changes = {name: value for name, value in {"epochs": epochs, "l1": l1}.items() if value is not None}
    loaded = load_task(task, data).with_recipe(**changes)
    recorded = [] if record is None else read_records(record)
    results: list[dict[str, Any]] = []
    kept = folder / f"compare-{task}"
    with resumable(kept), progress_bar() as bar:
        whole = bar.add_task(task, total=len(wanted))
        row = bar.add_task("", total=None)
        tick = ticker()

        def show(stage: str, epoch: Epoch) -> None:
            case = wanted[len(results)]
            what = f"{case.method}, sparsity {case.target}, seed {case.seed}: {stage}"
            tick(f"{len(results)} of {len(wanted)} done; {what}, epoch {epoch.epoch + 1}, loss {epoch.loss:.4f}")
            bar.update(row, description=what, completed=epoch.epoch + 1)

        run = Run(kept, images, max_products, on_epoch=show)
        for result, new in run_all(loaded, wanted, run, recorded):
            results.append(result)
            bar.update(whole, completed=len(results))
            if new and record is not None:
                append_record(result | provenance(), record)
    table = rows(results)
    if as_json:
        print_json({"task": task, "epochs": loaded.recipe.epochs, "seeds": seeds, "rows": table})
    else:
        show_table(comparison_table(f"{task}, {loaded.recipe.epochs} epochs a training, {seeds} seed(s)", table))


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="YAML: tasks, methods, sparsities, seeds.")],
    record: Annotated[Path, typer.Option(help="JSON-lines file of the runs; those in it are not run again.")],
    folder: Annotated[Path, typer.Option(help="Where trainings are kept.")] = Path("runs"),
    jobs: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    backend: Annotated[str, typer.Option(help="loky (this machine), or a dask or ray cluster.")] = "loky",
    address: Annotated[str | None, typer.Option(help="Of the cluster's scheduler; else one is started here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run tasks x methods x sparsities x seeds over processes or machines. The same command goes on where it was."""
    from howsparse.experiments.compare import Case, rows
    from howsparse.experiments.sweep import jobs_of, load_sweep, run_jobs
    from howsparse.report.table import comparison_table

    if backend not in ("loky", "dask", "ray"):
        raise InputError(f"--backend '{backend}' is not loky, dask or ray")
    wanted = jobs_of(load_sweep(file), record, folder)
    check_writable(record)
    results: list[dict[str, Any]] = []
    with resumable(record), progress_bar() as bar:
        row = bar.add_task(str(file), total=len(wanted))
        for result in run_jobs(wanted, jobs, backend, address):  # type: ignore[arg-type]
            results.append(result)
            bar.update(row, completed=len(results))
            what = f"{result['task']}, {result['method']}, sparsity {result['target']}, seed {result['seed']}"
            note(f"{len(results)} of {len(wanted)}: {what}")
    order = {(job.entry.task, job.case): place for place, job in enumerate(wanted)}
    results.sort(key=lambda r: order[r["task"], Case(r["method"], r["target"], r["seed"])])
    tables = {
        task: rows([r for r in results if r["task"] == task]) for task in dict.fromkeys(r["task"] for r in results)
    }
    if as_json:
        print_json({"runs": len(results), "tasks": tables})
    for task, table in tables.items() if not as_json else ():
        show_table(comparison_table(task, table))


@app.command()
def run(
    task: Annotated[str, typer.Argument(help="Name of a task, such as fc5-cifar10.")],
    record: Annotated[Path, typer.Option(help="JSON-lines file of the runs; one that is in it is not run again.")],
    method: Annotated[str, typer.Option(help="Name, with options after a colon.")] = "one_shot",
    sparsity: Annotated[str, typer.Option(help="A fraction, limit or certified.")] = "limit",
    seed: SeedOption = 0,
    data: DataOption = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each training, instead of the recipe's.")] = None,
    images: ImagesOption = None,
    max_products: ProductsOption = MAX_PRODUCTS,
    folder: Annotated[Path, typer.Option(help="Where trainings are kept.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Make one record of the paper's tables: train, compute the limit, measure it, and prune by a method."""
    from howsparse.experiments.compare import cases, find_record, run_whole
    from howsparse.methods import Run
    from howsparse.records import append_record, provenance, read_records
    from howsparse.tasks import load_task
    from howsparse.training import Epoch

    (case,) = (replace(case, seed=seed) for case in cases([method], sparsity_list(sparsity), 1))
    loaded = load_task(task, data).with_recipe(**({} if epochs is None else {"epochs": epochs}))
    check_writable(record)
    kept = folder / f"compare-{task}"
    with resumable(kept), stage_bars() as show:

        def on_epoch(stage: str, epoch: Epoch) -> None:
            show(stage, epoch.epoch + 1, loaded.recipe.epochs)

        way = Run(kept, images, max_products, on_epoch=on_epoch)
        found = find_record(read_records(record), loaded, case, way, kind="run")
        if found is None:
            found = run_whole(loaded, case, way, show) | provenance()
            append_record(found, record)
        else:
            note(f"recorded already in {record}")
    if as_json:
        print_json(found)
        return
    studied = found["study"]
    note(
        f"{task}, seed {seed}: dense {percent(studied['dense_accuracy'], 2)}, limit {percent(studied['limit'], 2)}"
        f" ({percent(studied['limit_low'], 2)} to {percent(studied['limit_high'], 2)}), measured"
        f" {percent(studied['measured_by_accuracy'], 2)}; {method} at {percent(found.get('sparsity'), 2)}:"
        f" {percent(found.get('accuracy'), 2)}"
    )


RunsOption = Annotated[list[Path], typer.Option("--record", help="JSON-lines files of runs; several are merged.")]


@app.command("table")
def paper_table(
    number: Annotated[int, typer.Argument(help="1, 2 or 3, as in the paper.")],
    record: RunsOption = [Path("results/runs.jsonl")],  # noqa: B006 (typer reads it)
    markdown: Annotated[bool, typer.Option("--markdown", help="For a page.")] = False,
    as_json: JsonOption = False,
) -> None:
    """One of the paper's tables from the runs that are recorded, the paper's numbers beside them."""
    from howsparse.paper.render import markdown_table
    from howsparse.paper.render import paper_table as shown
    from howsparse.paper.tables import table
    from howsparse.records import read_records

    rows = table(number, read_records(*record))
    if not rows:
        files = ", ".join(map(str, record))
        raise InputError(f"{files}: no run of a paper's task; `howsparse run TASK --record {record[0]}` makes one")
    if as_json:
        print_json({"table": number, "rows": rows})
    elif markdown:
        typer.echo(markdown_table(shown(number, rows)))
    else:
        show_table(shown(number, rows))


@app.command("figure")
def paper_figure(
    name: Annotated[str, typer.Argument(help="2, 3 or 4, as in the paper; rows or magnitudes, of its appendix.")],
    record: RunsOption = [Path("results/runs.jsonl"), Path("results/iteration.jsonl")],  # noqa: B006
    output: Annotated[Path | None, typer.Option(help="Without a suffix; figure-NAME unless given.")] = None,
    force: ForceOption = False,
) -> None:
    """One of the paper's figures from the runs that are recorded: as PDF, which scales, and as PNG."""
    from howsparse.paper.figures import paper_figure as drawn
    from howsparse.records import read_records
    from howsparse.report.plots import save_figure

    stem = Path(f"figure-{name}") if output is None else output
    files = [stem.with_name(stem.name + suffix) for suffix in (".pdf", ".png")]
    for file in files:
        check_output(file, force)
    figure = drawn(name, read_records(*record))
    for file in files:
        save_figure(figure, file)
    note(f"figure {name}: {', '.join(map(str, files))}")


def method_list(text: str) -> list[str]:
    """Names with commas between; a comma before ``key=`` belongs to the options of the method before it."""
    from howsparse.methods import method_names

    return method_names() if text == "all" else [part.strip() for part in re.split(r",(?!\s*\w+=)", text)]


def sparsity_list(text: str) -> "list[Sparsity]":
    """Fractions and words with commas between.

    Raises:
        InputError: something else.
    """
    from howsparse.pruning.masks import check_sparsity

    words: tuple[Literal["limit", "certified"], ...] = ("limit", "certified")
    found: list[Sparsity] = []
    for part in (part.strip() for part in text.split(",")):
        try:
            found.append(part if part in words else check_sparsity(float(part)))
        except ValueError:
            raise InputError(f"--sparsities '{part}' is neither a fraction in [0, 1) nor limit, certified") from None
    return found
