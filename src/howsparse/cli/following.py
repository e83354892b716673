"""What to do after an answer: lines with commands to paste. They have the arguments that were typed."""

from pathlib import Path
from typing import TYPE_CHECKING

from howsparse.cli.subject import GoalOptions, Subject, typed_options
from howsparse.risk.batches import batch_length

if TYPE_CHECKING:
    from howsparse.limit.certificate import Certificate
    from howsparse.limit.goal import Goal
    from howsparse.limit.measure import Measured

__all__ = ["after_certificate", "after_limit", "after_measurement", "shortest"]


def after_measurement(subject: Subject, measured: "Measured", metric: str | None, compared: bool) -> list[str]:
    """Lines with commands that follow a measurement: certify, compare the orders, prune.

    Args:
        subject: the network that was measured.
        measured: its measurement, the best one of several.
        metric: the metric as it was typed.
        compared: whether several orders were measured.
    """
    goal, order = measured.goal, f" --order {measured.order}"
    typed = subject.typed + _typed_goal(goal) + typed_options({"metric": metric})
    others = f"next: howsparse measure {typed} --order best"
    if measured.sparsity == 0:
        return [] if compared else [others]
    prune = _prune(subject, measured.sparsity, measured.order)
    if not goal.max_drop:  # a share of the loss cannot be certified, nor that nothing is lost
        return [*([] if compared else [others]), prune]
    certify = _certify(subject, f"{typed}{order if compared else ''}", goal.max_drop)
    return [certify, *([] if compared else [others]), prune]


def after_certificate(
    subject: Subject,
    certificate: "Certificate",
    goals: GoalOptions,
    loss_bound: float | None,
    held_out: str | None,
    output: Path | None,
) -> list[str]:
    """Lines with commands that follow a certificate: prune to exactly the certified mask, or try other orders.

    Args:
        subject: the network.
        certificate: its certificate.
        goals, loss_bound, held_out: options of the certificate as they were typed.
        output: file that the certificate is written to.
    """
    if not certificate.holds:
        options = vars(goals) | {"loss_bound": loss_bound, "held_out": held_out}
        return [f"next: howsparse certify {subject.typed}{typed_options(options)} --order best"]
    if output is None:
        return [_prune(subject, certificate.sparsity, certificate.order)]
    given = typed_options({"certificate": output, "output": "pruned.safetensors"})
    return [f"next: howsparse prune {subject.typed}{given}"]


def after_limit(subject: Subject, measured: "Measured") -> list[str]:
    """Lines with commands that follow a limit: certify, and prune as far as measured.

    Args:
        subject: the network.
        measured: its measurement on the training data.
    """
    commands = [_certify(subject, subject.typed, 0.01)]
    return [*commands, _prune(subject, measured.sparsity, measured.order)] if measured.sparsity > 0 else commands


def shortest(sparsity: float, num_weights: int) -> str:
    """The shortest decimal fraction that keeps as many weights as ``sparsity``.

    >>> shortest(6202 / 6464, 6464)
    '0.9595'
    """
    kept = round((1 - sparsity) * num_weights)
    texts = (f"{sparsity:.{digits}g}" for digits in range(1, 18))
    return next((text for text in texts if round((1 - float(text)) * num_weights) == kept), repr(sparsity))


def _typed_goal(goal: "Goal") -> str:
    if goal.max_drop is not None:
        return typed_options({"max_drop": 100 * goal.max_drop})
    return typed_options({"tolerance": goal.tolerance if goal.max_rise is None else f"{100 * goal.max_rise:g}%"})


def _certify(subject: Subject, typed: str, max_drop: float) -> str:
    """The line for a certificate. It asks for held-out data if half of the test data is not enough."""
    from howsparse.limit.certify import examples_needed

    needed = examples_needed(max_drop) if 0 < max_drop < 1 else 1
    halves = sum(map(batch_length, subject.test)) // 2 if subject.splits else 0
    if halves >= needed:
        return f"next: howsparse certify {typed}"
    return f"next, with {needed:,} held-out examples or more: howsparse certify {typed} --held-out HELD_OUT.npz"


def _prune(subject: Subject, sparsity: float, order: str) -> str:
    """The line that prunes to exactly one mask of an order."""
    from howsparse.risk.weights import select_weights

    weights = select_weights(subject.model, None).values()
    share = shortest(sparsity, sum(w.numel() for w in weights))
    return f"next: howsparse prune {subject.typed} --sparsity {share} --order {order} --output pruned.safetensors"
