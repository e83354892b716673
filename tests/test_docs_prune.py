"""The page on pruning with a repair is run as it stands."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cli_for_tests import run
from howsparse.records import read_lines
from pages_for_tests import DOCS, blocks, write_network

PAGE = "docs/prune.md"

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not DOCS.exists(), reason="not a checkout"),
]


def shape(line: str) -> str:
    """A line without its numbers, and without the names of the order and the repair that won."""
    return re.sub(r"\S+ order, \S+ repair", "HOW", re.sub(r"\d[\d.,]*", "#", line))


def ends(lines: list[str]) -> list[str]:
    """The first two lines, the one about what is written, and the command that follows."""
    return lines[:2] + [line for line in lines if line.startswith(("written: ", "next: "))]


def rows(lines: list[str]) -> list[str]:
    """The rows of the table, and what cannot be used."""
    return lines[3 : next(i for i, line in enumerate(lines) if line.startswith("written: "))]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A working directory with the module and the checkpoint of the tutorial; the network."""
    training = write_network(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_net", None)
    made: dict[str, Any] = {}
    exec(training, made)
    yield made["model"].eval()
    sys.modules.pop("my_net", None)


def test_the_command_prints_what_the_page_shows(
    trained: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On another processor the training rounds differently, so another combination may win; the kinds of lines stay."""
    command, *_ = [line for block in blocks(PAGE, "") for line in block.splitlines()]
    assert run(*shlex.split(command)[1:], monkeypatch=monkeypatch) == 0, capsys.readouterr().err
    page, *_ = blocks(PAGE, "text")
    shown, printed = page.splitlines(), capsys.readouterr().out.splitlines()
    assert [shape(line) for line in ends(printed)] == [shape(line) for line in ends(shown)]
    assert any(line.startswith("on disk: ") for line in printed)  # what it brings; the page was recorded before
    assert float(printed[0].split()[0]) == pytest.approx(float(shown[0].split()[0]), abs=6)
    assert {tuple(line.split()[:2]) for line in rows(printed)} == {tuple(line.split()[:2]) for line in rows(shown)}
    state = load_file("pruned.safetensors")
    gone = sum(int((state[f"{layer}.weight"] == 0).sum()) for layer in (0, 2, 4))
    certified = float(re.findall(r"when (\S+) %", printed[1])[0])
    assert gone / 17024 == pytest.approx(certified / 100, abs=1e-3)


def test_the_page_shows_what_is_recorded() -> None:
    """The numbers of each run on the page are those of the last record of its command."""
    records = {line["model"]: line for line in read_lines(DOCS.parent / "results/prune.jsonl") if "sentence" in line}
    pages = blocks(PAGE, "text")
    assert len(pages) == len(records) >= 1
    for found, page in zip(records.values(), pages, strict=True):
        first, second, _, *rows = page.splitlines()
        assert first.startswith(f"{100 * found['measured']:.1f} % of {found['num_weights']:,} weights can go while")
        assert second == found["sentence"]
        for row, each in zip(rows, found["combinations"], strict=False):
            assert row.split()[:2] == [each["order"], each["repair"]]
            assert row.split()[-2:] == [str(len(each["points"]) - 1), f"{each['seconds']:.1f}"]
        assert f"the network with {100 * found['pruned_sparsity']:.1f} % removed" in page


def test_the_python_runs(trained: torch.nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(PAGE, "python")
    made: dict[str, Any] = {"model": trained}
    exec(code, made)
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == made["certificate"].sentence
    assert len(said) == 1 + len(made["found"].combinations)
    assert made["certificate"].sparsity > 0.6
    kept = made["certificate"].mask["0.weight"]
    assert torch.equal(trained.get_parameter("0.weight") != 0, kept)
