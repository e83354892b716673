"""`certify`: a bound for what pruning loses on the population, proven with held-out examples.

The masks are tested one after the other, from the first candidate on. Each test asks whether the population may lose
more than is allowed. The first test that does not pass ends the sequence, and the mask before it is certified. This
needs no correction for the number of tests (Maurer, Hothorn and Lehmacher, 1995; Angelopoulos et al., 2021). If every
example has one prediction with a score of 0 or 1, as for a classifier, the test is `paired_p_value`. For all other
scores and for losses it is `betting_p_value`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.limit.certificate import Certificate, Step, network_digest
from howsparse.limit.overlap import overlapping
from howsparse.limit.paired import Test, smallest_sample
from howsparse.limit.sequence import Held, Question, check_confidence, check_drop, held_values, run_tests
from howsparse.progress import Progress, reporting
from howsparse.pruning.masks import Mask
from howsparse.pruning.orders import Order, OrderFunction, rank
from howsparse.risk.batches import same_content
from howsparse.risk.fast import fast_convolutions
from howsparse.risk.losses import Loss, as_loss, cross_entropy
from howsparse.risk.metrics import Metric, as_metric
from howsparse.risk.outcomes import Outcomes, outcomes
from howsparse.risk.weights import select_weights

__all__ = ["CANDIDATES", "candidates_around", "certify", "examples_needed"]

CANDIDATES = (*(round(0.05 * step, 2) for step in range(1, 19)), 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)


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
    masks: Sequence[Mask] | None = None,
    chosen_on: Iterable[Any] | None = None,
    loss: Loss = cross_entropy,
    metric: "str | Metric | Callable[[Tensor, Any], Tensor] | None" = None,
    names: Iterable[str] | None = None,
    seed: int = 0,
    on_point: Callable[[Step], None] = lambda step: None,
    progress: Progress | bool | None = None,
) -> Certificate:
    """Certify a sparsity: with a stated confidence, the drop on the population is at most the one that is allowed.

    It holds if the held-out examples are independent draws from the population and chose nothing: not the weights, the
    order, the candidates or the allowed drop. It is about the mean over examples; a text counts with its tokens' mean.

    Args:
        model, loss, metric, names, seed: as for `measure`; every value of the metric must be in [0, 1].
        held_out: batches that can be read several times and are the same in every pass.
        max_drop: largest allowed drop of the mean score, as a fraction: 0.01 is one point.
        tolerance: instead of ``max_drop``: largest allowed rise of the mean loss.
        loss_bound: with ``tolerance``: the loss of one example counts as at most this, and as at least 0.
        confidence: probability with which the certificate holds, in (0.5, 1).
        order: name of an order, or an order. An order that needs data gets ``chosen_on``.
        candidates: sparsities in the order of the tests, rising; `CANDIDATES` or `candidates_around` a measured one.
        masks: masks in the order of the tests, instead of ``order`` and ``candidates``.
        chosen_on: the batches that chose the order, the candidates or the masks. No held-out example may be among them.
        on_point, progress: called with each test; as for `measure`.

    Returns:
        The certificate. If not even the first candidate passes, its sparsity is 0.0 and ``holds`` is False.

    Raises:
        InputError: there are too few held-out examples, some are in ``chosen_on``, or an argument is not valid.

    >>> model = nn.Linear(2, 2, bias=False)
    >>> model.weight.data = torch.tensor([[4.0, 0.1], [0.1, 4.0]])
    >>> certify(model, [(torch.eye(2).repeat(300, 1), torch.tensor([0, 1]).repeat(300))], max_drop=0.01).sparsity
    0.5
    """
    question = Question(max_drop, tolerance, loss_bound, confidence)
    loss, names = as_loss(loss, model), list(select_weights(model, names))
    scored = _metric(metric, loss, question)
    _check_data(held_out, chosen_on)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        name, sequence = _sequence(model, order, candidates, masks, chosen_on, loss, names, seed)
        held, steps, mask = _tested(model, sequence, held_out, loss, scored, question, on_point, progress)
    mask = _whole_mask(model, names) if mask is None else mask
    return _certificate(question, held, steps, name, mask, scored, network_digest(model, mask), chosen_on is not None)


def candidates_around(measured: float) -> tuple[float, ...]:
    """Candidates for `certify` around a sparsity that was measured on other data than the held-out examples.

    They start at 60 % of it in steps of 10 %, and go on from 80 % of it in steps of 0.01, or smaller ones near 1. They
    end a little above it. The certified sparsity is usually below the measured one, because it is a safe bound.

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

    With this number, a mask is certified only if it changes no outcome at all. More examples certify more.

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


