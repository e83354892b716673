"""Commands about one network: demo, limit, prune."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from howsparse.cli.app import app
from howsparse.cli.cost import say_limit
from howsparse.cli.following import after_limit
from howsparse.cli.measuring import orders_named, prune_by_order, show_mask
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
from howsparse.cli.repairing import RepairOptions, check_repair_options, prune_by_repair, show_repaired
from howsparse.cli.subject import DataOptions, GoalOptions, Subject, load_data, load_subject
from howsparse.cli.terminal import check_output, free_name, note, print_json, progress_bar, show_next, show_table
from howsparse.cli.writing import read_certificate, write_pruned
from howsparse.errors import InputError
from howsparse.limit.options import Answer, LimitOptions
from howsparse.limit.sequence import as_mask

if TYPE_CHECKING:
    from howsparse.limit.assess import Assessment
    from howsparse.limit.measure import Point
    from howsparse.pruning.masks import Mask
    from howsparse.pruning.network import PrunedNetwork


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
    if plot is not None:
        check_output(plot, force)
    subject = load_subject(model, weights, data, parts)
    say_limit(subject, options, keep)
    answer = subject.assess(replace(options, seed=seed), keep, directional)
    _, after = pruned_to(subject, answer, Answer.MEASURED)
    write_record("limit", subject, answer, after, seed, parts.images, record)
    show_answer(answer, after, as_json, {"kind": "limit", "model": model, "seed": seed, "images": parts.images})
    if not as_json:
        show_next(after_limit(subject, answer.on_train))
    if plot is not None:
        draw(answer, model, plot)


@app.command()
@with_dataclass_options
def prune(
    model: ModelArgument,
    *,
    weights: WeightsOption = None,
    data: DataOption = None,
    output: Annotated[
        Path, typer.Option(help="File for the pruned weights (safetensors); for hf:FOLDER, a folder for the model.")
    ],
    sparsity: Annotated[
        str, typer.Option(help="A fraction such as 0.95, or measured, predicted or limit.")
    ] = Answer.MEASURED.value,
    max_drop: Annotated[
        float | None, typer.Option(help="Points of accuracy that may be lost; no limit is computed.")
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="Which weights go first: magnitude, wanda, ..., or best; no limit is computed.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Apply the mask of this file of `howsparse certify`; no limit is computed.")
    ] = None,
    parts: DataOptions,
    options: LimitOptions,
    repairs: RepairOptions,
    mask: Annotated[Path | None, typer.Option(help="Also write the mask to this file.")] = None,
    keep: KeepOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    record: RecordOption = None,
    force: ForceOption = False,
) -> None:
    """Prune a trained network to a measured, computed or given sparsity, and write its weights.

    With --max-drop, --order or --repair, the limit is not computed.
    """
    target = parse_target(sparsity)
    check_prune_options(target, max_drop, order, certificate, repairs)
    for path in [output] if mask is None else [output, mask]:
        check_output(path, force)
    subject = load_subject(model, weights, data, parts)
    about = {"kind": "prune", "model": model, "seed": seed, "images": parts.images, "weights": str(output)}
    goals = GoalOptions(max_drop, None if options.tolerance is None else str(options.tolerance))
    found: Mask | PrunedNetwork
    sentence = None
    if repairs.repair is not None:
        held = None if repairs.held_out is None else load_data(repairs.held_out, model, subject.model, parts)[1]
        repaired = prune_by_repair(subject, target, goals, order, repairs, held, seed)
        show_repaired(subject, repaired, as_json, about | {"kind": "prune-repair"}, record)
        found, sentence = repaired.network, repaired.sentence
    elif certificate is not None:
        proven = read_certificate(certificate, subject.model)
        found, sentence = proven.mask, proven.sentence
        show_mask(subject, proven.mask, proven.order, {}, as_json, about | {"kind": "prune-mask"}, record)
    elif max_drop is None and order is None:
        found = prune_by_answer(subject, target, replace(options, seed=seed), keep, as_json, about, record)
    else:
        about["kind"] = "prune-mask"  # a record of kind "prune" has a limit
        found = prune_by_order(subject, target, goals, order or "magnitude", seed, as_json, about, record)
    write_pruned(subject, found, output, sentence, force)
    if mask is not None:
        as_mask(found).save(mask)
    say_written(subject, as_mask(found), output, as_json)


def check_prune_options(
    target: float | Answer, max_drop: float | None, order: str | None, certificate: Path | None, repairs: RepairOptions
) -> None:
    """Refuse options of prune that do not fit together.

    Raises:
        InputError: they do not fit, or a name is unknown.
    """
    if order is not None:
        orders_named(order)
    if max_drop is not None and not isinstance(target, Answer):
        raise InputError("--sparsity gives the sparsity, --max-drop asks for it to be measured; leave one of them out")
    if certificate is not None and (max_drop is not None or order is not None or target != Answer.MEASURED):
        raise InputError("--certificate has its own mask; leave out --sparsity, --max-drop and --order")
    check_repair_options(repairs, target, certificate)


def say_written(subject: Subject, found: "Mask", output: Path, as_json: bool) -> None:
    """Say what was written, and which command shows what it changes."""
    if not as_json:
        show_next([f"next: howsparse audit {subject.typed} --change {shlex.quote(str(output))}"])
    note(f"{found.num_weights - found.num_kept:,} of {found.num_weights:,} weights set to zero; written to {output}")


def prune_by_answer(
    subject: Subject,
    target: float | Answer,
    options: LimitOptions,
    keep: Path | None,
    as_json: bool,
    about: dict[str, object],
    record: Path | None,
) -> "Mask":
    """The magnitude mask at a given sparsity or at one of the answers; print all answers."""
    say_limit(subject, options, keep)
    answer = subject.assess(options, keep)
    found, after = pruned_to(subject, answer, target)
    images, weights = about["images"], about["weights"]
    assert images is None or isinstance(images, int)
    write_record("prune", subject, answer, after, options.seed, images, record, Path(str(weights)))
    show_answer(answer, after, as_json, about)
    return found


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
    kept = (1 - limit.errors.low) * limit.num_weights  # the effective dimension is at most this many weights
    if limit.rank_bound is not None and kept > limit.rank_bound / 10:
        note(
            f"the Gauss-Newton matrix of these examples has rank {limit.rank_bound:,} at most;"
            " with more examples the limit would be lower"
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
