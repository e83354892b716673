"""Commands about one network: demo, limit."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from howsparse.cli.app import app
from howsparse.cli.cost import say_limit
from howsparse.cli.following import after_limit
from howsparse.cli.options import (
    DataOption,
    DirectionalOption,
    ForceOption,
    JsonOption,
    KeepOption,
    ModelArgument,
    PlotOption,
    RecordOption,
    SeedOption,
    WeightsOption,
    with_dataclass_options,
)
from howsparse.cli.subject import DataOptions, Subject, load_subject
from howsparse.cli.terminal import check_output, free_name, note, print_json, progress_bar, show_next, show_table
from howsparse.cli.writing import write_record
from howsparse.limit.options import Answer, LimitOptions

if TYPE_CHECKING:
    from howsparse.limit.assess import Assessment
    from howsparse.limit.measure import Point
    from howsparse.pruning.masks import Mask


@app.command()
def demo(
    output: Annotated[
        Path | None, typer.Option(help="File for the picture; default: howsparse-demo.png, or the next free name.")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    force: ForceOption = False,
) -> None:
    """Train a small network on scikit-learn's digits, compute how far it can be pruned, prune it, and measure it."""
    from howsparse.methods import Run, Stages
    from howsparse.tasks import load_task
    from howsparse.tasks.data import Batches, ShuffledBatches
    from howsparse.training import Epoch

    output = free_name(Path("howsparse-demo.png")) if output is None else output
    check_output(output, force)
    task = load_task("digits")
    model = task.initial(seed)
    with progress_bar() as bar:
        row = bar.add_task("training on digits", total=task.epochs)

        def show(stage: str, epoch: Epoch) -> None:
            bar.update(row, completed=epoch.epoch + 1)

        Stages(task, seed, Run(on_epoch=show)).train("digits", model, l1=task.l1)
    assert isinstance(task.train, ShuffledBatches)  # batches of 128: the tolerance is their losses' deviation
    subject = Subject("digits", model, Batches(task.train.images, 128), task.test)
    answer = subject.assess(LimitOptions(seed=seed))
    _, after = pruned_to(subject, answer, Answer.MEASURED)
    show_answer(answer, after, as_json, {"task": "digits", "seed": seed})
    if not as_json:
        commands = "train digits --output digits.safetensors", "measure digits --weights digits.safetensors"
        show_next([f"next: howsparse {command}" for command in commands])
    draw(answer, "Digits, 64-64-32-10 ReLU network trained with l1", output)


@app.command()
@with_dataclass_options
def limit(
    model: ModelArgument,
    *,
    weights: WeightsOption = None,
    data: DataOption = None,
    parts: DataOptions,
    options: LimitOptions,
    directional: DirectionalOption = False,
    keep: KeepOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    plot: PlotOption = None,
    record: RecordOption = None,
    force: ForceOption = False,
) -> None:
    """Compute the pruning limit of a trained network by its curvature, and measure what pruning reaches."""
    subject = load_subject(model, weights, data, parts)
    say_limit(subject, options, keep)
    answer = subject.assess(replace(options, seed=seed), keep, directional)
    _, after = pruned_to(subject, answer, Answer.MEASURED)
    write_record("limit", subject.name, answer.summary(after), seed, parts.images, record)
    show_answer(answer, after, as_json, {"kind": "limit", "model": model, "seed": seed, "images": parts.images})
    if not as_json:
        show_next(after_limit(subject, answer.on_train))
    if plot is not None:
        draw(answer, model, plot)


def pruned_to(subject: Subject, answer: "Assessment", target: float | Answer) -> "tuple[Mask, Point]":
    """The magnitude mask at a given or computed sparsity, and the point of the pruned network on the test batches."""
    from howsparse.limit.assess import check_mask

    sparsity = answer.sparsity(target) if isinstance(target, Answer) else target
    mask = answer.limit.mask(subject.model, sparsity)
    return mask, check_mask(subject.model, mask, subject.test, subject.loss)


def show_answer(answer: "Assessment", after: "Point", as_json: bool, about: dict[str, object]) -> None:
    """Print the answers as one JSON object or as a table."""
    from howsparse.report.table import answer_table

    warn_of_rank(answer)
    if as_json:
        print_json(answer.summary(after) | about)
    else:
        show_table(answer_table(answer, after))


def warn_of_rank(answer: "Assessment") -> None:
    """Warn that the limit may be lower with more examples, if the number of examples bounds the rank."""
    limit = answer.limit
    kept = (1 - limit.errors.low) * limit.num_weights  # the effective dimension is at most this many weights
    if limit.rank_bound is not None and kept > limit.rank_bound / 10:
        note(
            f"the Gauss-Newton matrix of these examples has rank {limit.rank_bound:,} at most;"
            " with more examples the limit would be lower"
        )


def draw(answer: "Assessment", title: str, path: Path) -> None:
    """Draw the answers into a file, and print its name."""
    from howsparse.report.plots import plot_assessment, save_figure

    save_figure(plot_assessment(answer, title), path)
    note(f"picture: {path}")
