"""The texts and tables of a report page, for the state in which it opens. They are legible without JavaScript."""

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from howsparse.limit.goal import Goal
from howsparse.limit.result import PruningLimit
from howsparse.report.contents import Contents, is_share, tolerance_of_drop

__all__ = ["answers_table", "curve_table", "facts_list", "lede", "sections", "sentence"]

_MOST_ROWS = 24  # of a table that stands for a chart

_WORDS = {
    "measured": "Removing the smallest weights keeps what must be kept: found by evaluating pruned networks.",
    "certified": "Shown on held-out data, with the stated confidence.",
    "predicted": "Removing the smallest weights keeps the loss, by a quadratic model of it.",
    "recoverable": "Predicted if the weights that stay adapt after pruning.",
    "limit": "Beyond this, random subspaces of the remaining weights do not keep the loss (Corollary 1 of the paper).",
    "upper": "The paper says that a solution exists up to this sparsity (Eq. 19).",
}


def sentence(contents: Contents) -> str:
    """The answer in one sentence, for the goal with which the page opens."""
    limit, goal = contents.limit, contents.goal
    if contents.measured is not None:
        what = _goal(goal, contents.measured.metric)
        share = _measured(contents)
        if share == 0:
            return f"No sparsity that was tried keeps this: {what}."
        return f"{_percent(share)} of the weights can go while {what}."
    what = _goal(goal, None)
    if limit.resolved:
        return f"The pruning limit is {_percent(limit.sparsity)} of the weights, if {what}."
    return f"The pruning limit is between {_percent(limit.bracket[0])} and {_percent(limit.bracket[1])}, if {what}."


def lede(contents: Contents) -> str:
    """One or two sentences that explain the answer."""
    weights = f"{contents.limit.num_weights:,} weights"
    if contents.measured is None:
        return f"The network has {weights} that can be pruned. The limit is computed from the curvature of its loss."
    kept = round((1 - _measured(contents)) * contents.limit.num_weights)
    return (
        f"Of {weights}, {kept:,} stay. This was measured by evaluating {len(contents.measured.curve)} pruned networks,"
        f" in which the weights go in the {contents.measured.order} order. Nothing was trained."
    )


def answers_table(contents: Contents) -> str:
    """The answers: a row for each answer that is known, or that is known for another tolerance."""
    limit, tolerance = contents.limit, _tolerance(contents)
    at = limit.at(tolerance=tolerance) if tolerance > 0 else None
    ends: dict[str, tuple[float, float] | None] = {}
    if contents.measured is not None:
        ends["measured"] = (_measured(contents),) * 2
    if contents.certificate is not None:
        ends["certified"] = (contents.certificate.sparsity,) * 2 if contents.certificate.holds else None
    ends["predicted"] = None if at is None else (at.predicted,) * 2
    same = at is not None and math.isclose(tolerance, limit.tolerance, rel_tol=1e-4)
    if limit.recoverable is not None:
        ends["recoverable"] = limit.recoverable if same else None
    ends["limit"] = None if at is None else (at.sparsity,) * 2 if at.resolved else at.bracket
    if limit.removed_spectrum is not None and limit.resolved:
        ends["upper"] = limit.upper_bracket if same else None
    rows = "".join(_answer_row(name, ends[name], contents) for name in _WORDS if name in ends)
    head = '<thead><tr><th scope="col">answer</th><th scope="col" class="n">sparsity</th>'
    head += '<th scope="col" class="n">weights that stay</th><th scope="col">what it says</th></tr></thead>'
    return f'<table class="answers">{head}<tbody>{rows}</tbody></table>'


def curve_table(contents: Contents) -> str:
    """What the curves show, as a table: measured at the evaluated sparsities, predicted there."""
    limit, measured, losses = contents.limit, contents.measured, contents.losses
    curve = limit.losses
    places = [p.sparsity for p in losses.curve] if losses is not None else [*np.linspace(0, 0.9, 10), 0.95, 0.98, 0.99]
    scores = {} if measured is None else {p.sparsity: p.accuracy for p in measured.curve}
    known = {} if losses is None else {p.sparsity: p.loss - losses.dense.loss for p in losses.curve}
    metric = None if measured is None or measured.dense.accuracy is None else measured.metric
    heads = ["sparsity", *([str(metric)] if metric else []), *(["rise of the loss"] if known else []), "predicted rise"]
    rows = []
    for place in sorted({*places, *scores}):
        cells = [_percent(place)]
        cells += [_score(scores.get(place), metric)] if metric else []
        cells += [_signed(known.get(place))] if known else []
        rows.append([*cells, _signed(float(np.interp(place, curve.sparsities, curve.increases)))])
    return table(heads, rows)


