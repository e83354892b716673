"""`certify`: a bound for what pruning loses on the population, proven with held-out examples.

The masks are tested one after the other, from the first candidate on. Each test asks whether the population may lose
more than is allowed. The first test that does not pass ends the sequence, and the mask before it is certified. This
needs no correction for the number of tests (Maurer, Hothorn and Lehmacher, 1995; Angelopoulos et al., 2021). If every
example has one prediction with a score of 0 or 1, as for a classifier, the test is `paired_p_value`. For all other
scores and for losses it is `betting_p_value`.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import count, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.limit.certificate import Certificate, Step, network_digest
from howsparse.limit.held_out import HeldOut, check_held_out
from howsparse.limit.paired import Test, smallest_sample
from howsparse.limit.sequence import Candidate, Question, as_mask, check_confidence, check_drop, run_tests
from howsparse.progress import Progress, reporting
from howsparse.pruning.masks import Mask
from howsparse.pruning.network import PrunedNetwork
from howsparse.pruning.orders import Order, OrderFunction, rank
from howsparse.pruning.restoring import restored
from howsparse.risk.alone import alone
from howsparse.risk.guard import guarded, guarded_with_values
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.risk.metrics import Metric
from howsparse.risk.weights import select_weights

__all__ = [
    "CANDIDATES",
    "candidates_around",
    "certify",
    "certify_sequence",
    "examples_needed",
]

CANDIDATES = (*(round(0.05 * step, 2) for step in range(1, 19)), 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)


@alone
@guarded
def certify(
    model: nn.Module,
    held_out: Iterable[Any],
    *,
    max_drop: float | None = None,
    tolerance: float | None = None,
    loss_bound: float | None = None,
    confidence: float = 0.95,
    order: str | Order | OrderFunction = "magnitude",
    candidates: Sequence[float] | None = None,
    masks: Sequence[Candidate] | None = None,
    chosen_on: Iterable[Any] | None = None,
    loss: Loss = cross_entropy,
    metric: "str | Metric | Callable[[Tensor, Any], Tensor] | None" = None,
    names: Iterable[str] | None = None,
    seed: int = 0,
    on_point: Callable[[Step], None] = lambda step: None,
    progress: Progress | bool | None = None,
) -> Certificate:
    """Certify a sparsity: with a stated confidence, the drop on the population is at most the one that is allowed.

    The certificate holds if the held-out examples are independent draws from the population and chose nothing: not the
    weights, the order, the candidates or the allowed drop. It is about the mean over examples. If an example has
    several predictions, such as the tokens of a text, its score is their mean.

    Args:
        model, loss, metric, names, seed: as for `measure`; every value of the metric must be in [0, 1].
        held_out: batches that can be read several times and are the same in every pass.
        max_drop: largest allowed drop of the mean score, as a fraction: 0.01 is one point.
        tolerance: instead of ``max_drop``: largest allowed rise of the mean loss.
        loss_bound: with ``tolerance``: the loss of one example counts as at most this, and as at least 0.
        confidence: probability with which the certificate holds, in (0.5, 1).
        order: name of an order, or an order. An order that needs data gets ``chosen_on``.
        candidates: sparsities in the order of the tests, rising; `CANDIDATES` or `candidates_around` a measured one.
        masks: masks in the order of the tests, or networks that were pruned and repaired (`PrunedNetwork`), instead of
            ``order`` and ``candidates``.
        chosen_on: the batches that chose the order, the candidates or the masks. No held-out example may be among them.
        on_point, progress: called with each test; as for `measure`.

    Returns:
        The certificate. If not even the first candidate passes, its sparsity is 0.0 and ``holds`` is False.

    Raises:
        InputError: there are too few held-out examples, some are in ``chosen_on``, or an argument is not valid.

    Source: Maurer, Hothorn and Lehmacher (1995) for the sequence of tests; `howsparse.limit.paired` for the tests.

    >>> model = nn.Linear(2, 2, bias=False)
    >>> model.weight.data = torch.tensor([[4.0, 0.1], [0.1, 4.0]])
    >>> certify(model, [(torch.eye(2).repeat(300, 1), torch.tensor([0, 1]).repeat(300))], max_drop=0.01).sparsity
    0.5
    """
    question = Question(max_drop, tolerance, loss_bound, confidence)
    chosen, names = _chosen(order, candidates, masks), list(select_weights(model, names))
    held = check_held_out(model, held_out, question, chosen_on=chosen_on, loss=loss, metric=metric)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        name, repair, sequence = *_made_by(chosen[0]), iter(chosen)
        if masks is None:
            ranked = rank(model, order, chosen_on, loss=held.loss, names=names, seed=seed)
            name, sequence = ranked.name, map(ranked.mask, chosen)
        told: dict[str, Any] = {"names": names, "on_point": on_point, "progress": progress}
        return certify_sequence(model, held, sequence, order=name, repair=repair, **told)[0]


@alone
@guarded_with_values
def certify_sequence(
    model: nn.Module,
    held: HeldOut,
    sequence: Iterable[Candidate],
    *,
    order: str,
    repair: str = "none",
    names: Iterable[str] | None = None,
    on_point: Callable[[Step], None] = lambda step: None,
    progress: Progress | bool | None = None,
) -> tuple[Certificate, Candidate | None]:
    """Test masks or repaired networks one after the other on held-out data. The data were checked before.

    Args:
        model: the network before pruning; it comes back as it was.
        held: the held-out data, of `check_held_out`.
        sequence: what is tested, in this order. It must not depend on the held-out data. It may be made as it is read.
        order, repair: names of the order and the repair.
        names: as for `measure`.
        on_point, progress: as for `certify`.

    Returns:
        The certificate, and the mask or network that it is for; None if nothing could be certified.

    Raises:
        InputError: the held-out data differ from pass to pass, or a value does not fit.
    """
    done = count(1)
    with reporting(progress) as report, torch.random.fork_rng(devices=range(torch.cuda.device_count())):

        def told(step: Step) -> None:
            made = next(done)
            report("measuring held-out data", made, max(len(CANDIDATES), made))
            on_point(step)

        steps, certified = run_tests(model, sequence, lambda: held.look(model), held.before, held.question, told)
    mask = _whole_mask(model, names) if certified is None else as_mask(certified)
    with restored(model):
        (mask if certified is None else certified).apply_(model)
        digest = network_digest(model, mask)
    return _certificate(held, steps, order, repair, mask, digest), certified


def candidates_around(measured: float) -> tuple[float, ...]:
    """Candidates for `certify` around a sparsity that was measured on other data than the held-out examples.

    They start at 60 % of this sparsity in steps of 10 %, and continue from 80 % of it in steps of 0.01, or smaller
    steps near 1. They end a little above it. The certified sparsity is usually below the measured one, because it is a
    safe bound.

    Args:
        measured: the measured sparsity, in (0, 1).

    Raises:
        InputError: it is not in (0, 1).

    >>> candidates_around(0.1)
    (0.06, 0.07, 0.08, 0.09, 0.1, 0.11, 0.12)
    """
    if not 0 < measured < 1:
        raise InputError(f"sparsity {measured:g} is outside (0, 1); give the fraction of weights that was removed")
    step = min(0.01, (1 - measured) / 4)
    fine = [0.8 * measured + step * i for i in range(int(0.2 * measured / step + 1e-9) + 3)]
    return tuple(round(sparsity, 6) for sparsity in (0.6 * measured, 0.7 * measured, *fine))


def examples_needed(max_drop: float, confidence: float = 0.95, test: Test = "exact paired") -> int:
    """The smallest number of held-out examples with which `certify` can certify anything.

    With this number, only a mask that changes no outcome can be certified. With more examples, larger sparsities can
    be.

    Args:
        max_drop: largest allowed drop, as a fraction; for a loss, ``tolerance`` divided by ``loss_bound``.
        confidence: probability with which the certificate holds, in (0.5, 1).
        test: "exact paired" for scores of 0 and 1, "betting" for others.

    Raises:
        InputError: the drop is outside (0, 1), or the confidence outside (0.5, 1).

    >>> examples_needed(0.01), examples_needed(0.02)
    (300, 149)
    """
    check_drop(max_drop)
    check_confidence(confidence)
    return smallest_sample(max_drop, round(1 - confidence, 12), test)


def _made_by(candidate: Any) -> tuple[str, str]:
    """The names of the order and the repair that made a candidate."""
    return (candidate.order, candidate.repair) if isinstance(candidate, PrunedNetwork) else ("given", "none")


def _whole_mask(model: nn.Module, names: Iterable[str] | None) -> Mask:
    """The mask that removes nothing."""
    weights = select_weights(model, names)
    return Mask({name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()})


def _certificate(held: HeldOut, steps: list[Step], order: str, repair: str, mask: Mask, digest: str) -> Certificate:
    question, before = held.question, held.before
    return Certificate(
        sparsity=mask.sparsity,
        max_drop=question.max_drop,
        tolerance=question.tolerance,
        loss_bound=question.loss_bound,
        confidence=question.confidence,
        metric="loss" if question.max_drop is None or held.metric is None else held.metric.name,
        num_examples=len(before.values),
        dense_score=float(before.values.mean()),
        test=before.test,
        steps=tuple(steps),
        order=order,
        digest=digest,
        overlap_checked=held.overlap_checked,
        mask=mask,
        repair=repair,
    )


def _chosen(
    order: str | Order | OrderFunction, candidates: Sequence[float] | None, masks: Sequence[Candidate] | None
) -> Sequence[Any]:
    """The masks or the sparsities of the tests, checked."""
    if masks is not None:
        if candidates is not None or not isinstance(order, str) or order != "magnitude":
            raise InputError(
                "masks cannot be used together with order or candidates; give masks alone, or leave them out"
            )
        if not masks:
            raise InputError("the list of masks is empty; give at least one mask")
        return masks
    sparsities = CANDIDATES if candidates is None else tuple(candidates)
    if not sparsities or not all(0 < sparsity < 1 for sparsity in sparsities):
        raise InputError("candidates must be fractions of weights to remove, in (0, 1); give at least one")
    if any(one >= other for one, other in pairwise(sparsities)):
        raise InputError("candidates must rise: the tests go from the smallest sparsity to the largest; sort them")
    return sparsities
