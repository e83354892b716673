"""The command prune: find a mask or a repaired network, write it, and print its size and times on this machine."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from howsparse.cli.app import app
from howsparse.cli.cost import say_limit
from howsparse.cli.deployed import DeployOptions, measure_gain, write_onnx
from howsparse.cli.measuring import orders_named, prune_by_order, show_mask, write_measurement
from howsparse.cli.networks import pruned_to, show_answer, warn_of_rank
from howsparse.cli.options import (
    DataOption,
    ForceOption,
    JsonOption,
    KeepOption,
    ModelArgument,
    RecordOption,
    SeedOption,
    WeightsOption,
    with_dataclass_options,
)
from howsparse.cli.repairing import RepairOptions, check_repair_options, prune_by_repair, show_repaired
from howsparse.cli.subject import DataOptions, GoalOptions, Subject, load_data, load_subject
from howsparse.cli.terminal import check_output, note, print_json, show_next, show_text
from howsparse.cli.writing import read_certificate, write_pruned, write_record
from howsparse.errors import InputError
from howsparse.limit.options import Answer, LimitOptions
from howsparse.limit.sequence import as_mask

if TYPE_CHECKING:
    from howsparse.pruning.masks import Mask
    from howsparse.pruning.network import PrunedNetwork


@dataclass(frozen=True)
class Pruned:
    """What the command found.

    Attributes:
        network: a mask, or a repaired network.
        kind: kind of the record.
        numbers: numbers of ``--json`` and of the record.
        evidence: the certificate or measurement, for the deployed file.
        sentence: the certificate in words; None if none was asked for.
    """

    network: "Mask | PrunedNetwork"
    kind: str
    numbers: dict[str, Any]
    evidence: dict[str, Any]
    sentence: str | None = None


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
    files: DeployOptions,
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
    check_output(output, force)  # also if it is the folder of a model
    files.check()
    subject = load_subject(model, weights, data, parts)
    goals = GoalOptions(max_drop, None if options.tolerance is None else str(options.tolerance))
    if repairs.repair is not None:
        found = by_repair(subject, target, goals, order, repairs, parts, seed, as_json)
    elif certificate is not None:
        found = by_certificate(subject, certificate, as_json)
    elif max_drop is None and order is None:
        found = by_answer(subject, target, replace(options, seed=seed), keep, as_json)
    else:
        kept, numbers = prune_by_order(subject, target, goals, order or "magnitude", seed, as_json)
        found = Pruned(kept, "prune-mask", numbers, {"kind": "measured", **numbers})
    write_pruned(subject, found.network, output, found.sentence, force)
    if mask is not None:
        as_mask(found.network).save(mask)
    about = {"kind": "prune", "model": model, "seed": seed, "images": parts.images, "weights": str(output)}
    finish(subject, found, about, files, output, as_json, record, force)


def finish(
    subject: Subject,
    found: Pruned,
    about: dict[str, Any],
    files: DeployOptions,
    output: Path,
    as_json: bool,
    record: Path | None,
    force: bool,
) -> None:
    """Write the files for running the pruned network; print and record its size and times.

    Raises:
        InputError: the network cannot be exported to ONNX. All other files are written before.
    """
    mask = as_mask(found.network)
    gained = measure_gain(subject, mask, output, files.deploy, found.evidence, force)
    failed = None if files.onnx is None else write_onnx(subject, files.onnx, force)
    numbers = found.numbers | {"gain": None if gained is None else gained.summary()}
    if found.kind == "prune":
        write_record("prune", subject.name, numbers, about["seed"], about["images"], record, output)
    else:
        write_measurement(record, about | {"kind": found.kind} | numbers)
    if as_json:
        print_json(numbers | about | {"kind": found.kind})
    else:
        for line in [] if gained is None else gained.lines():
            show_text(line)
        show_next([f"next: howsparse audit {subject.typed} --change {shlex.quote(str(output))}"])
    note(f"{mask.num_weights - mask.num_kept:,} of {mask.num_weights:,} weights set to zero; written to {output}")
    if failed is not None:
        raise failed


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
        raise InputError(
            "--sparsity and --max-drop do not go together; leave out --max-drop, or --sparsity to measure it"
        )
    if certificate is not None and (max_drop is not None or order is not None or target != Answer.MEASURED):
        raise InputError("--certificate has its own mask; leave out --sparsity, --max-drop and --order")
    check_repair_options(repairs, target, certificate)


def by_repair(
    subject: Subject,
    target: float | Answer,
    goals: GoalOptions,
    order: str | None,
    repairs: RepairOptions,
    parts: DataOptions,
    seed: int,
    as_json: bool,
) -> Pruned:
    """Find the best order and repair, certify if that is possible, and print the result."""
    held = None if repairs.held_out is None else load_data(repairs.held_out, subject.name, subject.model, parts)[1]
    found = prune_by_repair(subject, target, goals, order, repairs, held, seed)
    numbers = show_repaired(subject, found, as_json)
    evidence = {"kind": "measured", **{key: each for key, each in numbers.items() if key != "combinations"}}
    return Pruned(found.network, "prune-repair", numbers, evidence, found.sentence)


def by_certificate(subject: Subject, path: Path, as_json: bool) -> Pruned:
    """The mask of a certificate. Print the loss and the accuracy on the test data under it."""
    proven = read_certificate(path, subject.model)
    numbers = show_mask(subject, proven.mask, proven.order, as_json)
    evidence = {"kind": "certificate", **proven.summary()}
    return Pruned(proven.mask, "prune-mask", numbers, evidence, proven.sentence)


def by_answer(
    subject: Subject, target: float | Answer, options: LimitOptions, keep: Path | None, as_json: bool
) -> Pruned:
    """The magnitude mask at a given sparsity or at one of the answers; print all answers."""
    say_limit(subject, options, keep)
    answer = subject.assess(options, keep)
    found, after = pruned_to(subject, answer, target)
    if as_json:
        warn_of_rank(answer)
    else:
        show_answer(answer, after, as_json, {})
    numbers = answer.summary(after)
    return Pruned(found, "prune", numbers, {"kind": "measured", **numbers})


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
        raise InputError(
            f"--sparsity '{sparsity}' is neither a fraction nor {', '.join(Answer)}; give for example 0.9"
        ) from None
    return check_sparsity(fraction)
