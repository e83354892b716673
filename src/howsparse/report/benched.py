"""The times of the layers of a network as a table for the terminal."""

from rich.table import Table

from howsparse.deploy.bench import Benched, LayerTimes

__all__ = ["layers_table"]


def layers_table(found: Benched) -> Table:
    """One row for each layer and batch size.

    Args:
        found: what `howsparse.bench` measured.
    """
    table = Table(box=None, pad_edge=False)
    for head in ("layer", "batch", "zeros", "dense", "sparse", "compacted", "break-even", ""):
        table.add_column(head, justify="left" if head in ("layer", "") else "right", no_wrap=True)
    for each in found.layers:
        table.add_row(*_row(each))
    return table


def _row(each: LayerTimes) -> tuple[str, ...]:
    even = "none" if each.break_even is None else f"{100 * each.break_even:g} %"
    return (
        *(each.layer or "-", f"{each.batch}", f"{100 * each.sparsity:.1f} %"),
        f"{_microseconds(each.dense)} {each.dense_kernel}",
        f"{_microseconds(each.sparse)} {each.sparse_kernel}",
        "-" if each.compacted is None else _microseconds(each.compacted),
        *(even, each.sentence),
    )


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:,.1f} us"
