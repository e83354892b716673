"""Row by row, where our numbers and the paper's differ by more than their scatter, and why, as far as it is known."""

from collections.abc import Iterator, Sequence

from howsparse.paper.numbers import METHODS
from howsparse.paper.tables import BoundsRow, MethodsRow, PaperRow, PredictionRow, Spread

__all__ = ["differences"]

_WITHIN = 2.0  # of both standard deviations; one seed has none
_BOUNDS = (
    "our U has the spectrum of the removed weights' block; [Table 1](table-1.md) has other readings of the paper's"
)
_REASONS = {
    ("fc12-cifar10", "bounds"): _BOUNDS,
    ("fc12-cifar10", "one_shot"): "open: one seed, which was pruned to its own limit, 98.83 % and not 99.0 %",
}

Ends = tuple[float, float]


def differences(rows: Sequence[PaperRow]) -> str:
    """A Markdown table: every number that the paper has too, and whether both agree.

    Args:
        rows: of the three tables; those with other settings than the paper's are left out.
    """
    lines = ["| task | number | here | paper | agree |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        if row.setting.as_paper:
            task = row.setting.task
            lines += [
                f"| {task} | {name} | {ours} | {paper} | {agree} |" for name, ours, paper, agree in _compared(row)
            ]
    return "\n".join(lines)


def _compared(row: PaperRow) -> Iterator[tuple[str, str, str, str]]:
    """The name of each number, ours, the paper's, and whether they agree or why not."""
    task = row.setting.task
    for key, name, ours, paper in _numbers(row):
        if ours is None or paper == "-":
            continue
        low, high = _scatter(ours) if isinstance(ours, Spread) else ours
        mean, deviation = _printed(paper)
        agree = "yes" if low - _WITHIN * deviation <= mean <= high + _WITHIN * deviation else "no: open"
        yield name, _shown(ours), paper, _REASONS.get((task, key), agree)


def _numbers(row: PaperRow) -> list[tuple[str, str, Spread | Ends | None, str]]:
    """Key, name, our value and the paper's for every number of a row."""
    match row:
        case BoundsRow():
            return [("bounds", "1 - T above 1 - U", row.bracket, row.paper)]
        case PredictionRow():
            return [
                ("limit", "limit", row.bracket, row.paper_limit),
                ("measured", "measured by accuracy", row.measured, row.paper_measured),
                ("difference", "limit - measured", row.difference, row.paper_difference),
            ]
        case MethodsRow():
            return [
                (name, f"accuracy of {name}", row.accuracy[name], row.paper_accuracy[name])
                for name in METHODS
                if not row.options[name]
            ]


def _scatter(ours: Spread) -> Ends:
    deviation = ours.deviation or 0.0
    return ours.mean - _WITHIN * deviation, ours.mean + _WITHIN * deviation


def _printed(number: str) -> Ends:
    """Mean and deviation of a number as the paper prints it."""
    mean, _, deviation = number.partition(" ± ")
    return float(mean), float(deviation or 0.0)


def _shown(ours: Spread | Ends) -> str:
    if isinstance(ours, Spread):
        return f"{ours.mean:.2f}" + ("" if ours.deviation is None else f" ± {ours.deviation:.2f}")
    return f"{ours[0]:.2f} to {ours[1]:.2f}"
