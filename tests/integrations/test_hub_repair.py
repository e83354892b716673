"""`howsparse prune hf:FOLDER --repair`: the repaired model is written as a folder of Hugging Face."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cli_for_tests import run
from howsparse import Mask
from howsparse.integrations.huggingface import load_pretrained
from pretrained_for_tests import POSITIONS, VOCABULARY, saved

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")

DATA = """
import numpy as np
import torch

def parts():
    ids = torch.from_numpy(np.load("ids.npy"))
    batches = [{"input_ids": each, "labels": each} for each in ids.split(20)]
    return batches[:3], batches[3:]
"""


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_folder_has_the_repaired_model(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "hubparts", raising=False)
    dense = saved(kind, tmp_path / "net")
    np.save("ids.npy", np.random.default_rng(0).integers(0, VOCABULARY, (100, POSITIONS)))
    Path("hubparts.py").write_text(DATA)
    arguments = ("prune", "hf:net", "--data", "hubparts:parts", "--sparsity", "0.3", "--repair", "layers")
    assert run(*arguments, "--output", "pruned", monkeypatch=monkeypatch) == 0, capsys.readouterr().err
    mask = Mask.load("pruned/mask.safetensors")
    written = load_pretrained("pruned")
    before, after = dense.state_dict(), written.state_dict()
    assert before.keys() == after.keys()
    assert mask.sparsity == pytest.approx(0.3, abs=0.01)
    assert all((after[name][~kept] == 0).all() for name, kept in mask.items())
    changed = [name for name, kept in mask.items() if not torch.equal(after[name][kept], before[name][kept])]
    assert changed
    assert "Not certified: the sparsity was given" in Path("pruned/README.md").read_text()
