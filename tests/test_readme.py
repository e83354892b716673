"""The README says what the records say."""

from pathlib import Path

import pytest

from howsparse.paper.render import markdown_table, paper_table
from howsparse.paper.tables import table
from howsparse.records import CaseRecord, read_records

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="not a checkout")
def test_table_2_is_what_is_recorded() -> None:
    records = read_records(CaseRecord, ("run",), ROOT / "results" / "runs.jsonl")
    rows = [row for row in table(2, records) if row.setting.as_paper]
    assert rows
    page = (ROOT / "README.md").read_text()
    shown = page.split("<!-- table 2, by benchmarks.paper -->")[1].split("<!-- end -->")[0]
    assert shown.strip() == markdown_table(paper_table(2, rows))
