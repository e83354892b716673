"""What a page shows of one network, and its numbers as JSON values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from howsparse.errors import InputError
from howsparse.limit.bracket import RESOLVED_WIDTH
from howsparse.limit.certificate import Certificate
from howsparse.limit.goal import Goal
from howsparse.limit.measure import Measured
from howsparse.limit.result import PruningLimit
from howsparse.records import provenance
from howsparse.report.live import live_limit, short

__all__ = ["Contents", "contents_of", "is_share", "page_numbers", "tolerance_of_drop"]

Array = NDArray[np.float64]

_TIMES = 30.0  # the slider goes from the tolerance divided by this to the tolerance times this
_POINTS = (*(0.1 * k for k in range(11)), *(1 + 0.25 * k for k in range(1, 9)), *(3 + 0.5 * k for k in range(1, 15)))
_MOST = 400  # points of a curve that is only drawn


@dataclass(frozen=True)
class Contents:
    """What a page shows of one network.

    Attributes:
        limit: the computed limit.
        title: name of the network.
        measured: the measured curve that is shown against the metric, for example on test data; None without one.
        on_train: the measured curve on the data of the limit; by default ``measured`` stands for it.
        certificate: what was certified on held-out data; None if nothing was.
        facts: how the answers were computed, as labels and values, in addition to those of the limit.
        command: the command that makes the page again; None if there is none.
        absent: what was not computed and how to add it, a sentence each.
    """

    limit: PruningLimit
    title: str
    measured: Measured | None = None
    on_train: Measured | None = None
    certificate: Certificate | None = None
    facts: tuple[tuple[str, str], ...] = ()
    command: str | None = None
    absent: tuple[str, ...] = ()

    @property
    def goal(self) -> Goal:
        """The goal when the page opens: that of ``measured``, or the tolerance of the limit."""
        if self.measured is None:
            return Goal(tolerance=self.limit.tolerance)
        if self.measured.goal.max_rise is not None:
            return Goal(tolerance=self.measured.goal.max_rise * self.measured.dense.loss)
        return self.measured.goal

    @property
    def losses(self) -> Measured | None:
        """The measured curve of the loss, on the data of the limit where it is known."""
        return self.on_train or self.measured


def contents_of(
    limit: PruningLimit,
    *,
    title: str,
    measured: Measured | None,
    on_train: Measured | None,
    certificate: Certificate | None,
) -> Contents:
    """The contents of `PruningLimit.report`: its arguments, the versions, and how to add the missing answers.

    Args:
        limit, title, measured, on_train, certificate: as for `PruningLimit.report`.

    Raises:
        InputError: a measured curve is of another order than magnitude, or ``on_train`` comes without ``measured``.
    """
    for curve in (measured, on_train):
        if curve is not None and curve.order != "magnitude":
            raise InputError(f"a page is about the magnitude order; measure with it, not with '{curve.order}'")
    if measured is None:
        measured, on_train = on_train, None
    absent = []
    if measured is None:
        absent.append("What is measured: pass measured=howsparse.measure(model, batches).")
    if certificate is None:
        absent.append("What is certified: pass certificate=howsparse.certify(model, held_out).")
    versions = ", ".join(f"{name} {version}" for name, version in provenance().versions.items())
    return Contents(limit, title, measured, on_train, certificate, (("versions", versions),), None, tuple(absent))


def tolerance_of_drop(contents: Contents, drop: float) -> float:
    """The rise of the loss that belongs to a drop of the metric: the rise that was measured at the measured sparsity.

    Args:
        contents: contents with a ``measured`` curve of the metric; the loss comes from ``losses``, interpolated
            linearly.
        drop: allowed drop of the metric; for the accuracy, a fraction.

    Returns:
        A rise of the loss. It is not positive if pruning to this sparsity does not raise the loss.
    """
    measured, losses = contents.measured, contents.losses
    assert measured is not None
    assert losses is not None
    at = measured.within(Goal(max_drop=drop))
    return float(np.interp(at, [p.sparsity for p in losses.curve], [p.loss for p in losses.curve])) - losses.dense.loss


def page_numbers(contents: Contents) -> dict[str, Any]:
    """The numbers from which the page draws its charts and computes its answers, as JSON values."""
    limit, measured, goal = contents.limit, contents.measured, contents.goal
    certificate = contents.certificate
    stops = _stops(contents)
    return {
        "title": contents.title,
        "weights": limit.num_weights,
        "metric": _metric(measured),
        "start": {"unit": "drop", "value": goal.max_drop}
        if goal.max_drop is not None
        else {"unit": "loss", "value": goal.tolerance},
        "stops": stops,
        "measured": _curve(measured),
        "train": _curve(contents.on_train),
        "order": None if measured is None else measured.order,
        "predicted": {
            "sparsity": short(limit.losses.sparsities),
            "increase": short(limit.losses.increases),
            "random": short(limit.random_losses.increases, 5),
        },
        "checked": _checked(limit),
        "limit": live_limit(limit, _tolerances(contents, stops)) | {"resolvedWidth": RESOLVED_WIDTH},
        "tolerance": limit.tolerance,
        "recoverable": _ends(limit.recoverable, limit.tolerance),
        "upper": None if limit.removed_spectrum is None else _ends(limit.upper_bracket, limit.tolerance),
        "certificate": None if certificate is None else _certified(certificate),
        "spectrum": _spectrum(limit),
        "magnitudes": _magnitudes(limit),
        "layers": [
            {"name": each.name, "weights": each.num_weights, "sparsity": each.sparsity, "cost": each.cost}
            for each in limit.layers
        ],
    }


def is_share(metric: str | None) -> bool:
    """Whether a metric is a share of predictions, which is shown in per cent."""
    return metric is not None and (metric == "accuracy" or metric.startswith("top"))


def _metric(measured: Measured | None) -> dict[str, Any] | None:
    if measured is None or measured.dense.accuracy is None:
        return None
    return {"name": measured.metric, "share": is_share(measured.metric)}


def _stops(contents: Contents) -> dict[str, list[float] | None]:
    """The places of the slider: drops of the metric, and rises of the loss."""
    goal, tolerance = contents.goal, contents.limit.tolerance
    places = {float(f"{tolerance * _TIMES ** (k / 30):.3g}") for k in range(-30, 31) if k}
    losses = sorted(places | {tolerance} | ({goal.tolerance} if goal.tolerance else set()))
    if _metric(contents.measured) is None:
        return {"drop": None, "loss": losses}
    drops = {round(points / 100, 6) for points in _POINTS} | ({goal.max_drop} if goal.max_drop is not None else set())
    return {"drop": sorted(drops), "loss": losses}


def _tolerances(contents: Contents, stops: dict[str, list[float] | None]) -> tuple[float, float]:
    """The smallest and the largest tolerance that the slider can ask for."""
    of_drops = [tolerance_of_drop(contents, drop) for drop in stops["drop"] or ()]
    known = [t for t in (*(stops["loss"] or ()), *of_drops) if t > 1e-4 * contents.limit.tolerance]
    return min(known), max(known)


def _curve(measured: Measured | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    points = [point for point in measured.curve if math.isfinite(point.loss)]
    scores = [point.accuracy for point in points]
    return {
        "sparsity": [point.sparsity for point in points],
        "loss": [point.loss for point in points],
        "accuracy": None if None in scores else scores,
    }


def _checked(limit: PruningLimit) -> dict[str, Any] | None:
    if limit.checked_rise is None:
        return None
    return {"tolerance": limit.tolerance, "rise": limit.checked_rise, "holds": limit.prediction_holds}


def _ends(ends: tuple[float, float] | None, tolerance: float) -> dict[str, float] | None:
    if ends is None or math.isnan(ends[0]):
        return None
    return {"low": ends[0], "high": ends[1], "tolerance": tolerance}


def _certified(certificate: Certificate) -> dict[str, Any]:
    return {
        "sparsity": certificate.sparsity if certificate.holds else None,
        "drop": certificate.max_drop,
        "tolerance": certificate.tolerance,
        "confidence": certificate.confidence,
        "sentence": certificate.sentence,
    }


def _spectrum(limit: PruningLimit) -> dict[str, Any]:
    """The number of eigenvalues beyond each value, on both sides of 0, from the mean of the probes' Gauss rules."""
    rule, size = limit.spectrum.gauss(), limit.spectrum.size
    largest = float(np.abs(rule.nodes).max()) or 1.0
    sides = {}
    for name, sign in (("positive", 1.0), ("negative", -1.0)):
        own = sign * rule.nodes > 1e-9 * largest
        order = np.argsort(-sign * rule.nodes[own])
        at, counts = sign * rule.nodes[own][order], size * np.cumsum(rule.masses[own][order])
        keep = _few(at.size, _MOST)
        sides[name] = {"at": short(at[keep], 6), "count": short(counts[keep], 6)}
    return sides | {"size": size, "largest": largest}


def _magnitudes(limit: PruningLimit) -> dict[str, list[float]]:
    """The largest magnitude among the removed weights, at sparsities that are dense near 1."""
    sizes, count = limit.magnitudes.sizes, limit.num_weights
    places = np.unique(np.concatenate([np.linspace(0, 1, 101), 1 - np.geomspace(0.5, 1 / max(count, 2), 100)]))
    ranks = np.unique(np.clip(np.round(places * count), 1, count).astype(np.int64))
    return {"sparsity": short(ranks / count, 7), "size": short(sizes[ranks - 1], 5)}


def _few(count: int, most: int) -> Sequence[int] | NDArray[np.int64]:
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).round().astype(np.int64))
