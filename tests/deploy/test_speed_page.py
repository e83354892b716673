"""The page on deployed networks is what its benchmark makes of the records, and its code runs."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import howsparse
from howsparse.records import read_lines

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deploy.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="not a checkout")


def test_the_page_is_made_of_the_records() -> None:
    page = pytest.importorskip("benchmarks.deploy_page").page
    assert PAGE.read_text() == page(list(read_lines(ROOT / "results" / "deploy.jsonl")))


def test_the_code_of_the_page_runs(one_thread: None, capsys: pytest.CaptureFixture[str]) -> None:
    code, fewer = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    first = nn.Linear(8, 16)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(16, 3)).eval()
    with torch.no_grad():
        first.weight[4:] = 0.0
    example = torch.randn(2, 8)
    names: dict[str, Any] = {"howsparse": howsparse, "model": model, "example": example}
    exec(code, names)
    smaller, faster = names["smaller"], names["faster"]
    assert isinstance(smaller, nn.Module)
    assert isinstance(faster, nn.Module)
    torch.testing.assert_close(smaller(example), model(example))
    torch.testing.assert_close(faster(example), model(example))
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
    assert "batch" in capsys.readouterr().out
    names |= _convnet()
    exec(fewer, names)
    assert [layer.out_channels for layer in names["network"] if isinstance(layer, nn.Conv2d)] == [8]


def _convnet() -> dict[str, Any]:
    network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    images = torch.randn(20, 1, 4, 4)
    return {"network": network, "images": images, "batches": [(images, torch.zeros(20, dtype=torch.long))]}
