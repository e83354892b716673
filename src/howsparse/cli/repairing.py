"""`howsparse prune --repair`: find the best order and repair, certify, and print what was found."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from howsparse.cli.cost import say_certifying, say_cost, say_following, say_repairs
from howsparse.cli.measuring import goal_for, orders_named, question_of
from howsparse.cli.subject import GoalOptions, Subject
from howsparse.cli.terminal import note, show_lines, show_table, show_text, stage_bars
from howsparse.errors import InputError
from howsparse.limit.options import Answer
from howsparse.risk.batches import batch_length

if TYPE_CHECKING:
    from howsparse.limit.certificate import Certificate
    from howsparse.limit.goal import Point
    from howsparse.limit.held_out import HeldOut
    from howsparse.limit.repaired import Combination, Repaired
    from howsparse.pruning.network import PrunedNetwork

__all__ = ["Found", "RepairOptions", "check_repair_options", "prune_by_repair", "show_repaired"]

_CONFIDENCE = 0.95
_NO_GOAL = "the sparsity was given; give --max-drop to certify"


@dataclass(frozen=True)
class RepairOptions:
    """How a pruned network is repaired and certified."""

    repair: str | None = field(
        default=None,
        metadata={"help": "Repair the other weights, without training: layers, rounds, ..., none, or auto to choose."},
    )
    held_out: str | None = field(
        default=None,
        metadata={"help": "With --repair: held-out data, as for --data; default: half of the test data."},
    )
    confidence: float | None = field(
        default=None, metadata={"help": "With --repair: confidence of the certificate; default: 0.95."}
    )
    loss_bound: float | None = field(
        default=None,
        metadata={"help": "With --repair and --tolerance: a larger loss of one example counts as this loss."},
    )

    @property
    def asks(self) -> bool:
        """Whether a certificate is asked for by one of its options. Without them, it is made if that is possible."""
        return any(value is not None for value in (self.held_out, self.confidence, self.loss_bound))


@dataclass(frozen=True)
class Found:
    """What `prune_by_repair` found.

    Attributes:
        repaired: the best order and repair, and all that was tried.
        network: the network to write: the certified one if there is one, else the measured one.
        certificate: the certificate; None if none was made.
        reason: why no certificate was made; None if there is one.
        choose: the batches that chose order, repair and sparsity.
        seconds: time of all this, and time of the processor.
    """

    repaired: "Repaired"
    network: "PrunedNetwork"
    certificate: "Certificate | None"
    reason: str | None
    choose: Iterable[Any]
    seconds: tuple[float, float]

    @property
    def sentence(self) -> str:
        """The certificate in words, or why there is none."""
        return f"Not certified: {self.reason}." if self.certificate is None else self.certificate.sentence


def check_repair_options(options: RepairOptions, target: float | Answer, certificate: Path | None) -> None:
    """Refuse options that do not fit together, before anything is loaded.

    Raises:
        InputError: they do not fit, or the repair is unknown.
    """
    from howsparse.limit.repaired import repairs_named

    if options.repair is None:
        if options.asks:
            raise InputError("--held-out, --confidence and --loss-bound are for --repair; add --repair none, or auto")
        return
    repairs_named(options.repair)
    if certificate is not None:
        raise InputError("--certificate is for the weights without repair; leave out --repair")
    if target in (Answer.PREDICTED, Answer.LIMIT):
        raise InputError(f"--sparsity {target} is for pruning without --repair; give a fraction, or --max-drop")
    if isinstance(target, float) and options.asks:
        raise InputError("--sparsity has no goal to certify; give --max-drop or --tolerance instead")


def prune_by_repair(
    subject: Subject,
    target: float | Answer,
    goals: GoalOptions,
    order: str | None,
    options: RepairOptions,
    held_out: Iterable[Any] | None,
    seed: int,
) -> Found:
    """Find the best order and repair at a sparsity or for a goal; for a goal, certify if that is possible.

    Args:
        subject: the network and its data.
        target: a sparsity, or `Answer.MEASURED`.
        goals: what the pruned network must keep.
        order: name of the order, best, or None for the usual ones (with --repair auto) or magnitude.
        options: the repair, and how to certify.
        held_out: held-out batches; None for half of the test data.
        seed: seed of what is drawn at random.

    Raises:
        InputError: nothing fits, or a certificate was asked for and cannot be made.
    """
    from howsparse.limit.repaired import AUTO_ORDERS, compare_repairs, measure_repaired, repairs_named

    assert options.repair is not None
    began = time.perf_counter(), time.process_time()
    orders = (AUTO_ORDERS if options.repair == "auto" else ("magnitude",)) if order is None else orders_named(order)
    repairs = repairs_named(options.repair)
    if not subject.splits:
        note("the same examples calibrate and choose, so the sparsity may be too large; give test data in --data too")
    given: dict[str, Any] = {"calibration": subject.train, "orders": orders, "repairs": repairs, "loss": subject.loss}
    if isinstance(target, float):
        with _watched(len(orders) + len(repairs) - 1) as told:
            found = compare_repairs(subject.model, subject.test, target, **given, seed=seed, **told)
        return Found(found, found.network, None, _NO_GOAL, subject.test, _since(began))
    choose, held, reason = _data(subject, goals, options, held_out)
    say_cost(subject, choose, orders if repairs == ("none",) else orders[:1])
    given |= vars(goal_for(subject, goals)) | {"seed": seed, "on_follow": say_following}
    with _watched(len(orders)) as told:
        found = measure_repaired(subject.model, choose, **given, **told)
    if held is not None and found.sparsity == 0:
        held, reason = None, "no pruned network keeps what must be kept on the data that choose"
    certificate, network = (None, None) if held is None else _certified(subject, found, held)
    network = found.network if network is None else network
    return Found(found, network, certificate, reason, choose, _since(began))


def _since(began: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - began[0], time.process_time() - began[1]


def _data(
    subject: Subject, goals: GoalOptions, options: RepairOptions, held_out: Iterable[Any] | None
) -> "tuple[Iterable[Any], HeldOut | None, str | None]":
    """The data that choose, the held-out data, and the reason if there are no held-out data."""
    from howsparse.limit.held_out import check_held_out

    goal_for(subject, goals)  # its mistakes are errors, with or without a certificate
    choose, held = subject.test, held_out
    if held is None and subject.splits:
        choose, held = subject.halves()
    try:
        question = question_of(
            subject, goals, options.loss_bound, _CONFIDENCE if options.confidence is None else options.confidence
        )
        if held is None:
            raise InputError("--data has no test data, so nothing is held out; give --held-out data that chose nothing")
        data: dict[str, Any] = {"chosen_on": subject.chose(choose), "loss": subject.loss}
        return choose, check_held_out(subject.model, held, question, **data), None
    except InputError as error:
        if options.asks:
            raise
        note(f"no certificate: {error}")
        return subject.test, None, str(error)


def _certified(subject: Subject, found: "Repaired", held: "HeldOut") -> "tuple[Certificate, PrunedNetwork | None]":
    from howsparse.limit.certify_repaired import certify_repaired, sparsities_to_certify

    best, tested = found.best, sparsities_to_certify(found)
    note(f"measured on the data that choose: {100 * best.sparsity:.1f} % ({best.order} order, {best.repair} repair)")
    new = 0 if best.repair == "none" else len([each for each in tested if each not in found.kept])
    say_certifying(subject, held.batches, best.seconds / (len(best.points) - 1), new, len(tested))
    with stage_bars() as show:
        return certify_repaired(subject.model, found, held, progress=show)


@contextmanager
def _watched(networks: int) -> Iterator[dict[str, Any]]:
    """Options with which the library shows its progress, and prints how long networks take after the first is timed."""
    last, said = time.perf_counter(), False

    def on_point(order: str, repair: str, point: "Point") -> None:
        nonlocal last, said
        now = time.perf_counter()
        if repair != "none" and not said:
            say_repairs(now - last, networks)
            said = True
        last = now

    with stage_bars() as show:
        yield {"on_point": on_point, "progress": show}


def show_repaired(subject: Subject, found: Found, as_json: bool) -> dict[str, Any]:
    """Print the best order and repair, the certificate, and what is written, unless JSON is asked for.

    Args:
        subject: the network before pruning.
        found: what was found.
        as_json: whether nothing is printed.

    Returns:
        The numbers of ``--json`` and of records.
    """
    from howsparse.report.repaired import repaired_sentence, repaired_table

    numbers = _summary(subject, found)
    if as_json:
        return numbers
    show_text(repaired_sentence(found.repaired, found.network.mask.num_weights))
    show_text(found.sentence)
    show_table(repaired_table(found.repaired))
    refused = (f"cannot be used: {name}: {reason}" for name, reason in found.repaired.refused.items())
    show_lines([*refused, _written(numbers)])
    return numbers


def _written(numbers: dict[str, Any]) -> str:
    """One line about the network that is written."""
    label = "certified" if numbers["certified"] is not None else "not certified"
    before, after = numbers["dense_accuracy"], numbers["pruned_accuracy"]
    kept = "" if after is None else f", {numbers['metric']} {100 * before:.2f} % -> {100 * after:.2f} %"
    loss = f"loss {numbers['dense_loss']:.4g} -> {numbers['pruned_loss']:.4g}"
    where = f"on {numbers['examples']:,} examples that chose"
    return f"written: the network with {100 * numbers['pruned_sparsity']:.1f} % removed ({label}): {loss}{kept} {where}"


def _summary(subject: Subject, found: Found) -> dict[str, Any]:
    """The numbers of ``--json`` and of records."""
    repaired, certificate = found.repaired, found.certificate
    after = repaired.best.at(found.network.sparsity) or _evaluated(subject, found)
    return {
        "order": repaired.best.order,
        "repair": repaired.best.repair,
        "goal": None if repaired.goal is None else repaired.goal.describe(repaired.metric),
        "metric": repaired.metric,
        "measured": None if repaired.goal is None else repaired.sparsity,
        "certified": certificate.sparsity if certificate is not None and certificate.holds else None,
        "sentence": found.sentence,
        "pruned_sparsity": found.network.sparsity,
        "dense_accuracy": repaired.dense.accuracy,
        "pruned_accuracy": after.accuracy,
        "dense_loss": repaired.dense.loss,
        "pruned_loss": _finite(after.loss),
        "num_weights": found.network.mask.num_weights,
        "examples": sum(batch_length(batch) for batch in found.choose),
        "seconds": round(found.seconds[0], 3),
        "processor_seconds": round(found.seconds[1], 3),
        "compared_at": repaired.compared_at,
        "combinations": [_row(each) for each in repaired.combinations],
        "refused": repaired.refused,
        "certificate": None if certificate is None else certificate.summary(),
    }


def _row(combination: "Combination") -> dict[str, Any]:
    points = [asdict(point) | {"loss": _finite(point.loss)} for point in combination.points]
    named = {"order": combination.order, "repair": combination.repair, "measured": combination.sparsity}
    return named | {"seconds": combination.seconds, "points": points}


def _evaluated(subject: Subject, found: Found) -> "Point":
    """The point of the network that is written, on the data that chose."""
    from howsparse.limit.goal import Point
    from howsparse.pruning.restoring import restored
    from howsparse.risk.evaluate import evaluate

    with restored(subject.model):
        found.network.apply_(subject.model)
        return Point(found.network.sparsity, *evaluate(subject.model, found.choose, subject.loss))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
