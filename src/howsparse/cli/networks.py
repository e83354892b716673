"""Commands about one network: demo, limit, prune."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from torch import nn

from howsparse.cli.app import app
from howsparse.cli.options import (
    BatchOption,
    DataOption,
    ForceOption,
    ImagesOption,
    JsonOption,
    KeepOption,
    ModelArgument,
    PlotOption,
    RecordOption,
    SeedOption,
    WeightsOption,
    with_dataclass_options,
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
from howsparse.limit.options import Answer, LimitOptions
from howsparse.risk.losses import Loss, cross_entropy

if TYPE_CHECKING:
    from howsparse.limit.assess import Assessment
    from howsparse.limit.measure import Point
    from howsparse.pruning.masks import Mask


@app.command()
def demo(
    output: Annotated[
        Path | None, typer.Option(help="File for the picture; default: howsparse-demo.png or next free name.")
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
    _, after = pruned_to(subject, answer, Answer.PREDICTED)
    show_answer(answer, after, as_json, {"task": "digits", "seed": seed})
    draw(answer, "Digits, 64-64-32-10 ReLU network trained with l1", output)


@app.command()
@with_dataclass_options
def limit(
    model: ModelArgument,
    options: LimitOptions,
    weights: WeightsOption = None,
    data: DataOption = None,
    images: ImagesOption = None,
    batch_size: BatchOption = 1000,
    keep: KeepOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    plot: PlotOption = None,
    record: RecordOption = None,
    force: ForceOption = False,
) -> None:
    """Compute how sparse a trained network can be pruned, and measure the sparsity that pruning reaches."""
    if plot is not None:
        check_output(plot, force)
    subject = load_subject(model, weights, data, images, batch_size)
    answer = subject.assess(replace(options, seed=seed), keep)
    _, after = pruned_to(subject, answer, Answer.PREDICTED)
    write_record("limit", subject, answer, after, seed, images, record)
    show_answer(answer, after, as_json, {"kind": "limit", "model": model, "seed": seed, "images": images})
    if plot is not None:
        draw(answer, model, plot)


@app.command()
@with_dataclass_options
def prune(
    model: ModelArgument,
    options: LimitOptions,
    output: Annotated[Path, typer.Option(help="File for the pruned weights (safetensors).")],
    weights: WeightsOption = None,
    data: DataOption = None,
    sparsity: Annotated[
        str, typer.Option(help="A fraction such as 0.95, or predicted, measured or limit.")
    ] = Answer.PREDICTED.value,
    mask: Annotated[Path | None, typer.Option(help="Also write the mask to this file.")] = None,
    images: ImagesOption = None,
    batch_size: BatchOption = 1000,
    keep: KeepOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    record: RecordOption = None,
    force: ForceOption = False,
) -> None:
    """Prune a trained network by magnitude to a computed or a given sparsity, and measure it."""
    from howsparse.files import save_tensors

    target = parse_target(sparsity)
    for path in [output] if mask is None else [output, mask]:
        check_output(path, force)
    subject = load_subject(model, weights, data, images, batch_size)
    answer = subject.assess(replace(options, seed=seed), keep)
    found, after = pruned_to(subject, answer, target)
    write_record("prune", subject, answer, after, seed, images, record, output)
    about = {"kind": "prune", "model": model, "seed": seed, "images": images, "weights": str(output)}
    show_answer(answer, after, as_json, about)
    found.apply_(subject.model)
    save_tensors(subject.model.state_dict(), output)
    if mask is not None:
        found.save(mask)
    note(f"{found.num_weights - found.num_kept:,} of {found.num_weights:,} weights set to zero; written to {output}")


@dataclass
class Subject:
    """The network of a command, and its data.

    Attributes:
        name: name of the network on the command line.
        model: the network with its weights.
        train, test: batches that can be read several times.
        loss: ``loss(model, batch)``, mean over the batch.
        whole: all training batches; ``train`` may be a part of them.
        population: number of examples in ``whole``.
    """

    name: str
    model: nn.Module
    train: Iterable[Any]
    test: Iterable[Any]
    loss: Loss = cross_entropy
    whole: Iterable[Any] | None = None
    population: int | None = None

    def assess(self, options: LimitOptions, keep: Path | None = None) -> "Assessment":
        """Compute all answers, with progress on stderr."""
        from howsparse.limit.assess import assess
        from howsparse.limit.compute import options_for_sample

        if self.whole is not None and self.population is not None:
            options = options_for_sample(options, self.model, self.whole, self.loss, self.population)
        with nullcontext() if keep is None else resumable(keep), stage_bars() as show:
            return assess(self.model, self.train, self.test, loss=self.loss, options=options, keep=keep, progress=show)


def load_subject(model: str, weights: Path | None, data: str | None, images: int | None, batch_size: int) -> Subject:
    """Load a network by its name on the command line, with its weights and data.

    Raises:
        InputError: a file or a name is missing, or has the wrong contents.
    """
    from howsparse.loading import call_if_function, check_weights, load_batches, load_named, load_problem, load_weights
    from howsparse.problem import Problem
    from howsparse.tasks import load_recipe

    if ":" not in model:
        load_recipe(model)
        check_weights(model, weights)
    made = load_problem(model, data) if ":" not in model else load_named(model)
    made = made if isinstance(made, nn.Module | Problem) else call_if_function(model, made)
    if isinstance(made, Problem):
        check_weights(model, weights)
        subject = subject_of(made, model, images)
    elif not isinstance(made, nn.Module):
        raise InputError(f"'{model}' is a {type(made).__name__}; it must be a torch.nn.Module or howsparse.Problem")
    elif data is None:
        raise InputError("no data; give --data an .npz file of inputs and targets, or package.module:batches")
    else:
        subject = Subject(model, made, *load_batches(data, batch_size))
    if weights is not None:
        load_weights(subject.model, weights)
    return subject


def subject_of(problem: Any, name: str, images: int | None) -> Subject:
    """A problem's network at its initialisation, with the problem's data."""
    whole = problem.study_batches()
    train = problem.study_batches(images)
    return Subject(name, problem.initial(), train, problem.test, problem.loss, whole, problem.num_examples)


def parse_target(sparsity: str) -> float | Answer:
    """Read --sparsity: a fraction in [0, 1), or the name of an answer.

    Raises:
        InputError: ``sparsity`` is neither of these.
    """
    from howsparse.pruning.masks import check_sparsity

    if sparsity in list(Answer):
        return Answer(sparsity)
    try:
        fraction = float(sparsity)
    except ValueError:
        raise InputError(f"--sparsity '{sparsity}' is neither a fraction nor {', '.join(Answer)}") from None
    return check_sparsity(fraction)


def pruned_to(subject: Subject, answer: "Assessment", target: float | Answer) -> "tuple[Mask, Point]":
    """The magnitude mask at a given or computed sparsity, and the point of the pruned network on the test batches."""
    from howsparse.limit.assess import check_mask

    sparsity = answer.sparsity(target) if isinstance(target, Answer) else target
    mask = answer.limit.mask(subject.model, sparsity)
    return mask, check_mask(subject.model, mask, subject.test, subject.loss)


def show_answer(answer: "Assessment", after: "Point", as_json: bool, about: dict[str, object]) -> None:
    """Print the answers as one JSON object or as a table."""
    from howsparse.report.table import answer_table

    limit = answer.limit
    if limit.rank_bound is not None and limit.effective_dimension > limit.rank_bound / 10:
        note(
            f"the Gauss-Newton matrix of these images has rank {limit.rank_bound:,} at most;"
            " with more images the limit would be lower"
        )
    if as_json:
        print_json(answer.summary(after) | about)
    else:
        show_table(answer_table(answer, after))


def write_record(
    kind: Literal["limit", "prune"],
    subject: Subject,
    answer: "Assessment",
    after: "Point",
    seed: int,
    images: int | None,
    path: Path | None,
    weights: Path | None = None,
) -> None:
    """Append the answer to the file of records ``path``, if it is not None."""
    if path is None:
        return
    from howsparse.records import AnswerRecord, append_record, provenance

    append_record(
        AnswerRecord(
            kind=kind,
            made=provenance(),
            model=subject.name,
            seed=seed,
            examples=images,
            weights=None if weights is None else str(weights),
            answer=answer.summary(after),
        ),
        path,
    )


def draw(answer: "Assessment", title: str, path: Path) -> None:
    """Draw the answers into a file, and print its name."""
    from howsparse.report.plots import plot_assessment, save_figure

    save_figure(plot_assessment(answer, title), path)
    note(f"picture: {path}")
