"""The page on deployed files is run as it stands, and shows what is recorded."""

import re
from pathlib import Path
from typing import Any

import pytest

from howsparse.records import read_lines

PAGE = Path(__file__).parents[2] / "docs" / "deploy-files.md"

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not PAGE.exists(), reason="not a checkout"),
]


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(code, made)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Mask: weights removed"
    assert re.fullmatch(
        r"onnxruntime differs from torch by \de[-+]\d\d of the largest output at .* \(1, 4, 5\)", said[-1]
    )
    assert Path("small.safetensors").stat().st_size < 4 * 22_510 / 10


def test_no_damaged_file_was_loaded() -> None:
    """The page has the counts of the last record."""
    record = list(read_lines(PAGE.parents[1] / "results/damage.jsonl"))[-1]
    assert record["files"] >= 1000
    assert record["wrong"] == record["tracebacks"] == 0
    assert "In all: 0 wrong loads, 0 tracebacks." in PAGE.read_text()
    for name, each in record["damages"].items():
        assert f"| {name} | {each['refused']} | {each['refused']} | 0 | 0 |" in PAGE.read_text()
    fc5 = next(each for each in record["sizes"] if (each["network"], each["sparsity"]) == ("fc5", 0.98))
    assert fc5["deployed_bytes"] < 0.05 * fc5["dense_bytes"]
