"""`howsparse.bench` and the command of the same name."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import howsparse
from cli_for_tests import refused, run
from howsparse.deploy.bench import LayerTimes, break_even
from howsparse.deploy.kernels import DENSE
from howsparse.report.benched import layers_table

MODULE = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 4))
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times need not be right here."""
    for name in ("bench", "sparse"):
        monkeypatch.setattr(sys.modules[f"howsparse.deploy.{name}"], "_BUDGET", 1e-3)


def test_each_layer_and_the_whole_are_timed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, 4))
    weight = howsparse.prunable_weights(model)["0.weight"]
    weight.data[:60] = 0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = howsparse.bench(model, torch.randn(3, 200), batches=[1, 4])
    assert [(each.layer, each.batch) for each in found.layers] == [("0", 1), ("0", 4), ("2", 1), ("2", 4)]
    assert found.layers[0].sparsity == pytest.approx(0.6)
    assert all(each.dense_kernel in DENSE and each.sparse_kernel not in DENSE for each in found.layers)
    assert all(each.compacted is not None for each in found.layers)
    assert [each.batch for each in found.network] == [1, 4]
    assert found.bytes["compacted"] == 4 * (200 * 40 + 40 + 40 * 4 + 4) < found.bytes["dense"]
    assert "60.0 %" in "".join(map(str, layers_table(found).columns[2].cells))
    assert "compacted" in str(found)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_sparse_wins_from_the_break_even() -> None:
    layer = nn.Linear(400, 300)
    even = break_even(layer, torch.Size([16, 400]), dense=1.0)
    assert even == 0, "every sparse kernel takes less than a second"
    assert break_even(layer, torch.Size([16, 400]), dense=0.0) is None


@pytest.mark.parametrize(
    ("sparsity", "sparse", "even", "expected"),
    [
        (0.71, 2.0, 0.92, "CSR needs 92 %, this layer holds 71.0 %: stay dense, or train with l1"),
        (0.98, 0.2, 0.92, "sparse is 5.0 times faster than dense (this layer holds 98.0 %)"),
        (0.5, 2.0, None, "no sparse kernel wins at this shape (this layer holds 50.0 %): stay dense"),
        (0.93, 1.0, 0.92, "sparse and dense are equally fast (this layer holds 93.0 %)"),
    ],
)
def test_the_advice(sparsity: float, sparse: float, even: float | None, expected: str) -> None:
    assert LayerTimes("1", 32, sparsity, 1.0, "dense", sparse, "mkl", None, even).sentence == expected


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "benchnets.py").write_text(MODULE)
    draws = np.random.default_rng(0)
    inputs = draws.standard_normal((20, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", inputs=inputs, targets=draws.integers(0, 4, 20))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("bench", "benchnets:net", "--data", "data.npz", "--sparsity", "0.9", "--batches", "1,4")
    assert run(*command, "--json", "--record", "bench.jsonl", monkeypatch=monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["layer"] for each in found["layers"]] == ["0", "0", "2", "2"]
    assert sum(each["sparsity"] * size for each, size in zip(found["layers"][::2], (144, 96), strict=True)) == 216
    assert {each["batch"] for each in found["network"]} == {1, 4}
    assert json.loads((folder / "bench.jsonl").read_text())["layers"] == found["layers"]
    assert run(*command[:-2], "--batches", "2", monkeypatch=monkeypatch) == 0
    assert "Time of a call" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "expected"),
    [(("--batches", "1,a"), "not a list of numbers"), (("--batches", "0"), "positive"), (("--sparsity", "2"), "2")],
)
def test_wrong_options_are_one_line(
    options: tuple[str, str],
    expected: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = refused("bench", "benchnets:net", "--data", "data.npz", *options, monkeypatch=monkeypatch, capsys=capsys)
    assert expected in error
    assert len(error.splitlines()) == 1
