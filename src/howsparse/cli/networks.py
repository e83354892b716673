"""Commands about one network: demo, limit, prune."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from torch import nn

from howsparse.cli.app import app
from howsparse.cli.options import (
    BatchOption,
    CurvatureOption,
    DataOption,
    ForceOption,
    ImagesOption,
    JsonOption,
    KeepOption,
    ModelArgument,
    NegativeOption,
    PlotOption,
    PrecisionOption,
    ProductsOption,
    RecordOption,
    SeedOption,
    ToleranceOption,
    WeightsOption,
)
from howsparse.cli.terminal import (
    check_output,
    free_name,
    note,
    print_json,
    progress_bar,
    resumable,
    show_table,
    stage_bars,
)
from howsparse.errors import InputError
from howsparse.limit.compute import MAX_PRODUCTS

if TYPE_CHECKING:
    from howsparse.tasks.data import Batches


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
    keep: KeepOption = None,
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
    options = limit_options(curvature, negative, tolerance, precision, max_products, keep)
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
    keep: KeepOption = None,
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
    options = limit_options(curvature, negative, tolerance, precision, max_products, keep)
    kept = report(subject, sparsity, seed=seed, as_json=as_json, options=options, about=about, record=record)
    kept.apply_(subject.model)
    save_tensors(subject.model.state_dict(), output)
    if mask is not None:
        kept.save(mask)
    note(f"{kept.num_weights - kept.num_kept:,} of {kept.num_weights:,} weights set to zero; written to {output}")


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
    curvature: str, negative: str, tolerance: float | None, precision: float, max_products: int, keep: Path | None
) -> dict[str, Any]:
    """What the commands that compute a limit pass on to it."""
    return {
        "curvature": curvature,
        "negative": negative,
        "tolerance": tolerance,
        "precision": precision,
        "max_products": max_products,
        "keep": keep,
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
    from howsparse.limit.assess import assess, check_pruned
    from howsparse.limit.compute import default_tolerance
    from howsparse.report.table import answer_table
    from howsparse.risk.empirical import EmpiricalRisk

    if subject.whole is not None:
        options = options | {"population": len(subject.whole.images)}
        if options.get("tolerance") is None:
            options["tolerance"] = default_tolerance(EmpiricalRisk(subject.model, subject.whole))[0]
    keep = options.get("keep")
    with nullcontext() if keep is None else resumable(keep), stage_bars() as show:
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
        from howsparse.records import append_record, provenance

        append_record(result | provenance(), record)
    if as_json:
        print_json(result)
    else:
        show_table(answer_table(answer, after))
    return kept


def check_sparsity_word(sparsity: str) -> None:
    """A fraction in [0, 1), or one of the words for a computed one."""
    from howsparse.pruning.masks import check_sparsity

    if sparsity in ("certified", "measured", "limit"):
        return
    try:
        value = float(sparsity)
    except ValueError:
        raise InputError(f"--sparsity '{sparsity}' is neither a fraction nor certified, measured, limit") from None
    check_sparsity(value)