def sections(contents: Contents) -> str:
    """The sections below the answers: spectrum, magnitudes, layers, the bracket's width, and what is not shown."""
    limit = contents.limit
    found = [_spectrum_section(limit), _magnitudes_section(limit)]
    if limit.layers:
        found.append(_layers_section(limit))
    found.append(_errors_section(limit))
    if contents.absent:
        items = "".join(f"<li>{_with_code(line)}</li>" for line in contents.absent)
        found.append(f'<section><h2>What is not on this page</h2><ul class="plain">{items}</ul></section>')
    return "".join(found)


def facts_list(contents: Contents) -> str:
    """How the answers were computed, and the command that makes the page again."""
    limit = contents.limit
    curvature = {"hessian": "Hessian", "ggn": "Gauss-Newton matrix"}[limit.curvature]
    negative = {"wall": "counts as positive of the same size", "unbounded": "counts as none"}[limit.negative]
    why = {
        "precision": "the bracket is as narrow as asked for",
        "probe": "more steps would not make the bracket narrower, more probes would",
        "max_products": "the largest number of products is reached",
        "memory": "memory is full",
        "exact": "the spectrum is exact",
    }
    probes = len(limit.spectrum.tridiagonals)
    facts = [
        ("curvature", f"{curvature}; negative curvature {negative}"),
        ("tolerance of the limit", f"{limit.tolerance:.6g} (rise of the mean loss)"),
        ("products", f"{limit.num_products:,}"),
        (
            "Lanczos steps",
            f"{limit.spectrum.num_steps} for {'one probe' if probes == 1 else f'each of {probes} probes'}",
        ),
        ("stopped because", why.get(limit.stopped, limit.stopped)),
        *contents.facts,
    ]
    rows = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in facts)
    again = ""
    if contents.command is not None:
        again = f"<p class='note'></p><pre><code>{escape(contents.command)}</code></pre>"
    return f'<dl class="facts">{rows}</dl>{again}'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; all columns but the first are numbers. A reader can scroll it with the keyboard."""
    head = "".join(f'<th scope="col"{"" if i == 0 else _NUMBER}>{escape(each)}</th>' for i, each in enumerate(heads))
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td{_NUMBER}>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for first, *cells in rows
    )
    name = escape(f"Table: {', '.join(heads)}")
    inner = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">{inner}</div>'


_NUMBER = ' class="n"'


def _measured(contents: Contents) -> float:
    """The measured sparsity for the goal of the page: by the metric on its curve, by the loss on the limit's data."""
    assert contents.measured is not None
    assert contents.losses is not None
    curve = contents.measured if contents.goal.max_drop is not None else contents.losses
    return curve.within(contents.goal)


def _tolerance(contents: Contents) -> float:
    goal = contents.goal
    return tolerance_of_drop(contents, goal.max_drop) if goal.max_drop is not None else float(goal.tolerance or 0.0)


def _answer_row(name: str, ends: tuple[float, float] | None, contents: Contents) -> str:
    said, note = _WORDS[name], ""
    if name == "certified" and contents.certificate is not None:
        said = contents.certificate.sentence
    if name == "limit" and ends is not None and ends[0] != ends[1]:
        note = " Not resolved: the bracket is too wide for one number."
    share, kept = "–", "–"
    if ends is not None:
        count = contents.limit.num_weights
        fewest, most = (f"{round((1 - end) * count):,}" for end in reversed(ends))
        share = _percent(ends[0]) if ends[0] == ends[1] else f"{_percent(ends[0])} to {_percent(ends[1])}"
        kept = fewest if ends[0] == ends[1] else f"{fewest} to {most}"
    word = {"upper": "upper bound"}.get(name, name)
    return (
        f'<tr id="answer-{name}"><th scope="row" class="c-{name}">{word}</th><td class="n share">{share}</td>'
        f'<td class="n kept">{kept}</td><td class="said">{escape(said)}<span class="note">{note}</span></td></tr>'
    )


