"""Commands that train: train, compare, sweep, run."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from howsparse.cli.app import app
from howsparse.cli.measuring import write_training
from howsparse.cli.options import (
    DataOption,
    EpochsOption,
    FolderOption,
    ForceOption,
    ImagesOption,
    JsonOption,
    L1Option,
    ProblemArgument,
    RecordOption,
    SeedOption,
    with_dataclass_options,
)
from howsparse.cli.terminal import (
    note,
    print_json,
    progress_bar,
    resumable,
    show_table,
    stage_bars,
    ticker,
)
from howsparse.errors import InputError
from howsparse.limit.options import LimitOptions
from howsparse.report.table import percent

if TYPE_CHECKING:
    from howsparse.training import Epoch

RUNS = Path("runs")


@app.command()
def train(
    problem: ProblemArgument,
    output: Annotated[Path, typer.Option(help="File for the trained weights (safetensors).")],
    data: DataOption = None,
    epochs: EpochsOption = None,
    l1: L1Option = None,
    proximal: Annotated[bool | None, typer.Option(help="Soft-threshold after each step, for exact zeros.")] = None,
    seed: SeedOption = 0,
    folder: FolderOption = RUNS,
    record: RecordOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a problem's network with l1.

    Checkpoints are ten seconds or one epoch apart. After Ctrl-C or a crash, run the same command again to continue.
    """
    from howsparse.files import save_tensors
    from howsparse.loading import load_problem
    from howsparse.methods import Run, Stages

    loaded = load_problem(problem, data, **given(epochs=epochs, l1=l1, proximal=proximal))
    model = loaded.initial(seed)
    with resumable(folder), epoch_bar(f"training {problem}", loaded.epochs) as show:
        stages = Stages(loaded, seed, Run(folder, on_epoch=show))
        trained = stages.train("dense with l1", model, l1=loaded.l1)
    ticket = stages.ticket(model, trained.mask)
    result = {
        "problem": loaded.name,
        "settings": loaded.settings(),
        "seed": seed,
        "train_loss": ticket.loss,
        "dense_accuracy": ticket.accuracy,
        "seconds": sum(epoch.seconds for epoch in trained.history),
        "loss": [round(epoch.loss, 6) for epoch in trained.history],
        "accuracy": [None if e.accuracy is None else round(e.accuracy, 6) for e in trained.history],
        "weights": str(output),
    }
    write_training(record, result)
    save_tensors(model.state_dict(), output)  # last: if the command is stopped before, the same command goes on
    if as_json:
        print_json({"kind": "train", **result})
    else:
        reached = "" if ticket.accuracy is None else f"test accuracy {percent(ticket.accuracy, 2)}, "
        note(f"{problem}: {reached}training loss {ticket.loss:.4f}; weights in {output}")


