"""`howsparse run` from the shell's side, and what Ctrl-C in the middle of a limit leaves."""

import json
from pathlib import Path

import pytest
import torch

from cli_for_tests import run
from howsparse.risk.curvature import Hessian


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stop_at(product: int, patch: pytest.MonkeyPatch) -> None:
    compute, count = Hessian.over_first, 0

    def interrupted(self: Hessian, batches: int, vector: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == product:
            raise KeyboardInterrupt
        return compute(self, batches, vector)

    patch.setattr(Hessian, "over_first", interrupted)


def test_a_run_that_was_stopped_goes_on_and_is_made_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("run", "digits", "--epochs", "2", "--max-products", "32", "--record", "runs.jsonl", "--json")
    assert run(*arguments, "--folder", "whole", "--record", "whole.jsonl", monkeypatch=monkeypatch) == 0
    whole = json.loads(capsys.readouterr().out)
    with monkeypatch.context() as patch:
        stop_at(12, patch)
        assert run(*arguments, monkeypatch=monkeypatch) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("stopped; run the same command again to continue from runs\n")
    assert not Path("runs.jsonl").exists()
    with monkeypatch.context() as patch:
        stop_at(
            whole["study"]["answer"]["products"] + 8, patch
        )  # more than there is left, with the eight rows of a study
        assert run(*arguments, monkeypatch=monkeypatch) == 0
    resumed = json.loads(capsys.readouterr().out)
    for name in ("answer", "measured", "curves", "rows"):
        assert resumed["study"][name] == whole["study"][name], name
    assert (resumed["accuracy"], resumed["hash"]) == (whole["accuracy"], whole["hash"])
    assert list(Path("runs").rglob("product-*")) == []

    assert run(*arguments, monkeypatch=monkeypatch) == 0
    assert "recorded already in runs.jsonl" in capsys.readouterr().err
    assert len(Path("runs.jsonl").read_text().splitlines()) == 1


def test_a_limit_goes_on_where_it_is_told_to_keep(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "digits", "--epochs", "1", "--output", "d.safetensors", monkeypatch=monkeypatch) == 0
    arguments = ("limit", "digits", "--weights", "d.safetensors", "--max-products", "32", "--keep", "kept", "--json")
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("howsparse.cli.networks.say_limit", lambda *given: None)  # its products would be counted too
        stop_at(10, patch)
        assert run(*arguments, monkeypatch=monkeypatch) == 130
    assert capsys.readouterr().err.endswith("stopped; run the same command again to continue from kept\n")
    assert len(list(Path("kept").rglob("product-*.safetensors"))) == 13  # nine with the Hessian, four with the GGN
    with monkeypatch.context() as patch:
        stop_at(24, patch)  # 32 in all at most, nine of them known
        assert run(*arguments, monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["products"] <= 32
    assert list(Path("kept").rglob("product-*")) == []
    with monkeypatch.context() as patch:
        stop_at(1, patch)  # the limit itself is kept
        assert run(*arguments, monkeypatch=monkeypatch) == 0
