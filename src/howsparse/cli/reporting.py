"""The command that makes a page: measure, compute the limit, certify if there are held-out data, and write them."""

import shlex
import time
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from howsparse.cli.app import app
from howsparse.cli.cost import say_cost, say_limit
from howsparse.cli.measuring import goal_for, question_of
from howsparse.cli.options import (
    DataOption,
    ForceOption,
    KeepOption,
    ModelArgument,
    SeedOption,
    WeightsOption,
    with_dataclass_options,
)
from howsparse.cli.subject import DataOptions, GoalOptions, Subject, load_data, load_subject
from howsparse.cli.terminal import note, resumable, show_text, stage_bars
from howsparse.errors import InputError
from howsparse.limit.options import LimitOptions
from howsparse.records.origin import portable_command

if TYPE_CHECKING:
    from howsparse.limit.certificate import Certificate
    from howsparse.limit.goal import Goal
    from howsparse.limit.held_out import HeldOut
    from howsparse.limit.measure import Measured
    from howsparse.limit.result import PruningLimit
    from howsparse.report.contents import Contents

_PRECISION = 0.002  # of the measured sparsity, as in `assess`


@app.command()
@with_dataclass_options
def report(
    model: ModelArgument,
    *,
    weights: WeightsOption = None,
    data: DataOption = None,
    output: Annotated[Path, typer.Option(help="The page, an .html file.")] = Path("report.html"),
    max_drop: Annotated[
        float | None, typer.Option(help="Points of accuracy that may be lost: the start of the slider; default: 1.")
    ] = None,
    held_out: Annotated[
        str | None, typer.Option(help="Held-out data, as for --data; with them, a sparsity is certified.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Confidence of the certificate, in (0.5, 1).")] = 0.95,
    parts: DataOptions,
    options: LimitOptions,
    keep: KeepOption = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
) -> None:
    """Write a page with all answers for a network: one HTML file with a slider for what may be lost."""
    from howsparse.report.page import check_page, write_page
    from howsparse.report.page_text import sentence

    check_page(output, force)
    subject = load_subject(model, weights, data, parts)
    goal = goal_for(subject, GoalOptions(max_drop, None if options.tolerance is None else str(options.tolerance)))
    held = None if held_out is None else _held_out(subject, model, held_out, goal, confidence, parts)
    say_limit(subject, options, keep)
    say_cost(subject, subject.test, ("magnitude",))
    began = time.perf_counter()
    limit, measured, on_train = compute(subject, replace(options, seed=seed), goal, keep)
    certificate = None if held is None else _certify(subject, held, measured.sparsity)
    seconds = time.perf_counter() - began
    shown = contents(subject, limit, measured, on_train, certificate, seed, seconds)
    write_page(shown, output, force=force)
    show_text(sentence(shown).replace("\u00a0", " "))
    note(f"page: {output}")


def compute(
    subject: Subject, options: LimitOptions, goal: "Goal", keep: Path | None
) -> "tuple[PruningLimit, Measured, Measured]":
    """The limit of a subject, and its measured curves on the test data and on the data of the limit.

    If a drop of the metric is allowed, the tolerance of the limit is the rise of the loss that was measured at this
    drop, if the loss rises. So all answers are about the same goal when the page opens.
    """
    from howsparse.limit.compute import pruning_limit
    from howsparse.limit.goal import Goal

    with nullcontext() if keep is None else resumable(keep), stage_bars() as show:
        measured = _measure(subject, subject.test, goal, (), "measuring the accuracy", show)
        if options.tolerance is None and goal.max_drop is not None:
            rise = _rise(subject, measured.sparsity)
            options = replace(options, tolerance=rise) if rise > 0 else options
        chosen = subject.options(options)
        limit = pruning_limit(subject.model, subject.train, loss=subject.loss, options=chosen, keep=keep, progress=show)
        if subject.test is subject.train:
            return limit, measured, measured
        by_loss = Goal(tolerance=limit.tolerance)
        also = (measured.sparsity,)
        return limit, measured, _measure(subject, subject.train, by_loss, also, "measuring the loss", show)


