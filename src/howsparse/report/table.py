"""The answer in plain words."""

from rich.table import Table

from howsparse.measure import Point
from howsparse.report.assessment import Assessment

__all__ = ["answer_table", "percent"]


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as a percentage.

    >>> percent(0.9491)
    '94.9 %'
    """
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def answer_table(assessment: Assessment, after: Point) -> Table:
    """One row per question a person has; ``after`` is the network pruned in the end."""
    limit = assessment.limit
    low, high = limit.bracket
    table = Table(title="How sparse can this network be pruned?", title_justify="left", show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_row("Weights that pruning may remove", f"{limit.num_weights:,}")
    table.add_row("Loss increase that counts as no worse", f"{limit.tolerance:.4g}")
    table.add_row("The limit: no random subspace sparser than this holds the loss", percent(limit.sparsity))
    table.add_row("   where it lies for sure, at 99 %", f"{percent(low)} to {percent(high)}")
    table.add_row("Promised to exist by the upper bound", percent(limit.upper_bound))
    table.add_row("Certified for removing the smallest weights, now, without retraining", percent(limit.certified))
    table.add_row("Measured: the training loss holds up to", percent(assessment.on_train.sparsity))
    table.add_row("Measured: the test accuracy holds up to", percent(assessment.on_test.sparsity_by_accuracy))
    table.add_row("Test accuracy, all weights", percent(assessment.on_test.dense.accuracy, 2))
    table.add_row(f"Test accuracy, {percent(after.sparsity)} of the weights removed", percent(after.accuracy, 2))
    return table
