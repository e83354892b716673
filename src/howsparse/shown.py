"""Results as small tables: plain text in a terminal, HTML in a notebook."""

from dataclasses import dataclass
from html import escape

__all__ = ["Card", "Shown"]

_MOST_ROWS = 20


@dataclass(frozen=True)
class Card:
    """The table that a result prints.

    Attributes:
        title: one line.
        rows: rows with the same number of cells; the first cell is the row's label. The first 20 are shown.
        notes: lines below the rows.

    >>> print(Card("Mask", (("sparsity", "75.0 %"), ("weights", "1,024")), ("2 layers",)))
    Mask
      sparsity  75.0 %
      weights   1,024
      2 layers
    """

    title: str
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The table as plain text, with columns of equal width."""
        rows, notes = self._limited()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([self.title, *(f"  {line}".rstrip() for line in (*lines, *notes))])

    def _repr_html_(self) -> str:
        """The table as HTML. It has no colours of its own, so it is legible on light and dark pages."""
        shown, below = self._limited()
        left = 'style="text-align: left"'
        rows = "".join(
            f'<tr><th scope="row" {left}>{escape(row[0])}</th>'
            + "".join(f"<td {left}>{escape(cell)}</td>" for cell in row[1:])
            + "</tr>"
            for row in shown
        )
        notes = "".join(f"<div>{escape(note)}</div>" for note in below)
        return f"<div><div><strong>{escape(self.title)}</strong></div><table><tbody>{rows}</tbody></table>{notes}</div>"

    def _limited(self) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
        """The rows and notes to show. A note counts the rows that are left out."""
        more = len(self.rows) - _MOST_ROWS
        return self.rows[:_MOST_ROWS], (*((f"and {more} more",) if more > 0 else ()), *self.notes)


class Shown:
    """A result that prints as a small table. A subclass defines `card`; its ``repr`` stays one line.

    >>> class Answer(Shown):
    ...     def card(self) -> Card:
    ...         return Card("Answer", (("sparsity", "90.0 %"),))
    >>> print(Answer())
    Answer
      sparsity  90.0 %
    """

    def card(self) -> Card:
        """The table to print."""
        raise NotImplementedError

    def __str__(self) -> str:
        return str(self.card())

    def _repr_html_(self) -> str:
        return self.card()._repr_html_()
