"""The README says what the records say, and its example runs."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

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


def backbone_and_head() -> nn.Module:
    """A model of which only the head is trained."""
    backbone = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
    return nn.Sequential(backbone.requires_grad_(False), nn.Linear(16, 3))


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="not a checkout")
@pytest.mark.parametrize(
    ("make", "num_weights"), [(lambda: nn.Linear(8, 3), 24), (backbone_and_head, 48)], ids=["whole", "head"]
)
def test_the_ten_lines_run_as_they_stand(
    make: Callable[[], nn.Module], num_weights: int, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    before, given, after = code.partition("model = ...")
    assert given
    torch.manual_seed(0)
    model, inputs = make(), torch.randn(1200, 8)
    with torch.no_grad():  # some weights do nothing
        next(p for p in model.parameters() if p.requires_grad)[:, 5:] *= 1e-4
        targets = model(inputs).argmax(1)
    examples = torch.utils.data.TensorDataset(inputs, targets)
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    made: dict[str, Any] = {
        "test_set": torch.utils.data.Subset(examples, range(600)),
        "held_out_set": torch.utils.data.Subset(examples, range(600, 1200)),
        "model": model,
    }
    exec(before + after.partition("\n")[2], made)

    measured, certificate = made["measured"], made["certificate"]
    assert certificate.mask.num_weights == num_weights
    assert certificate.holds
    assert measured.sparsity > 0
    removed = sum(int((w == 0).sum()) for w in model.parameters() if w.requires_grad and w.ndim > 1)
    assert removed == num_weights - certificate.mask.num_kept > 0
    assert all(torch.equal(model.get_parameter(name), before) for name, before in frozen.items())
    assert capsys.readouterr().out.splitlines()[-1] == certificate.sentence