@app.command()
@with_dataclass_options
def compare(
    problem: ProblemArgument,
    options: LimitOptions,
    methods: Annotated[
        str,
        typer.Option(
            help="Method names, separated by commas, or all. Options follow a colon: dense,lottery_ticket:fraction=0.5."
        ),
    ] = "all",
    sparsities: Annotated[
        str, typer.Option(help="Sparsities, separated by commas: fractions, limit or predicted.")
    ] = "0.9,0.95,0.98,limit",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, from 0 on.")] = 3,
    data: DataOption = None,
    epochs: EpochsOption = None,
    l1: L1Option = None,
    images: ImagesOption = None,
    folder: FolderOption = RUNS,
    record: RecordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prune a problem's network by several methods to several sparsities, and show the accuracies as a table.

    If a comparison was stopped, run the same command again to continue. Runs in the --record file are not repeated.
    """
    from howsparse.experiments.compare import cases
    from howsparse.experiments.compare import compare as run_all
    from howsparse.experiments.summary import rows
    from howsparse.loading import load_problem
    from howsparse.methods import Run
    from howsparse.records import CaseRecord, append_record, read_records
    from howsparse.report.table import comparison_table

    wanted = cases(method_list(methods), sparsity_list(sparsities), seeds)
    loaded = load_problem(problem, data, **given(epochs=epochs, l1=l1))
    recorded = [] if record is None else read_records(CaseRecord, ("method",), record)
    results: list[CaseRecord] = []
    with resumable(folder), progress_bar() as bar:
        whole = bar.add_task(problem, total=len(wanted))
        row = bar.add_task("", total=None)
        tick = ticker()

        def show(stage: str, epoch: "Epoch") -> None:
            case = wanted[len(results)]
            what = f"{case.method}, sparsity {case.target}, seed {case.seed}: {stage}"
            tick(f"{len(results)} of {len(wanted)} done; {what}, epoch {epoch.epoch + 1}, loss {epoch.loss:.4f}")
            bar.update(row, description=what, completed=epoch.epoch + 1)

        run = Run(folder, images, options, on_epoch=show)
        for result, new in run_all(loaded, wanted, run, recorded):
            results.append(result)
            bar.update(whole, completed=len(results))
            if new and record is not None:
                append_record(result, record)
    table = rows(results)
    if as_json:
        about = {"problem": loaded.name, "epochs": loaded.epochs, "seeds": seeds}
        print_json(about | {"rows": [asdict(row) for row in table]})
    else:
        show_table(comparison_table(f"{loaded.name}, {loaded.epochs} epochs a training, {seeds} seed(s)", table))


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="YAML: tasks, methods, sparsities, seeds.")],
    record: Annotated[Path, typer.Option(help="JSON-lines file for the runs; runs in it are not repeated.")],
    folder: FolderOption = RUNS,
    jobs: Annotated[int, typer.Option(min=1, help="Number of processes on this machine.")] = 1,
    backend: Annotated[str, typer.Option(help="loky (this machine), or a dask or ray cluster.")] = "loky",
    address: Annotated[str | None, typer.Option(help="Scheduler of the cluster; default: start one here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run problems x methods x sparsities x seeds in several processes or on several machines.

    If a sweep was stopped, run the same command again to continue.
    """
    from howsparse.experiments.compare import Case
    from howsparse.experiments.summary import tables
    from howsparse.experiments.sweep import jobs_of, load_sweep, run_jobs
    from howsparse.records import CaseRecord
    from howsparse.report.table import comparison_table

    if backend not in ("loky", "dask", "ray"):
        raise InputError(f"--backend '{backend}' is not known; use loky, dask or ray")
    wanted = jobs_of(load_sweep(file), record, folder)
    results: list[CaseRecord] = []
    with resumable(record), progress_bar() as bar:
        row = bar.add_task(str(file), total=len(wanted))
        for result in run_jobs(wanted, jobs, backend, address):  # type: ignore[arg-type]
            results.append(result)
            bar.update(row, completed=len(results))
            key = result.key
            what = f"{key.problem}, {key.method}, sparsity {key.target}, seed {key.seed}"
            note(f"{len(results)} of {len(wanted)}: {what}")
    order = {job.case: place for place, job in enumerate(wanted)}
    results.sort(key=lambda r: order[Case(r.key.method, r.key.target, r.key.seed)])
    summary = tables(results)
    if as_json:
        found = [{"problem": title, "rows": [asdict(row) for row in table]} for title, table in summary]
        print_json({"runs": len(results), "problems": found})
    for title, table in summary if not as_json else ():
        show_table(comparison_table(title, table))


@app.command()
@with_dataclass_options
def run(
    problem: ProblemArgument,
    options: LimitOptions,
    record: Annotated[Path, typer.Option(help="JSON-lines file for the runs; a run in it is not repeated.")],
    method: Annotated[str, typer.Option(help="Name of the method; options follow a colon.")] = "one_shot",
    sparsity: Annotated[str, typer.Option(help="A fraction, limit or predicted.")] = "limit",
    seed: SeedOption = 0,
    data: DataOption = None,
    epochs: EpochsOption = None,
    images: ImagesOption = None,
    folder: FolderOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Make one record for the paper's tables: train, compute the limit, measure, and prune by a method."""
    from howsparse.experiments.compare import case_key, cases, find_record, run_case
    from howsparse.loading import load_problem
    from howsparse.methods import Run
    from howsparse.records import CaseRecord, append_record, read_records

    (case,) = (replace(case, seed=seed) for case in cases([method], sparsity_list(sparsity), 1))
    loaded = load_problem(problem, data, **given(epochs=epochs))
    with resumable(folder), stage_bars() as show:

        def on_epoch(stage: str, epoch: "Epoch") -> None:
            show(stage, epoch.epoch + 1, loaded.epochs)

        way = Run(folder, images, options, on_epoch=on_epoch, on_limit=show)
        found = find_record(read_records(CaseRecord, ("run",), record), case_key(loaded, case, way, "run"))
        if found is None:
            found = run_case(loaded, case, way, whole=True)
            append_record(found, record)
        else:
            note(f"recorded already in {record}")
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        note(summary_line(found))


def summary_line(record: Any) -> str:
    """The results of a run in one line."""
    studied, key = record.study, record.key
    answer = studied.answer
    return (
        f"{key.problem}, seed {key.seed}: dense {percent(studied.dense_accuracy, 2)}, limit {percent(answer.limit, 2)}"
        f" ({percent(answer.limit_low, 2)} to {percent(answer.limit_high, 2)}), measured"
        f" {percent(studied.measured_by_accuracy, 2)}; {key.method} at {percent(record.sparsity, 2)}:"
        f" {percent(record.accuracy, 2)}"
    )


@contextmanager
def epoch_bar(what: str, epochs: int) -> "Iterator[Callable[[str, Epoch], None]]":
    """A progress bar for the epochs of one training; one line per minute if stderr is not a terminal."""
    with progress_bar() as bar:
        row, tick = bar.add_task(what, total=epochs), ticker()

        def show(stage: str, epoch: "Epoch") -> None:
            tick(f"{what}: epoch {epoch.epoch + 1} of {epochs}, loss {epoch.loss:.4f}")
            bar.update(row, completed=epoch.epoch + 1, description=f"{what}, loss {epoch.loss:.4f}")

        yield show


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def method_list(text: str) -> list[str]:
    """Split names at commas. A comma before ``key=`` separates options of one method, so it is not a split point."""
    from howsparse.methods import METHODS

    return list(METHODS) if text == "all" else [part.strip() for part in re.split(r",(?!\s*\w+=)", text)]


def sparsity_list(text: str) -> "list[float | str]":
    """Read sparsities that are separated by commas.

    Raises:
        InputError: a part is neither a fraction in [0, 1) nor "limit" nor "predicted".
    """
    from howsparse.methods.stages import parse_sparsity

    found: list[float | str] = []
    for part in (part.strip() for part in text.split(",")):
        try:
            found.append(parse_sparsity(part))
        except InputError:
            raise InputError(
                f"--sparsities '{part}' is neither a fraction in [0, 1) nor limit, predicted;"
                " give for example 0.9,limit"
            ) from None
    return found
