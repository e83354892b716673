"""Held-out data for certificates: checked once, with the network's values on them before pruning."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.limit.overlap import overlapping
from howsparse.limit.sequence import Held, Question, held_values
from howsparse.risk.alone import alone
from howsparse.risk.batches import same_content
from howsparse.risk.fast import fast_convolutions
from howsparse.risk.guard import guarded
from howsparse.risk.losses import Loss, as_loss, cross_entropy
from howsparse.risk.metrics import Metric, as_metric
from howsparse.risk.outcomes import Outcomes, outcomes

__all__ = ["HeldOut", "check_held_out"]


@dataclass(frozen=True)
class HeldOut:
    """Held-out data that were checked.

    Attributes:
        batches: the data.
        question: what is to be certified.
        loss: ``loss(model, batch)``.
        metric: what is scored; None if the question is about the loss and there is no metric.
        before: the value of each example before pruning.
        overlap_checked: whether the examples were compared with those that chose something.
    """

    batches: Iterable[Any]
    question: Question
    loss: Loss
    metric: Metric | None
    before: Held
    overlap_checked: bool

    def look(self, model: nn.Module) -> Outcomes:
        """The loss and the score of each example, for a model as it is."""
        return _look(model, self.batches, self.loss, self.metric)


@alone
@guarded
def check_held_out(
    model: nn.Module,
    batches: Iterable[Any],
    question: Question,
    *,
    chosen_on: Iterable[Any] | None = None,
    loss: Loss = cross_entropy,
    metric: "str | Metric | Callable[[Tensor, Any], Tensor] | None" = None,
) -> HeldOut:
    """Check held-out data, and evaluate the network on them before pruning. Do this before long work.

    Args:
        model: the network before pruning.
        batches: batches that can be read several times and are the same in every pass.
        question: what is to be certified.
        chosen_on: the batches that chose something. No held-out example may be among them.
        loss, metric: as for `certify`.

    Raises:
        InputError: there are too few held-out examples, some are in ``chosen_on``, the data differ from pass to pass,
            or the metric does not fit.

    >>> batches = [(torch.eye(2).repeat(300, 1), torch.tensor([0, 1]).repeat(300))]
    >>> check_held_out(nn.Linear(2, 2), batches, Question(max_drop=0.01)).before.test
    'exact paired'
    """
    loss = as_loss(loss, model)
    scored = as_metric(metric, loss)
    if question.max_drop is not None and scored is None:
        raise InputError("the loss cannot tell which predictions are correct; pass a metric, or tolerance")
    _check_passes(batches)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        if chosen_on is not None:
            _check_overlap(batches, chosen_on)
        before = held_values(_look(model, batches, loss, scored), question)
    return HeldOut(batches, question, loss, scored, before, chosen_on is not None)


def _look(model: nn.Module, batches: Iterable[Any], loss: Loss, metric: Metric | None) -> Outcomes:
    with fast_convolutions(model, batches, loss) as pieces:
        return outcomes(model, pieces, loss, metric)


def _check_passes(held_out: Iterable[Any]) -> None:
    """Check that the batches can be read twice, and that the first one is the same in both passes."""
    if isinstance(held_out, Iterator):
        raise InputError("held_out can be read only once; pass a list or a DataLoader, not an iterator")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        first, again = next(iter(held_out), None), next(iter(held_out), None)
    if first is None:
        raise InputError("held_out has no batches; pass at least one")
    if not same_content(first, again):
        raise InputError("held_out differs from pass to pass; turn shuffling and augmentation off, or pass a list")


def _check_overlap(held_out: Iterable[Any], chosen_on: Iterable[Any]) -> None:
    shared = overlapping(held_out, chosen_on)
    if shared:
        raise InputError(
            f"{shared:,} held-out examples are also among the data that trained the network or chose something; remove"
            " them, because a certificate needs examples that chose nothing"
        )
