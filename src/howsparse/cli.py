"""The command line: a thin face on the library. Answers go to stdout, progress and warnings to stderr."""

import io
import itertools
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import nn

from howsparse import parallel
from howsparse.errors import InputError
from howsparse.limit import MAX_PRODUCTS

if TYPE_CHECKING:
    from howsparse.methods import Sparsity
    from howsparse.tasks.data import Batches

__all__ = ["app", "main"]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(stderr=True)


@app.callback()
def howsparse() -> None:
    """How sparse can a neural network be pruned before it gets worse? Computed, not swept for."""


ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A task, such as fc5-cifar10, or package.module:factory.")
]
WeightsOption = Annotated[Path | None, typer.Option("--weights", help="State dict: safetensors, or torch's own.")]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="For a task, a hub name or local folder; else an .npz file or package.module:batches."),
]
ImagesOption = Annotated[
    int | None, typer.Option(min=1, help="Use only the first so many training images of a task for the curvature.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Examples in a batch of the curvature.")]
CurvatureOption = Annotated[str, typer.Option(help="hessian, or ggn (Gauss-Newton).")]
NegativeOption = Annotated[
    str, typer.Option(help="Negative curvature: wall (the paper's absolute value) or unbounded (clipped).")
]
ToleranceOption = Annotated[
    float | None, typer.Option(help="Loss increase allowed; else the deviation over mini-batches of 128.")
]
PrecisionOption = Annotated[float, typer.Option(help="Width of the bracket to stop at.")]
ProductsOption = Annotated[int, typer.Option(help="Curvature products to spend at most.")]
SeedOption = Annotated[int, typer.Option(min=0, help="The same seed gives the same answer, to the last bit.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace output files that exist.")]
RecordOption = Annotated[Path | None, typer.Option(help="Append the run to this JSON-lines file.")]
PlotOption = Annotated[Path | None, typer.Option(help="Draw the answer into this .png, .svg or .pdf file.")]


