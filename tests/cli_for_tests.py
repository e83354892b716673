"""The command line, called as a shell calls it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from howsparse.cli import main


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `howsparse` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["howsparse", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def refused(*arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What `howsparse` says on stderr when it refuses: the exit code is 2, and nothing is on stdout."""
    assert run(*arguments, monkeypatch=monkeypatch) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def fitted(module: str, inputs: Tensor, targets: Tensor, *, rate: float, steps: int) -> dict[str, Tensor]:
    """The weights of ``net()`` of a module, given as text, after training on all examples."""
    space: dict[str, Any] = {}
    exec(module, space)
    torch.manual_seed(0)
    model = space["net"]()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    state: dict[str, Tensor] = model.state_dict()
    return state


def work_in_copy(files: Path, folder: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``folder`` as the working directory, with copies of the files and a module that can be imported from it."""
    for file in files.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.delitem(sys.modules, module, raising=False)
    return folder