def _spectrum_section(limit: PruningLimit) -> str:
    rule, size = limit.spectrum.gauss(), limit.spectrum.size
    largest = float(np.abs(rule.nodes).max()) or 1.0
    rows = []
    for decade in range(9):
        cut = largest / 10**decade
        above, below = (float(rule.masses[sign * rule.nodes >= cut * (1 - 1e-12)].sum()) * size for sign in (1, -1))
        rows.append([f"{cut:.3g}", f"{above:,.1f}", f"{below:,.1f}"])
    shown = table(["size of the eigenvalue, at least", "positive", "negative"], rows)
    words = (
        f"The curvature of the loss has {size:,} eigenvalues, one for each weight. Directions with much more curvature"
        " than the scale of the limit must be kept; those with much less can go. The number of steps limits how well"
        " the small eigenvalues are known."
    )
    return _chart_section("Spectrum", words, "spectrum", shown)


def _magnitudes_section(limit: PruningLimit) -> str:
    sizes, count = limit.magnitudes.sizes, limit.num_weights
    places = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0]
    rows = []
    for place in places:
        rank = max(round(place * count), 1)
        rows.append([_percent(place), f"{sizes[rank - 1]:.3g}", f"{limit.magnitudes.radius(1 - rank / count):.3g}"])
    zero = int(np.searchsorted(sizes, 0.0, side="right"))
    words = "The smallest weights go first. The curve is the size of the largest weight that is gone at each sparsity."
    if zero:
        words += f" {zero:,} weights are exactly zero."
    return _chart_section(
        "Magnitudes", words, "magnitudes", table(["sparsity", "largest magnitude removed", "norm removed"], rows)
    )


def _layers_section(limit: PruningLimit) -> str:
    words = (
        f"What removing the smallest {_percent(limit.predicted)} of all weights takes from each layer, and by how much"
        " each layer is predicted to raise the loss. This does not move with the slider."
    )
    if len(limit.layers) > 16:
        words += f" The chart has the 16 layers of {len(limit.layers)} that change the loss most."
    rows = [[each.name, f"{each.num_weights:,}", _percent(each.sparsity), f"{each.cost:.3g}"] for each in limit.layers]
    return _chart_section("Layers", words, "layers", table(["layer", "weights", "removed", "predicted rise"], rows))


def _errors_section(limit: PruningLimit) -> str:
    words = (
        "The bracket of the limit is the sum of these half-widths. Steps are a proven bound, the probe is covered with"
        " a probability of 99 %, and rounding is estimated from its measured size."
    )
    more = limit.outlook()
    if more is not None:
        words += f" With more steps: {more}."
    errors = limit.errors
    named = {"steps of Lanczos": errors.quadrature, "random probe": errors.probe, "rounding": errors.rounding}
    rows = [[name, f"{100 * half:.3g}"] for name, half in (named | {"data are a sample": errors.data}).items()]
    shown = table([f"source, at a tolerance of {limit.tolerance:.3g}", "half-width, points"], rows)
    return _chart_section("Where the bracket comes from", words, "errors", shown)


def _chart_section(title: str, words: str, name: str, shown: str) -> str:
    return (
        f'<section><h2>{escape(title)}</h2><p>{escape(words)}</p><figure><div class="chart" id="{name}"></div></figure>'
        f"<details><summary>Numbers of this chart</summary>{shown}</details></section>"
    )


def _with_code(line: str) -> str:
    """A line in which the command after ": " is shown as code."""
    words, colon, command = line.partition(": howsparse ")
    return escape(words) + (f": <code>{escape(f'howsparse {command}')}</code>" if colon else "")


def _goal(goal: Goal, metric: str | None) -> str:
    if goal.max_drop is not None and not is_share(metric):
        return f"the {metric} drops by at most {goal.max_drop:.3g}"
    return goal.describe(metric) if goal.max_drop is not None else f"the loss rises by at most {goal.tolerance:.3g}"


def _percent(share: float) -> str:
    digits = 1 if share < 0.99 or share == 1 else 2 if share < 0.999 else 3
    return f"{100 * share:.{digits}f}\u00a0%"


def _score(value: float | None, metric: str | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f}\u00a0%" if is_share(metric) else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3g}".replace("-", "\u2212")