def _metric(metric: Any, loss: Loss, question: Question) -> Metric | None:
    scored = as_metric(metric, loss)
    if question.max_drop is not None and scored is None:
        raise InputError("the loss cannot tell which predictions are correct; pass a metric, or tolerance")
    return scored


def _sequence(
    model: nn.Module,
    order: str | Order | OrderFunction,
    candidates: Sequence[float] | None,
    masks: Sequence[Mask] | None,
    chosen_on: Iterable[Any] | None,
    loss: Loss,
    names: list[str],
    seed: int,
) -> tuple[str, Iterator[Mask]]:
    """The name of the order, and its masks in the order of the tests."""
    if masks is not None:
        _check_masks(masks, order, candidates)
        return "given", iter(masks)
    sparsities = _sparsities(candidates)
    ranked = rank(model, order, chosen_on, loss=loss, names=names, seed=seed)
    return ranked.name, map(ranked.mask, sparsities)


def _tested(
    model: nn.Module,
    sequence: Iterator[Mask],
    held_out: Iterable[Any],
    loss: Loss,
    scored: Metric | None,
    question: Question,
    on_point: Callable[[Step], None],
    progress: Progress | bool | None,
) -> tuple[Held, list[Step], Mask | None]:
    """Test the masks; return the held-out values before pruning, the tests, and the certified mask."""
    with fast_convolutions(model, held_out, loss) as pieces, reporting(progress) as report:
        done = count(1)

        def look() -> Outcomes:
            return outcomes(model, pieces, loss, scored)

        def told(step: Step) -> None:
            made = next(done)
            report("measuring held-out data", made, max(len(CANDIDATES), made))
            on_point(step)

        held = held_values(look(), question)
        steps, mask = run_tests(model, sequence, look, held, question, told)
    return held, steps, mask


def _whole_mask(model: nn.Module, names: list[str]) -> Mask:
    """The mask that removes nothing."""
    weights = select_weights(model, names)
    return Mask({name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()})


def _certificate(
    question: Question,
    held: Held,
    steps: list[Step],
    order: str,
    mask: Mask,
    scored: Metric | None,
    digest: str,
    overlap_checked: bool,
) -> Certificate:
    return Certificate(
        sparsity=mask.sparsity,
        max_drop=question.max_drop,
        tolerance=question.tolerance,
        loss_bound=question.loss_bound,
        confidence=question.confidence,
        metric="loss" if question.max_drop is None or scored is None else scored.name,
        num_examples=len(held.values),
        dense_score=float(held.values.mean()),
        test=held.test,
        steps=tuple(steps),
        order=order,
        digest=digest,
        overlap_checked=overlap_checked,
        mask=mask,
    )


def _check_data(held_out: Iterable[Any], chosen_on: Iterable[Any] | None) -> None:
    _check_passes(held_out)
    if chosen_on is not None:
        _check_overlap(held_out, chosen_on)


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
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        shared = overlapping(held_out, chosen_on)
    if shared:
        raise InputError(
            f"{shared:,} held-out examples are also in chosen_on; remove them, because a certificate needs examples"
            " that chose nothing"
        )


def _sparsities(candidates: Sequence[float] | None) -> tuple[float, ...]:
    """The sparsities of the tests, checked."""
    sparsities = CANDIDATES if candidates is None else tuple(candidates)
    if not sparsities or not all(0 < sparsity < 1 for sparsity in sparsities):
        raise InputError("candidates must be fractions of weights to remove, in (0, 1); give at least one")
    if any(one >= other for one, other in pairwise(sparsities)):
        raise InputError("candidates must rise: the tests go from the smallest sparsity to the largest; sort them")
    return sparsities


def _check_masks(masks: Sequence[Mask], order: str | Order | OrderFunction, candidates: Sequence[float] | None) -> None:
    if candidates is not None or not isinstance(order, str) or order != "magnitude":
        raise InputError("masks stand for an order and candidates; give masks alone, or none")
    if not masks:
        raise InputError("the list of masks is empty; give at least one mask")