def contents(
    subject: Subject,
    limit: "PruningLimit",
    measured: "Measured",
    on_train: "Measured",
    certificate: "Certificate | None",
    seed: int,
    seconds: float,
    command: str | None = None,
) -> "Contents":
    """What the page shows, with how it was computed and the command that makes it again, without folders.

    Args:
        subject: the network and its data.
        limit, measured, on_train: as `compute` returns them.
        certificate: what was certified; None if nothing was.
        seed: seed of the limit.
        seconds: time of all this.
        command: the command; by default that of this process.
    """
    from howsparse.records import provenance
    from howsparse.report.contents import Contents
    from howsparse.risk.batches import batch_length

    made = provenance(command)
    count = {name: sum(map(batch_length, getattr(subject, name))) for name in ("train", "test")}
    examples = f"{count['train']:,} for the limit"
    examples += f", {count['test']:,} other ones for the accuracy" if subject.splits else ", which also measure"
    facts = (
        ("examples", examples),
        ("seconds", f"{seconds:.1f}"),
        ("seed", str(seed)),
        ("processor", made.machine.processor if made.machine.accelerator is None else made.machine.accelerator),
        ("versions", ", ".join(f"{name} {version}" for name, version in made.versions.items())),
        *((("commit", made.commit),) if made.commit else ()),
    )
    absent: tuple[str, ...] = ()
    if certificate is None:
        again = portable_command(["howsparse", "report", *shlex.split(subject.typed), "--held-out", "HELD_OUT.npz"])
        absent = (f"What is certified, which needs held-out data: {again}",)
    (title,) = shlex.split(portable_command([subject.name]))
    return Contents(
        limit, title, measured, None if on_train is measured else on_train, certificate, facts, made.command, absent
    )


def _measure(
    subject: Subject, batches: Any, goal: "Goal", also: tuple[float, ...], stage: str, show: Any
) -> "Measured":
    """Measure magnitude masks at fixed sparsities and around the goal, its half and its double."""
    from howsparse.limit.measure import FINE, measure_goals

    done, expected = count(1), len(FINE) + 12

    def told(point: Any) -> None:
        made = next(done)
        show(stage, made, max(expected, made))

    goals, scan = [_times(goal, 0.5), _times(goal, 2.0), goal], (*FINE, *also)
    same: dict[str, Any] = {"loss": subject.loss, "scan": scan, "precision": _PRECISION}
    return measure_goals(subject.model, batches, goals, **same, on_point=told, progress=False)[-1]


def _times(goal: "Goal", factor: float) -> "Goal":
    """What may be lost, times a factor; a drop stays below 1."""
    from howsparse.limit.goal import Goal

    if goal.max_drop is not None:
        return Goal(max_drop=min(goal.max_drop * factor, 0.99))
    return Goal(tolerance=(goal.tolerance or 0.0) * factor)


def _rise(subject: Subject, sparsity: float) -> float:
    """The measured rise of the loss on the data of the limit, for the magnitude mask of a sparsity."""
    from howsparse.limit.assess import check_mask
    from howsparse.pruning.masks import magnitude_mask

    losses = [
        check_mask(subject.model, magnitude_mask(subject.model, at), subject.train, subject.loss).loss
        for at in (0.0, sparsity)
    ]
    return losses[1] - losses[0]


def _held_out(
    subject: Subject, model: str, spec: str, goal: "Goal", confidence: float, parts: DataOptions
) -> "HeldOut":
    """The held-out data, checked before the long part of the work."""
    from howsparse.limit.held_out import check_held_out

    if goal.max_drop is None:
        raise InputError("--held-out certifies a drop of the accuracy; leave out --tolerance, or --held-out")
    question = question_of(subject, GoalOptions(100 * goal.max_drop), None, confidence)
    batches = load_data(spec, model, subject.model, parts)[1]
    return check_held_out(
        subject.model, batches, question, chosen_on=subject.chose(subject.test), loss=subject.loss, metric=None
    )


def _certify(subject: Subject, held: "HeldOut", measured: float) -> "Certificate":
    """The certificate of magnitude masks around the measured sparsity."""
    from howsparse.limit.certify import CANDIDATES, candidates_around, certify_sequence
    from howsparse.pruning.masks import magnitude_mask

    candidates = candidates_around(measured) if measured > 0 else CANDIDATES
    masks = (magnitude_mask(subject.model, sparsity) for sparsity in candidates)
    return certify_sequence(subject.model, held, masks, order="magnitude", progress=False)[0]