@app.command()
def demo(
    output: Annotated[
        Path | None, typer.Option(help="The picture; else howsparse-demo.png or the next free name.")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    force: ForceOption = False,
) -> None:
    """Train a small network on scikit-learn's digits, predict its limit, prune it, and check."""
    from howsparse.experiments.train import train_task
    from howsparse.report.plots import plot_assessment, save_figure
    from howsparse.tasks import load_task

    output = free_name(Path("howsparse-demo.png")) if output is None else output
    check_output(output, force)
    task = load_task("digits")
    with progress_bar() as bar:
        row = bar.add_task("training on digits", total=task.recipe.epochs)
        trained = train_task(task, seed, on_epoch=lambda epoch: bar.update(row, completed=epoch.epoch + 1))
    subject = Subject(trained.model, task.train_batches(), task.test_batches())
    report(subject, "certified", seed=seed, as_json=as_json, options={}, about={"task": "digits", "seed": seed})
    save_figure(plot_assessment(subject.answer, "Digits, 64-64-32-10 ReLU network trained with l1"), output)
    note(f"picture: {output}")


@app.command()
def limit(
    model: ModelArgument,
    weights: WeightsOption = None,
    data: DataOption = None,
    images: ImagesOption = None,
    batch_size: BatchOption = 1000,
    curvature: CurvatureOption = "hessian",
    negative: NegativeOption = "wall",
    tolerance: ToleranceOption = None,
    precision: PrecisionOption = 0.002,
    max_products: ProductsOption = MAX_PRODUCTS,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    plot: PlotOption = None,
    record: RecordOption = None,
    force: ForceOption = False,
) -> None:
    """Compute how sparse a trained network can be pruned, and measure how far pruning really gets."""
    if plot is not None:
        check_output(plot, force)
    subject = load_subject(model, weights, data, images, batch_size)
    about = {"kind": "limit", "model": model, "seed": seed, "images": images}
    options = limit_options(curvature, negative, tolerance, precision, max_products)
    report(subject, "certified", seed=seed, as_json=as_json, options=options, about=about, record=record)
    if plot is not None:
        from howsparse.report.plots import plot_assessment, save_figure

        save_figure(plot_assessment(subject.answer, model), plot)
        note(f"picture: {plot}")


@app.command()
def prune(
    model: ModelArgument,
    output: Annotated[Path, typer.Option(help="Where the pruned weights go (safetensors, removed weights exactly 0).")],
    weights: WeightsOption = None,
    data: DataOption = None,
    sparsity: Annotated[
        str, typer.Option(help="A fraction such as 0.95, or: certified, measured, limit.")
    ] = "certified",
    mask: Annotated[Path | None, typer.Option(help="Write the mask to this file, too.")] = None,
    images: ImagesOption = None,
    batch_size: BatchOption = 1000,
    curvature: CurvatureOption = "hessian",
    negative: NegativeOption = "wall",
    tolerance: ToleranceOption = None,
    precision: PrecisionOption = 0.002,
    max_products: ProductsOption = MAX_PRODUCTS,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    record: RecordOption = None,
    force: ForceOption = False,
) -> None:
    """Prune a trained network by magnitude, as far as its limit says or to a given sparsity, and check it."""
    from howsparse.files import save_tensors

    check_sparsity_word(sparsity)
    check_output(output, force)
    if mask is not None:
        check_output(mask, force)
    subject = load_subject(model, weights, data, images, batch_size)
    about = {"kind": "prune", "model": model, "seed": seed, "images": images, "weights": str(output)}
    options = limit_options(curvature, negative, tolerance, precision, max_products)
    kept = report(subject, sparsity, seed=seed, as_json=as_json, options=options, about=about, record=record)
    kept.apply_(subject.model)
    save_tensors(subject.model.state_dict(), output)
    if mask is not None:
        kept.save(mask)
    note(f"{kept.num_weights - kept.num_kept:,} of {kept.num_weights:,} weights set to zero; written to {output}")


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
    from howsparse.experiments.record import append_record, provenance
    from howsparse.experiments.train import train_task
    from howsparse.files import save_tensors
    from howsparse.report.table import percent
    from howsparse.tasks import load_task
    from howsparse.training import Epoch

    check_output(output, force)
    changes = {"epochs": epochs, "l1": l1, "proximal": proximal}
    loaded = load_task(task, data).with_recipe(**{name: value for name, value in changes.items() if value is not None})
    checkpoint = output.with_name(output.name + ".checkpoint")
    with progress_bar() as bar:
        row = bar.add_task(f"training {task}", total=loaded.recipe.epochs)

        tick = ticker()

        def show(epoch: Epoch) -> None:
            tick(f"training {task}: epoch {epoch.epoch + 1} of {loaded.recipe.epochs}, loss {epoch.loss:.4f}")
            bar.update(row, completed=epoch.epoch + 1, description=f"training {task}, loss {epoch.loss:.4f}")

        try:
            trained = train_task(loaded, seed, checkpoint, on_epoch=show)
        except KeyboardInterrupt:
            bar.stop()
            note(f"stopped; the same command goes on from {checkpoint}")
            raise typer.Exit(130) from None
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
    from howsparse.experiments.record import append_record, provenance, read_records
    from howsparse.methods import Run
    from howsparse.report.table import comparison_table
    from howsparse.tasks import load_task
    from howsparse.training import Epoch

    wanted = cases(method_list(methods), sparsity_list(sparsities), seeds)
    changes = {name: value for name, value in {"epochs": epochs, "l1": l1}.items() if value is not None}
    loaded = load_task(task, data).with_recipe(**changes)
    recorded = [] if record is None else read_records(record)
    results: list[dict[str, Any]] = []
    with progress_bar() as bar:
        whole = bar.add_task(task, total=len(wanted))
        row = bar.add_task("", total=None)
        tick = ticker()

        def show(stage: str, epoch: Epoch) -> None:
            case = wanted[len(results)]
            what = f"{case.method}, sparsity {case.target}, seed {case.seed}: {stage}"
            tick(f"{len(results)} of {len(wanted)} done; {what}, epoch {epoch.epoch + 1}, loss {epoch.loss:.4f}")
            bar.update(row, description=what, completed=epoch.epoch + 1)

        run = Run(folder / f"compare-{task}", images, max_products, on_epoch=show)
        try:
            for result, new in run_all(loaded, wanted, run, recorded):
                results.append(result)
                bar.update(whole, completed=len(results))
                if new and record is not None:
                    append_record(result | provenance(), record)
        except KeyboardInterrupt:
            bar.stop()
            note(f"stopped; the same command goes on from {run.folder}")
            raise typer.Exit(130) from None
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
    with progress_bar() as bar:
        row = bar.add_task(str(file), total=len(wanted))
        try:
            for result in run_jobs(wanted, jobs, backend, address):  # type: ignore[arg-type]
                results.append(result)
                bar.update(row, completed=len(results))
                what = f"{result['task']}, {result['method']}, sparsity {result['target']}, seed {result['seed']}"
                note(f"{len(results)} of {len(wanted)}: {what}")
        except KeyboardInterrupt:
            bar.stop()
            note("stopped; the same command goes on")
            raise typer.Exit(130) from None
    order = {(job.entry.task, job.case): place for place, job in enumerate(wanted)}
    results.sort(key=lambda r: order[r["task"], Case(r["method"], r["target"], r["seed"])])
    tables = {
        task: rows([r for r in results if r["task"] == task]) for task in dict.fromkeys(r["task"] for r in results)
    }
    if as_json:
        print_json({"runs": len(results), "tasks": tables})
    for task, table in tables.items() if not as_json else ():
        show_table(comparison_table(task, table))


def method_list(text: str) -> list[str]:
    """Names with commas between; a comma before ``key=`` belongs to the options of the method before it."""
    from howsparse.methods import method_names

    return method_names() if text == "all" else [part.strip() for part in re.split(r",(?!\s*\w+=)", text)]


def sparsity_list(text: str) -> "list[Sparsity]":
    """Fractions and words with commas between.

    Raises:
        InputError: something else.
    """
    from howsparse.masks import check_sparsity

    words: tuple[Literal["limit", "certified"], ...] = ("limit", "certified")
    found: list[Sparsity] = []
    for part in (part.strip() for part in text.split(",")):
        try:
            found.append(part if part in words else check_sparsity(float(part)))
        except ValueError:
            raise InputError(f"--sparsities '{part}' is neither a fraction in [0, 1) nor limit, certified") from None
    return found


@dataclass
class Subject:
    """The network a command is about, its data, and, once computed, its answer."""

    model: nn.Module
    train: Iterable[Any]
    test: Iterable[Any]
    whole: "Batches | None" = None  # all of a task's training data, where train may be a part
    answer: Any = None


def load_subject(model: str, weights: Path | None, data: str | None, images: int | None, batch_size: int) -> Subject:
    """The named network with its weights and data."""
    from howsparse.loading import load_batches, load_factory, load_weights

    if ":" not in model:
        from howsparse.tasks import load_recipe, load_task

        load_recipe(model)
        if weights is None:
            raise InputError(f"give --weights FILE; `howsparse train {model} --output FILE` makes one")
        if not weights.is_file():
            raise InputError(f"no weights file at {weights}; `howsparse train {model} --output {weights}` makes one")
        task = load_task(model, data)
        train, whole = task.train_batches(batch_size, images), task.train_batches(batch_size)
        subject = Subject(task.network(), train, task.test_batches(), whole)
    else:
        made = load_factory(model)
        made = made() if not isinstance(made, nn.Module) and callable(made) else made
        if not isinstance(made, nn.Module):
            raise InputError(f"'{model}' gives a {type(made).__name__}, not a torch.nn.Module")
        if data is None:
            raise InputError("give --data: an .npz file of inputs and targets, or package.module:batches")
        subject = Subject(made, *load_batches(data, batch_size))
    if weights is not None:
        load_weights(subject.model, weights)
    return subject


def limit_options(
    curvature: str, negative: str, tolerance: float | None, precision: float, max_products: int
) -> dict[str, Any]:
    """What the commands that compute a limit pass on to it."""
    return {
        "curvature": curvature,
        "negative": negative,
        "tolerance": tolerance,
        "precision": precision,
        "max_products": max_products,
    }


def report(
    subject: Subject,
    sparsity: str,
    *,
    seed: int,
    as_json: bool,
    options: dict[str, Any],
    about: dict[str, object],
    record: Path | None = None,
) -> Any:
    """Assess, prune to ``sparsity`` (a fraction or a word), print the answer, record it; returns the mask."""
    from howsparse.curvature import EmpiricalRisk
    from howsparse.limit import default_tolerance
    from howsparse.report import answer_table, assess
    from howsparse.report.assessment import check_pruned

    if subject.whole is not None:
        options = options | {"population": len(subject.whole.images)}
        if options.get("tolerance") is None:
            options["tolerance"] = default_tolerance(EmpiricalRisk(subject.model, subject.whole))[0]
    with stage_bars() as show:
        answer = assess(
            subject.model,
            subject.train,
            subject.test,
            progress=show,
            seed=seed,
            **options,
        )
    subject.answer = answer
    rank = answer.limit.rank_bound
    if rank is not None and answer.limit.effective_dimension > rank / 10:
        note(f"the Gauss-Newton matrix of so few images has rank {rank:,} at most; with more the limit would be lower")
    words = {
        "certified": answer.limit.certified,
        "measured": answer.on_train.sparsity,
        "limit": answer.limit.sparsity,
    }
    target = words[sparsity] if sparsity in words else float(sparsity)
    kept, after = check_pruned(subject.model, target, subject.test)
    result = answer.summary(after) | about
    if record is not None:
        from howsparse.experiments.record import append_record, provenance

        append_record(result | provenance(), record)
    if as_json:
        print_json(result)
    else:
        show_table(answer_table(answer, after))
    return kept


def check_sparsity_word(sparsity: str) -> None:
    """A fraction in [0, 1), or one of the words for a computed one."""
    from howsparse.masks import check_sparsity

    if sparsity in ("certified", "measured", "limit"):
        return
    try:
        value = float(sparsity)
    except ValueError:
        raise InputError(f"--sparsity '{sparsity}' is neither a fraction nor certified, measured, limit") from None
    check_sparsity(value)


def free_name(path: Path) -> Path:
    """``path``, or if that exists the first of name-2, name-3, ... that does not."""
    names = itertools.chain([path], (path.with_stem(f"{path.stem}-{n}") for n in itertools.count(2)))
    return next(name for name in names if not name.exists())


def check_output(path: Path, force: bool) -> None:
    """Stop before work starts that would end in writing over a file, or in none."""
    from howsparse.files import refuse_to_overwrite

    refuse_to_overwrite(path, force)
    check_writable(path)


def check_writable(path: Path) -> None:
    """Stop before work starts that could not be written in the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write to {path.parent}: {error.strerror}") from error


def progress_bar() -> Progress:
    """Bars on stderr, so that stdout stays for the answer; none where stderr is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def stage_bars() -> Iterator[Callable[[str, int, int], None]]:
    """One bar for each stage that reports itself; a stage may end before its total."""
    with progress_bar() as bar:
        rows: dict[str, TaskID] = {}
        tick = ticker()

        def show(stage: str, done: int, total: int) -> None:
            tick(f"{stage}: {done} of {total}")
            if stage not in rows:
                for row in rows.values():
                    bar.update(row, visible=False)
                rows[stage] = bar.add_task(stage, total=total)
            bar.update(rows[stage], completed=done)

        yield show


def ticker(every: float = 60.0) -> Callable[[str], None]:
    """Says a line now and then, in seconds, where no bar can be drawn: in a log."""
    last = time.monotonic()

    def tick(text: str) -> None:
        nonlocal last
        if not console.is_terminal and time.monotonic() - last > every:
            last = time.monotonic()
            note(text)

    return tick


def show_table(table: Table) -> None:
    """A table on stdout; in a file or a pipe, as wide as it needs to be."""
    width = None if sys.stdout.isatty() else 160
    Console(width=width).print(table)


def note(text: str) -> None:
    """One line for a person, on stderr."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def print_json(result: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")


def main() -> None:
    """Entry point: input errors become one line and exit code 2. Of several processes, the first speaks."""
    try:
        parallel.join()
        if not parallel.is_first():
            console.quiet = True
            sys.stdout = io.StringIO()
        app()
    except InputError as error:
        note(f"howsparse: {error}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        note(f"howsparse: this needs the package '{error.name}'; pip install 'howsparse[all]' brings it")
        sys.exit(2)
