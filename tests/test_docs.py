"""The page on problems is run as it stands, with fewer epochs, examples and products."""

import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import howsparse
from cli_for_tests import run
from howsparse.loading import read_tensors
from howsparse.methods import METHODS, Run, Ticket

PAGE = Path(__file__).parents[1] / "docs" / "problem.md"
MODULES = ("my_problem", "my_adam")

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not PAGE.exists(), reason="not a checkout"),
]


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [code for named, code in found if named == language]


def commands() -> list[list[str]]:
    """The page's command lines, with fewer products for each limit."""
    lines = [shlex.split(line) for block in blocks("") for line in block.splitlines()]
    assert lines
    few = ["--max-products", "32"]
    return [line + few * (line[1] in ("compare", "limit", "prune", "run")) for line in lines]


def entries() -> dict[str, int]:
    """What is kept, and when each entry was written."""
    return {path.name: path.stat().st_mtime_ns for path in Path("runs").glob("*-*")}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the page's modules and its sweep."""
    for code in blocks("python"):
        if code.startswith("# my_"):
            quick = code.replace("epochs=10", "epochs=5").replace("% 5 == 0", "% 2 == 0")
            (tmp_path / code.split()[1]).write_text(quick)
    (sweep,) = blocks("yaml")
    (tmp_path / "sweep.yaml").write_text(sweep.replace("epochs: 5", "epochs: 1"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


def run_python_blocks() -> dict[str, Any]:
    """The names that the page's statements make, those of its first example apart."""
    first, *others = (code for code in blocks("python") if not code.startswith("# my_"))
    torch.manual_seed(0)
    batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,))) for _ in range(2)]
    shortest: dict[str, Any] = {
        "make_network": lambda: nn.Linear(8, 3),
        "train_loader": batches,
        "test_loader": batches,
    }
    exec(first.replace("epochs=10", "epochs=1"), shortest)
    assert shortest["ticket"].mask.sparsity == pytest.approx(0.9, abs=1 / 24)
    made: dict[str, Any] = {}
    for code in others:
        quick = code.replace('Run(Path("runs"))', 'Run(Path("runs"), limit=howsparse.LimitOptions(max_products=32))')
        exec(quick.replace("loss=problem.loss)", "loss=problem.loss, max_products=32)"), made)
    return made


def check_ticket(ticket: Ticket, sparsity: float) -> None:
    weights = howsparse.prunable_weights(ticket.model)
    assert set(ticket.mask) == set(weights)
    assert all((weights[name][~kept] == 0).all() for name, kept in ticket.mask.items())
    assert ticket.mask.sparsity == pytest.approx(sparsity, abs=1 / ticket.mask.num_weights)


def test_the_page_runs(written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made = run_python_blocks()
    check_ticket(made["ticket"], 0.9)
    check_ticket(made["loaded"], 0.9)
    check_ticket(made["ticket_by_adam"], made["ticket_by_adam"].history[-1].limits.predicted)
    for one, other in zip(made["loaded"].model.parameters(), made["ticket"].model.parameters(), strict=True):
        assert torch.equal(one, other)

    for command in commands():
        assert command[0] == "howsparse"
        assert run(*command[1:], monkeypatch=monkeypatch) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    for method in METHODS:
        assert f" {method} " in output
    pruned = read_tensors(Path("pruned.safetensors"))
    dense = read_tensors(Path("dense.safetensors"))
    assert all((dense[name] != 0).all() and (pruned[name] == 0).any() for name in ("0.weight", "2.weight"))

    kept = entries()
    compare = next(command for command in commands() if command[1] == "compare" and "all" in command)
    assert run(*compare[1:], "--json", monkeypatch=monkeypatch) == 0
    table = json.loads(capsys.readouterr().out)
    assert entries() == kept, "the second run must find every training"
    rows = {(row["method"], row["target"]): row for row in table["rows"]}
    assert "convolutions" in rows["smart_ratio", 0.9]["refused"]
    assert rows["lottery_ticket", 0.9]["accuracy"] == made["ticket"].accuracy
    for name in ("one_shot", "gradual"):
        again = METHODS[name](made["problem"], 0.8, seed=0, run=Run())  # nothing is read that was kept
        check_ticket(again, 0.8)
        row = rows[name, 0.8]
        assert (row["accuracy"], row["test_loss"], row["sparsity"]) == (
            again.accuracy,
            again.test_loss,
            again.mask.sparsity,
        )


def test_the_table_shown_is_of_the_problem_shown() -> None:
    (table,) = blocks("text")
    shown = re.findall(r"^│ (\w+)", table, re.MULTILINE)
    assert set(shown) - {"method"} <= set(METHODS)
    assert "smart_ratio is for networks with convolutions" in table
    assert "breast-cancer, 10 epochs" in table


def test_a_changed_source_counts_as_another(written: Path) -> None:
    path = written / "my_adam.py"
    first = importlib.import_module("my_adam").problem.settings()
    path.write_text(path.read_text().replace("lr=0.005", "lr=0.0005"))
    del sys.modules["my_adam"]
    importlib.invalidate_caches()
    second = importlib.import_module("my_adam").problem.settings()
    assert first["fit"] != second["fit"]
    assert first["loss"] == second["loss"]
