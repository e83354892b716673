"""The page on deployed networks is what its benchmark makes of the records."""

from pathlib import Path

import pytest

from howsparse.records import read_lines

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / "docs" / "deploy.md").exists(), reason="not a checkout")
def test_the_page_is_made_of_the_records() -> None:
    page = pytest.importorskip("benchmarks.deploy_page").page
    assert (ROOT / "docs" / "deploy.md").read_text() == page(list(read_lines(ROOT / "results" / "deploy.jsonl")))
