"""The page on docstrings is made of its records, and what it counts is what the sources say."""

from pathlib import Path
from textwrap import dedent

import pytest

from howsparse.records import read_lines
from pages_for_tests import DOCS, ROOT

docstrings = pytest.importorskip("benchmarks.docstrings", reason="not a checkout")
pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="not a checkout")


def test_the_page_is_made_of_the_records() -> None:
    records = read_lines(ROOT / "results" / "docstrings.jsonl")
    assert docstrings.page(records) == (DOCS / "docstrings.md").read_text()


def test_parts_are_counted_where_they_are_needed(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        dedent('''
        def half(x: float, *, digits: int = 3) -> float:
            """Half of a number.

            Args:
                x: a number.

            >>> half(2.0)
            1.0
            """
            _check(x)
            return round(x / 2, digits)

        def _check(x: float) -> None:
            if x < 0:
                raise InputError("negative")

        class Point:
            """A point.

            Attributes:
                x, y: its coordinates.
            """

            x: float
            y: float

            def shown(self) -> None:
                """Show it."""
        ''')
    )
    checked = docstrings.Module(source)
    half, _, point = (node for node in docstrings.ast.parse(source.read_text()).body)
    assert dict(checked.parts(half)) == {"half": {"args": False, "returns": False, "raises": False, "example": True}}
    assert dict(checked.parts(point)) == {"Point": {"args": True, "example": False}, "Point.shown": {}}


def test_everything_in_the_reference_is_documented() -> None:
    """Parameters, what is returned and raised, and an example: a new public function without these is found here."""
    missing = [
        f"{entry.name}: {part}"
        for entry in docstrings.entries()
        for part in docstrings.PARTS
        if not entry.parts.get(part, True)
    ]
    assert missing == []
