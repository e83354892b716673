"""Estimates of how long a measurement or a limit will take, printed before it starts. One batch is timed."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from howsparse.cli.subject import Subject
from howsparse.cli.terminal import note
from howsparse.limit.options import LimitOptions
from howsparse.parallel import world_size
from howsparse.progress import duration
from howsparse.pruning.orders.diagonal import EXACT_UP_TO
from howsparse.risk.batches import batch_length, move, split_batch
from howsparse.risk.evaluate import evaluate
from howsparse.risk.losses import SplitLoss
from howsparse.risk.modes import device_of, evaluation_mode

__all__ = [
    "PASSES",
    "expected_seconds",
    "say_certifying",
    "say_cost",
    "say_following",
    "say_limit",
    "say_repairs",
]

PASSES = 9  # over all data, of one measurement that begins on a part of the data; of a certificate too
_MANY_PASSES = 17  # of one measurement on few data
_FEW = 1600  # fewer examples than this are few
_WORTH_SAYING = 10.0  # seconds
_MUCH_MEMORY = 1 << 30
_BACKWARD = 3  # a gradient takes this many evaluations
_CURVATURE_EXAMPLES = 256
_MARGINAL_STEPS, _MARGINAL_EXAMPLES, _MARGINAL_SINGLE = 20, 512, 64


def say_cost(subject: Subject, batches: Iterable[Any], orders: Sequence[str], held_out: Iterable[Any] = ()) -> None:
    """Print how long measuring some orders will take, if it is more than ten seconds.

    Args:
        subject: the network and its data.
        batches: the batches to measure on.
        orders: names of the orders.
        held_out: batches to certify on afterwards.
    """
    seconds = expected_seconds(subject, batches, orders, held_out)
    if seconds > _WORTH_SAYING:
        what = f"{len(orders)} orders" if len(orders) > 1 else "one order"
        note(f"measuring {what} on {_count(batches):,} examples: about {duration(seconds)}")


def say_limit(subject: Subject, options: LimitOptions, keep: Path | None) -> None:
    """Print what a limit will take at most, if it is more than ten seconds or a gibibyte.

    Nothing is estimated for several processes, because their machines may differ. Nothing is estimated for a limit
    that continues from kept products either, because their number is not known before it starts.

    Args:
        subject: the network and its data.
        options: options of the limit.
        keep: folder in which its products are kept, if there is one.

    Raises:
        InputError: the limit does not fit into the memory that is free.
    """
    from howsparse.limit.cost import limit_cost

    if world_size() > 1 or (keep is not None and keep.exists()):
        return
    if subject.population is not None:
        options = replace(options, population=subject.population)
    cost = limit_cost(subject.model, subject.train, loss=subject.loss, options=options)
    cost.check()
    if cost.seconds > _WORTH_SAYING or cost.bytes > _MUCH_MEMORY:
        note(f"the limit takes {cost}")


def say_repairs(seconds: float, networks: int) -> None:
    """Print how long the first repairs will take, from the time of one, if it is more than ten seconds.

    Args:
        seconds: time of the first repair and its evaluation.
        networks: number of networks that are compared first.
    """
    if seconds * networks > _WORTH_SAYING:
        whole = duration(seconds * networks)
        note(f"one repaired network takes {duration(seconds)}; {networks} are compared first: {whole}")


def say_following(order: str, repair: str, seconds: float, networks: int) -> None:
    """Print how long it will take to follow a combination to its largest sparsity, if it is more than ten seconds.

    Args:
        order, repair: the combination.
        seconds: time of one of its networks.
        networks: the usual number of networks.
    """
    if seconds * networks > _WORTH_SAYING:
        whole = duration(seconds * networks)
        note(f"following {order}, {repair}: about {networks} networks of {duration(seconds)}: {whole}")


def say_certifying(subject: Subject, held_out: Iterable[Any], seconds: float, made: int, tested: int) -> None:
    """Print how long a certificate of repaired networks will take at most, if it is more than ten seconds.

    Args:
        subject: the network and its data.
        held_out: batches to certify on.
        seconds: time of one repaired network.
        made: number of networks that must be made.
        tested: number of networks that are tested.
    """
    first = next(iter(held_out))
    whole = seconds * made + _seconds(subject, first) / batch_length(first) * _count(held_out) * (tested + 1)
    if whole > _WORTH_SAYING:
        note(f"certifying: at most {made} more networks of {duration(seconds)}, {tested} tests: {duration(whole)}")


def expected_seconds(
    subject: Subject, batches: Iterable[Any], orders: Sequence[str], held_out: Iterable[Any] = ()
) -> float:
    """Estimated time of measuring some orders, in seconds; usually right within a factor of two.

    Args:
        subject, batches, orders, held_out: as for `say_cost`.
    """
    first = next(iter(batches), None)
    if first is None:
        return 0.0
    each = _seconds(subject, first) / batch_length(first)
    count = _count(batches)
    total = each * count * (PASSES if count >= _FEW else _MANY_PASSES) * len(orders) + each * _count(held_out) * PASSES
    return total + _seconds_of_orders(subject, first, each, orders)


def _seconds_of_orders(subject: Subject, batch: Any, each: float, orders: Sequence[str]) -> float:
    """Time of the orders that read data; ``each`` is the time of evaluating one example of many."""
    passes = {"wanda": 1, "wanda-row": 1, "gradient": _BACKWARD}
    total = each * _count(subject.train) * sum(passes.get(order, 0) for order in orders)
    if not {"curvature", "marginal"} & set(orders):
        return total
    single, outputs = _seconds_of_one(subject, batch)
    single *= _BACKWARD
    if "curvature" in orders:
        total += single * outputs * min(_CURVATURE_EXAMPLES, _count(subject.train))
    if "marginal" in orders:
        total += _MARGINAL_STEPS * (_MARGINAL_SINGLE * single + _MARGINAL_EXAMPLES * each * _BACKWARD)
    return total


def _seconds_of_one(subject: Subject, batch: Any) -> tuple[float, int]:
    """Time of one forward pass of one example, and its number of outputs; 1 output if the loss does not say it."""
    one, outputs = move(split_batch(batch, 1)[0], device_of(subject.model)), 1
    with evaluation_mode(subject.model), torch.no_grad():
        for _ in range(2):
            began = time.perf_counter()
            if isinstance(subject.loss, SplitLoss):
                outputs = subject.loss.output(subject.model, one).numel()
            else:
                subject.loss(subject.model, one)
    seconds = time.perf_counter() - began
    return seconds, outputs if outputs <= EXACT_UP_TO else 1  # of more outputs, the order draws one


def _seconds(subject: Subject, batch: Any) -> float:
    """Time of evaluating a batch. The first call can be slower, so a second one is timed if it is short."""
    for _ in range(2):
        began = time.perf_counter()
        evaluate(subject.model, [batch], subject.loss)
        seconds = time.perf_counter() - began
        if seconds > 1:
            break
    return seconds


def _count(batches: Iterable[Any]) -> int:
    return sum(map(batch_length, batches))
