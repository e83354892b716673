"""`howsparse prune` with --deploy and --onnx from the shell's side, and what it says of the gain."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cli_for_tests import refused, run
from howsparse import DeployedNetwork, Mask, load_deployed
from pretrained_for_tests import batches_for, saved

pytestmark = pytest.mark.usefixtures("one_thread")

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 64), nn.Linear(64, 3)
    def forward(self, x):
        return self.last(self.first(x).relu())

class Branching(Net):
    def forward(self, x):
        return super().forward(x) if float(x.sum()) > -1e9 else x
"""
NET = ("--weights", "dense.safetensors", "--data", "data.npz", "--order", "magnitude", "--sparsity", "0.8")
FILES = ("--output", "pruned.safetensors", "--mask", "mask.safetensors", "--deploy", "small.safetensors")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module, data, and weights of which most units are small."""
    (tmp_path / "deploynets.py").write_text(MODULE)
    torch.manual_seed(0)
    state = nn.ModuleDict({"first": nn.Linear(6, 64), "last": nn.Linear(64, 3)}).state_dict()
    state["first.weight"][12:] *= 0.01
    state["last.weight"][:, 12:] *= 0.01
    save_file(state, tmp_path / "dense.safetensors")
    x = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", inputs=x, targets=np.zeros(50, dtype=np.int64))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "deploynets", raising=False)
    return tmp_path


def test_all_files_hold_the_same_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("prune", "deploynets:Net", *NET, *FILES, "--onnx", "net.onnx", "--json", "--record", "runs.jsonl")
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    captured = capsys.readouterr()
    found: dict[str, Any] = json.loads(captured.out)
    read, mask = DeployedNetwork.load("small.safetensors"), Mask.load("mask.safetensors")
    assert (read.network, read.class_name) == ("deploynets:Net", "deploynets.Net")
    assert all(torch.equal(read.mask[name], kept) for name, kept in mask.items())
    assert read.evidence is not None
    assert read.evidence["pruned_sparsity"] == found["pruned_sparsity"]
    loaded, written = load_deployed("small.safetensors", "deploynets:Net"), load_file("pruned.safetensors")
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in written.items())
    gain = found["gain"]
    assert gain["file_before"] == Path("pruned.safetensors").stat().st_size
    assert gain["file_after"] == Path("small.safetensors").stat().st_size
    assert [form["form"] for form in gain["forms"]][:2] == ["dense", "compacted"]
    assert gain["forms"][1]["memory"] < gain["memory_before"] == 4 * (6 * 64 + 64 + 3 * 64 + 3)
    assert json.loads(Path("runs.jsonl").read_text())["gain"] == gain
    session = onnxruntime.InferenceSession("net.onnx")
    x = torch.randn(9, 6)
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), loaded(x), rtol=1e-4, atol=1e-5)
    assert "compacted: 643 -> " in captured.err
    assert "ONNX: net.onnx, " in captured.err


def test_a_network_that_cannot_be_exported_is_pruned_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("prune", "deploynets:Branching", *NET, *FILES, "--onnx", "net.onnx", monkeypatch=monkeypatch) == 2
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[1].startswith("on disk: ")
    assert lines[2].startswith(("a mask alone makes nothing faster here: ", "compacted"))
    assert lines[-1].startswith("next: howsparse audit ")
    reasons = ("the network cannot be exported to ONNX: ", "onnxruntime ")  # the second: torch 2.6 exports one branch
    assert captured.err.splitlines()[-1].removeprefix("howsparse: ").startswith(reasons)
    assert not Path("net.onnx").exists()
    assert DeployedNetwork.load("small.safetensors").class_name == "deploynets.Branching"


def test_files_are_checked_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("small.safetensors").write_text("mine")
    said = refused("prune", "deploynets:Net", *NET, *FILES, monkeypatch=monkeypatch, capsys=capsys)
    assert said.startswith("howsparse: small.safetensors exists")
    twice = ("prune", "deploynets:Net", *NET, "--output", "p.safetensors", "--deploy", "p.safetensors")
    assert "--output and --deploy are the same file" in refused(*twice, monkeypatch=monkeypatch, capsys=capsys)
    monkeypatch.setattr("howsparse.cli.deployed.find_spec", lambda name: None)
    arguments = ("prune", "deploynets:Net", *NET, "--output", "p.safetensors", "--onnx", "net.onnx")
    assert "pip install 'howsparse[onnx]'" in refused(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert sorted(path.suffix for path in folder.iterdir()) == [".npz", ".py", ".safetensors", ".safetensors"]


def test_models_of_hugging_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder holds the zeros in full, the file the rest; both are the same model with tied weights."""
    monkeypatch.chdir(tmp_path)
    saved("bert", tmp_path / "net")
    (batch,) = batches_for("bert", (4,))
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in batch.items()}
    np.savez(tmp_path / "data.npz", **arrays)
    arguments = (
        "prune",
        "hf:net",
        "--data",
        "data.npz",
        "--order",
        "magnitude",
        "--sparsity",
        "0.6",
        "--output",
        "out",
    )
    assert run(*arguments, "--deploy", "small.safetensors", "--json", monkeypatch=monkeypatch) == 0
    gain = json.loads(capsys.readouterr().out)["gain"]
    assert gain["file_before"] == Path("out/model.safetensors").stat().st_size
    assert gain["file_after"] == Path("small.safetensors").stat().st_size
    loaded = load_deployed("small.safetensors", "hf:net")
    for name, value in load_file("out/model.safetensors").items():
        assert torch.equal(loaded.state_dict()[name], value)
