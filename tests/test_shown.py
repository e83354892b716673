"""Results as small tables: what a terminal and a notebook show."""

from html.parser import HTMLParser

import torch

from howsparse import Mask, Measured
from howsparse.limit.goal import Goal, Point
from howsparse.shown import Card


class Cells(HTMLParser):
    """The texts of a page, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts, self.tags = list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_html_shows_the_texts_as_they_are() -> None:
    card = Card("a < b", (("<script>", "1 & 2"), ("x", '"')), ("note <b>",))
    page = Cells(card._repr_html_())
    assert page.texts == ["a < b", "<script>", "1 & 2", "x", '"', "note <b>"]
    assert set(page.tags) == {"div", "strong", "table", "tbody", "tr", "th", "td"}
    assert "http" not in card._repr_html_()
    assert "color" not in card._repr_html_()


def test_text_has_straight_columns() -> None:
    assert str(Card("t", (("a", "1", "x"), ("long", "22", "y")))).splitlines() == [
        "t",
        "  a     1   x",
        "  long  22  y",
    ]


def test_a_mask_prints_as_a_table() -> None:
    mask = Mask({f"layer{i}.weight": torch.tensor([True, i > 0]) for i in range(30)})
    assert repr(mask) == "Mask(sparsity=0.01667, num_weights=60, layers=30)"
    lines = str(mask).splitlines()
    assert lines[1].split() == ["all", "layers", "1.7", "%"]
    assert lines[2].split() == ["layer0.weight", "50.0", "%"]
    assert lines[-1].strip() == "and 11 more"
    assert len(lines) == 22
    assert dict(mask).keys() == mask.keys()


def test_a_measurement_prints_as_a_table() -> None:
    measured = Measured((Point(0.0, 1.0, 0.9), Point(0.5, 1.05, 0.91), Point(0.9, 2.0, 0.4)), Goal(tolerance=0.1))
    assert repr(measured) == "Measured(sparsity=0.5, goal='the loss rises by at most 0.1', order='magnitude')"
    assert "measured   50.0 %" in str(measured)
    assert "3 networks" in measured._repr_html_()
