"""The table of orders and repairs."""

from rich.table import Table

from howsparse.limit.goal import Point
from howsparse.limit.repaired import Combination, Repaired
from howsparse.report.table import percent

__all__ = ["repaired_sentence", "repaired_table"]

_FAR = 0.015  # in sparsity; a combination that was followed ends with a smaller distance


def repaired_sentence(repaired: Repaired, num_weights: int) -> str:
    """The answer of `measure_repaired` or `compare_repairs` in one line.

    Args:
        repaired: the answer.
        num_weights: number of weights that could go.
    """
    how = f"{repaired.best.order} order, {repaired.best.repair} repair"
    if repaired.goal is None:
        return f"{percent(repaired.sparsity)} of {num_weights:,} weights removed ({how})"
    share = percent(repaired.sparsity) if repaired.sparsity > 0 else "None"
    goal = repaired.goal.describe(repaired.metric)
    return f"{share} of {num_weights:,} weights can go while {goal} (measured; {how})"


def repaired_table(repaired: Repaired) -> Table:
    """One row for each combination, the best first.

    Args:
        repaired: what each combination reaches.
    """
    table = Table(box=None, pad_edge=False)
    at = repaired.compared_at
    heads = ["order", "repair", *([] if repaired.goal is None else ["measured"]), "networks", "seconds"]
    heads[-2:-2] = [f"at {percent(each)}" for each in at]
    for head in heads:
        table.add_column(head, justify="left" if head in ("order", "repair") else "right", no_wrap=True)
    for each in repaired.combinations:
        row = [each.order, each.repair, *([] if repaired.goal is None else [_reached(each)])]
        row += [_score(each.at(sparsity)) for sparsity in at]
        table.add_row(*row, f"{len(each.points) - 1}", f"{each.seconds:.1f}")
    return table


def _reached(combination: Combination) -> str:
    """The largest sparsity that meets the goal; and the next evaluated one, which does not, if it is far away."""
    reached = combination.sparsity
    above = min((point.sparsity for point in combination.points if point.sparsity > reached), default=reached)
    if above - reached < _FAR:
        return percent(reached)
    return f"{percent(reached)[:-2]} to {percent(above)}" if reached > 0 else f"< {percent(above)}"


def _score(point: Point | None) -> str:
    if point is None:
        return "-"
    return f"loss {point.loss:.4g}" if point.accuracy is None else percent(point.accuracy, 2)
