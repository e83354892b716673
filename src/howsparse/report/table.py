"""Tables of answers for a terminal."""

from collections.abc import Sequence

from rich.table import Table

from howsparse.experiments.compare import Row
from howsparse.limit.assess import Assessment
from howsparse.limit.measure import Point

__all__ = ["answer_table", "comparison_table", "percent"]


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as a percentage; "-" for None.

    >>> percent(0.9491)
    '94.9 %'
    """
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def answer_table(assessment: Assessment, after: Point) -> Table:
    """A table with one row for each answer for a network.

    Args:
        assessment: the limit of the network, and its measured curves.
        after: point of the pruned network on the test batches.
    """
    limit, test = assessment.limit, assessment.on_test
    low, high = limit.bracket
    table = Table(title="How sparse can this network be pruned?", title_justify="left", show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_row("Weights that pruning may remove", f"{limit.num_weights:,}")
    table.add_row("Tolerance: loss increase that is allowed", f"{limit.tolerance:.4g}")
    table.add_row("Limit: sparser random subspaces of the weights do not keep the loss", percent(limit.sparsity))
    table.add_row(
        "   bracket of the limit (its part from the random probe at 99 %)", f"{percent(low)} to {percent(high)}"
    )
    table.add_row("Upper bound: the paper says that a solution exists up to", percent(limit.upper_bound))
    table.add_row("Predicted: removing the smallest weights keeps the loss up to", percent(limit.predicted))
    table.add_row("Measured: removing them keeps the training loss up to", percent(assessment.on_train.sparsity))
    if test.dense.accuracy is None:
        table.add_row("Test loss, all weights", f"{test.dense.loss:.4g}")
        table.add_row(f"Test loss, {percent(after.sparsity)} of the weights removed", f"{after.loss:.4g}")
    else:
        table.add_row("Measured: removing them keeps the test accuracy up to", percent(test.sparsity_by_accuracy))
        table.add_row("Test accuracy, all weights", percent(test.dense.accuracy, 2))
        table.add_row(f"Test accuracy, {percent(after.sparsity)} of the weights removed", percent(after.accuracy, 2))
    return table


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
