"""What the commands measure and prune have in common: measuring a subject, certifying it, and their numbers."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from howsparse.cli.cost import PASSES, say_cost
from howsparse.cli.subject import GoalOptions, Subject
from howsparse.cli.terminal import note, stage_bars
from howsparse.errors import InputError

if TYPE_CHECKING:
    from howsparse.limit.best import OrderComparison
    from howsparse.limit.certificate import Certificate
    from howsparse.limit.goal import Goal
    from howsparse.limit.measure import Measured
    from howsparse.limit.options import Answer
    from howsparse.limit.sequence import Question
    from howsparse.pruning.masks import Mask

__all__ = [
    "certify_subject",
    "goal_for",
    "measure_subject",
    "measured_summary",
    "orders_named",
    "orders_summary",
    "prune_by_order",
    "question_of",
    "show_mask",
    "write_measurement",
    "write_training",
]


def measure_subject(
    subject: Subject,
    orders: tuple[str, ...],
    goals: GoalOptions,
    seed: int,
    batches: Any = None,
    held_out: Iterable[Any] = (),
) -> "OrderComparison":
    """Measure orders on the subject's test data (or ``batches``), with progress on stderr.

    ``held_out`` are batches to certify on afterwards. They are not read here; the printed estimate includes their time.
    """
    from howsparse.limit.best import measure_orders
    from howsparse.risk.losses import as_loss
    from howsparse.risk.metrics import as_metric

    loss, batches = as_loss(subject.loss, subject.model), subject.test if batches is None else batches
    metric = as_metric(goals.named_metric(), loss)
    goal = goals.goal(has_metric=metric is not None)
    say_cost(subject, batches, orders, held_out)
    done: dict[str, int] = {}
    with stage_bars() as show:

        def count(order: str, point: Any) -> None:
            done[order] = done.get(order, 0) + 1
            show(f"measuring, {order}", done[order], max(PASSES, done[order]))

        return measure_orders(
            subject.model,
            batches,
            orders,
            **vars(goal),
            calibration=subject.train,
            loss=loss,
            metric=metric,
            seed=seed,
            on_order=count,
            progress=False,  # `count` shows it
        )


def orders_named(order: str) -> tuple[str, ...]:
    """The orders that --order asks for.

    Raises:
        InputError: there is no order of this name.
    """
    from howsparse.pruning.orders import ORDERS

    if order not in ORDERS and order != "best":
        raise InputError(f"--order '{order}' is not known; use one of {', '.join(ORDERS)}, or best")
    return tuple(ORDERS) if order == "best" else (order,)


def goal_for(subject: Subject, goals: GoalOptions) -> "Goal":
    """What the pruned network must keep. By default the metric, if there is one, may drop by one point.

    Raises:
        InputError: a value is not valid.
    """
    from howsparse.risk.losses import as_loss
    from howsparse.risk.metrics import as_metric

    return goals.goal(has_metric=as_metric(goals.named_metric(), as_loss(subject.loss, subject.model)) is not None)


def question_of(subject: Subject, goals: GoalOptions, loss_bound: float | None, confidence: float) -> "Question":
    """What is to be certified.

    Raises:
        InputError: a value is not valid, or the goal cannot be certified.
    """
    from howsparse.limit.sequence import Question, check_confidence

    check_confidence(confidence)
    goal = goal_for(subject, goals)
    if goal.max_rise is not None:
        raise InputError(
            "--tolerance as a share of the loss cannot be certified; give --max-drop, or --tolerance as a number"
        )
    if goal.max_drop == 0:
        raise InputError(
            "--max-drop 0 cannot be certified, because no sample can show that nothing is lost; give a value above 0"
        )
    if goal.max_drop is not None and loss_bound is not None:
        raise InputError("--loss-bound is for --tolerance; leave it out, or give --tolerance in place of --max-drop")
    if goal.tolerance is not None and loss_bound is None:
        raise InputError("--tolerance needs --loss-bound; give the loss at which the loss of one example is cut off")
    return Question(goal.max_drop, goal.tolerance, loss_bound, confidence)


def certify_subject(
    subject: Subject, choose: Any, held_out: Any, goals: GoalOptions, order: str, question: "Question", seed: int
) -> "Certificate":
    """Measure on data that choose the candidates, then certify on the held-out data.

    The held-out data are checked first: a mistake is reported before the long part of the work.
    """
    from howsparse.limit.certify import CANDIDATES, candidates_around, certify_sequence
    from howsparse.limit.held_out import check_held_out
    from howsparse.pruning.orders import rank

    data: dict[str, Any] = {"chosen_on": subject.chose(choose), "loss": subject.loss, "metric": goals.named_metric()}
    held = check_held_out(subject.model, held_out, question, **data)
    best = measure_subject(subject, orders_named(order), goals, seed, choose, held_out).best
    note(f"measured on the data that choose: {100 * best.sparsity:.1f} % ({best.order})")
    ranked = rank(subject.model, best.order, subject.train, loss=subject.loss, seed=seed)
    candidates = candidates_around(best.sparsity) if best.sparsity > 0 else CANDIDATES
    with stage_bars() as show:
        steps = iter(range(1, 1000))
        return certify_sequence(
            subject.model,
            held,
            map(ranked.mask, candidates),
            order=ranked.name,
            on_point=lambda step: show("measuring, held-out data", next(steps), len(candidates)),
            progress=False,
        )[0]


def prune_by_order(
    subject: Subject,
    target: "float | Answer",
    goals: GoalOptions,
    order: str,
    seed: int,
    as_json: bool,
) -> "tuple[Mask, dict[str, Any]]":
    """The mask of an order at a given sparsity, or at the measured one, with numbers; print what it does to the data.

    Raises:
        InputError: the sparsity is the predicted one or the limit, which are for magnitude pruning.
    """
    from howsparse.limit.options import Answer
    from howsparse.pruning.orders import rank

    if target in (Answer.PREDICTED, Answer.LIMIT):
        raise InputError(f"--sparsity {target} is for magnitude pruning by loss; leave out --max-drop and --order")
    numbers: dict[str, Any] = {}
    if target == Answer.MEASURED:
        best = measure_subject(subject, orders_named(order), goals, seed).best
        order, target, numbers = best.order, best.sparsity, measured_summary(subject, best)
    elif order == "best":
        raise InputError("--order best needs a goal to compare the orders; leave out --sparsity, or name an order")
    ranked = rank(subject.model, order, subject.train, loss=subject.loss, seed=seed)
    mask = ranked.mask(float(target))
    return mask, numbers | show_mask(subject, mask, order, as_json)


def show_mask(subject: Subject, mask: "Mask", order: str, as_json: bool) -> dict[str, Any]:
    """Evaluate a mask on the test data, print what it does unless JSON is asked for, and return the numbers."""
    from howsparse.limit.assess import check_mask

    after = check_mask(subject.model, mask, subject.test, subject.loss)
    if not as_json:
        accuracy = "" if after.accuracy is None else f", accuracy {100 * after.accuracy:.2f} %"
        what = "test data" if subject.splits else "data"
        removed = f"{100 * mask.sparsity:.1f} % removed by the {order} order"
        print(f"{removed}: loss {after.loss:.4g}{accuracy} on the {what}")
    return {"order": order, "pruned_sparsity": mask.sparsity, "pruned_accuracy": after.accuracy}


def measured_summary(subject: Subject, measured: "Measured") -> dict[str, Any]:
    """The numbers of a measurement, as in ``--json`` and records."""
    from howsparse.geometry import effective_sparsity
    from howsparse.risk.counting import counted_examples
    from howsparse.risk.losses import as_loss
    from howsparse.risk.weights import select_weights

    weights, loss = select_weights(subject.model, None), as_loss(subject.loss, subject.model)
    dense, pruned = measured.dense, measured.pruned
    return {
        "measured": measured.sparsity,
        "order": measured.order,
        "goal": measured.goal.describe(measured.metric),
        "metric": measured.metric,
        "dense_accuracy": dense.accuracy,
        "pruned_accuracy": pruned.accuracy,
        "dense_loss": dense.loss,
        "pruned_loss": pruned.loss,
        "num_weights": sum(w.numel() for w in weights.values()),
        "effective_weights_baseline": effective_sparsity(
            np.concatenate([w.detach().float().cpu().numpy().ravel() for w in weights.values()])
        ),
        "examples": sum(counted_examples(loss, batch) for batch in subject.test),
        "curve": [asdict(point) for point in measured.curve],
    }


def orders_summary(comparison: "OrderComparison") -> dict[str, Any]:
    """What each order reaches, as in ``--json``."""
    reached = [
        {"order": each.order, "measured": each.sparsity, "seconds": round(comparison.seconds[each.order], 3)}
        for each in comparison.measured
    ]
    return {"orders": reached, "refused": comparison.refused}


def write_measurement(path: Path | None, numbers: dict[str, Any]) -> None:
    """Append the numbers to the file of records ``path``, if it is not None."""
    if path is None:
        return
    from howsparse.records import Measurement, append_record, provenance

    append_record(Measurement(made=provenance(), **numbers), path)


def write_training(path: Path | None, result: dict[str, Any]) -> None:
    """Append a training to a file of records, unless an earlier, stopped call of the same command has appended it."""
    if path is None:
        return
    from howsparse.records import TrainRecord, append_record, provenance, read_records

    made = TrainRecord.model_validate({"made": provenance(), **result})
    known = (record.model_dump(exclude={"made"}) for record in read_records(TrainRecord, ("train",), path))
    if made.model_dump(exclude={"made"}) not in known:
        append_record(made, path)
