"""Tables of answers for a terminal."""

from collections.abc import Sequence

from rich.table import Table

from howsparse.experiments.summary import Row
from howsparse.limit.assess import Assessment
from howsparse.limit.measure import Point
from howsparse.limit.predict import verdict
from howsparse.limit.result import PruningLimit
from howsparse.limit.summary import with_error

__all__ = ["answer_table", "comparison_table", "percent"]


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as a percentage; "-" for None.

    >>> percent(0.9491)
    '94.9 %'
    """
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def answer_table(assessment: Assessment, after: Point) -> Table:
    """The answers for a network in a few rows, the measured one first.

    Args:
        assessment: the limit of the network, and its measured curves.
        after: point of the pruned network on the test batches.
    """
    limit, train = assessment.limit, assessment.on_train
    title = f"How sparse can this network be pruned? {limit.num_weights:,} weights, tolerance {limit.tolerance:.3g}"
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("now", f"{percent(train.sparsity)} keeps the training loss (measured; this is the answer)")
    if assessment.on_test.sparsity_by_accuracy is not None:
        table.add_row("", f"{percent(assessment.on_test.sparsity_by_accuracy)} keeps the test accuracy (measured)")
    table.add_row("proven", "not asked for (certify)")
    table.add_row("at most", _at_most(limit))
    if assessment.directional is not None:
        along = assessment.directional
        table.add_row(
            "directional", f"{percent(along.low)} to {percent(along.high)}, if a random subspace adapts (bracket)"
        )
    checked = verdict(limit.checked_rise, limit.tolerance, limit.prediction_above_limit)
    table.add_row("predicted", f"{percent(limit.predicted)} {checked}")
    if limit.recoverable is not None:
        low, high = map(percent, limit.recoverable)
        table.add_row("recoverable", f"{low} to {high}, if the kept weights adapt (predicted)")
    table.add_row("test", _test_change(assessment.on_test.dense, after))
    return table


def _at_most(limit: PruningLimit) -> str:
    """The limit with its bracket; if it is not resolved, this is said, with the options that would resolve it."""
    if limit.resolved:
        return f"{with_error(limit.sparsity, limit.errors.typical_error)} (limit, bracket {limit.errors})"
    outlook = limit.outlook()
    more = f"; {outlook}" if outlook else ""
    if limit.stopped == "probe":
        more = "; --probes {} --max-products {} would make it narrower".format(*limit.more_probes())
    return f"not resolved: a bracket of {limit.errors}{more}"


def _test_change(dense: Point, after: Point) -> str:
    """Accuracy, or loss if there is none, before and after pruning."""
    removed = f"with {percent(after.sparsity)} removed"
    if dense.accuracy is None:
        return f"loss {dense.loss:.4g} with all weights, {after.loss:.4g} {removed}"
    return f"accuracy {percent(dense.accuracy, 2)} with all weights, {percent(after.accuracy, 2)} {removed}"


def comparison_table(title: str, rows: Sequence[Row]) -> Table:
    """A table with a row for each method, a column for each sparsity, and a column for the number of epochs.

    The cells are test accuracies in per cent; if the loss has no ``score``, they are test losses.

    Args:
        title: title of the table.
        rows: one for each method and sparsity.
    """
    targets = list(dict.fromkeys(row.target for row in rows if row.method != "dense"))
    scored = any(row.accuracy is not None for row in rows) or all(row.test_loss is None for row in rows)
    what, cell = ("accuracy, %", _accuracy) if scored else ("loss", _test_loss)
    table = Table(title=f"{title}: test {what}", title_justify="left", caption_justify="left")
    table.add_column("method", no_wrap=True)
    for target in targets:
        table.add_column(_target(target, rows), justify="right", no_wrap=True)
    table.add_column("epochs, at most", justify="right")
    refused: dict[str, str] = {}
    for method in dict.fromkeys(row.method for row in rows):
        own = {row.target: row for row in rows if row.method == method}
        refused.update((method, row.refused) for row in own.values() if row.refused is not None)
        # The dense network appears in every column, although its sparsity is 0.
        shown = [own.get(0.0 if method == "dense" else target) for target in targets]
        epochs = [row.epochs for row in own.values() if row.epochs is not None]
        cells = ["-" if row is None else cell(row) for row in shown]
        table.add_row(method, *cells, f"{max(epochs):.0f}" if epochs else "-")
    table.caption = "\n".join(map(_refusal, refused, refused.values())) or None
    return table


def _refusal(method: str, reason: str) -> str:
    """Why a method was not run; a reason that begins with the method's name needs no other."""
    return reason if reason.startswith(method.partition(":")[0]) else f"{method}: {reason}"


def _target(target: float | str, rows: Sequence[Row]) -> str:
    """Head of a column; "limit" and "predicted" are followed by the mean sparsity."""
    if not isinstance(target, str):
        return percent(target)
    found = [row.sparsity for row in rows if row.target == target and row.sparsity is not None]
    return f"{target}, {percent(sum(found) / len(found))}" if found else target


def _accuracy(row: Row) -> str:
    if row.accuracy is None:
        return "-"
    spread = row.accuracy_deviation
    return f"{100 * row.accuracy:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def _test_loss(row: Row) -> str:
    return "-" if row.test_loss is None else f"{row.test_loss:.4g}"
