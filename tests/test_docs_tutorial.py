"""The tutorial is run as it stands, on its small network; its ResNet20 is built."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import howsparse
from cli_for_tests import run
from pages_for_tests import DOCS, blocks, commands, tutorial_folder

PAGE = "docs/tutorial.md"

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not DOCS.exists(), reason="not a checkout"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the tutorial's module and checkpoint."""
    with tutorial_folder(tmp_path, monkeypatch):
        yield tmp_path


def words(line: str) -> str:
    """A line without its numbers, and without the names of the order and the repair that won."""
    return re.sub(r"\S+ order, \S+ repair", "HOW", re.sub(r"\d[\d.,]*", "#", line)).strip()


def test_the_commands_print_what_the_page_shows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On another processor the training rounds differently, so a sparsity may be another one close by."""
    steps = [shlex.split(line) for line in commands(PAGE) if " my_net:" in line]
    assert [step[1] for step in steps][:5] == ["measure", "prune", "audit", "report", "bench"]
    printed = []
    for step in steps:
        fewer = ["--max-products", "64"] if step[1] == "report" else []
        assert run(*step[1:], *fewer, monkeypatch=monkeypatch) == 0, capsys.readouterr().err
        printed.append(capsys.readouterr().out.splitlines())
    for shown, lines in zip(blocks(PAGE, "text"), printed, strict=False):
        for expected, line in zip(shown.splitlines(), lines, strict=False):
            assert words(line) == words(expected)
        first, *_ = shown.splitlines()
        assert float(lines[0].split()[0]) == pytest.approx(float(first.split()[0]), abs=6)
    assert "<html" in Path("report.html").read_text()
    zeros = sum(int((w == 0).sum()) for name, w in load_file("pruned.safetensors").items() if name.endswith("weight"))
    certified = float(re.findall(r"when (\S+) %", printed[1][1])[0])
    assert zeros / 17024 == pytest.approx(certified / 100, abs=1e-3)
    _, _, loading, *_ = blocks(PAGE, "python")
    made: dict[str, Any] = {}
    exec(loading, made)
    assert Path("small.safetensors").stat().st_size < Path("pruned.safetensors").stat().st_size / 2
    dense = load_file("pruned.safetensors")
    assert all(torch.equal(dense[name], value) for name, value in made["small"].state_dict().items())
    assert torch.allclose(made["fast"](made["inputs"]), made["small"](made["inputs"]), atol=1e-4)


def test_the_python_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, _, code, _ = blocks(PAGE, "python")
    made: dict[str, Any] = {}
    exec(code, made)
    said = capsys.readouterr().out.splitlines()
    assert said[-2] == made["certificate"].sentence
    assert made["found"].sparsity > made["measured"].sparsity
    assert float(said[-1]) > 0.9
    zeros = sum(int((w == 0).sum()) for w in howsparse.prunable_weights(made["model"]).values())
    assert zeros == round(made["certificate"].sparsity * 17024)


def test_the_resnet20_is_the_one_of_the_text() -> None:
    *_, code = blocks(PAGE, "python")
    made: dict[str, Any] = {}
    exec(code, made)
    model = made["resnet20"]().eval()
    num_weights = sum(weight.numel() for weight in howsparse.prunable_weights(model).values())
    assert f"has {num_weights:,} weights" in (DOCS / "tutorial.md").read_text()
    images = torch.zeros(3, 32, 32, 3, dtype=torch.uint8).numpy()
    ((pixels, labels),) = made["batches"](images, torch.tensor([0, 1, 2]))
    assert model(pixels).shape == (3, 10)
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert labels.tolist() == [0, 1, 2]
