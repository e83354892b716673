"""The how-to pages are run as they stand, on small networks and in one process."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import howsparse
from howsparse.experiments.sweep import jobs_of, load_sweep
from pages_for_tests import DOCS, blocks, write_network

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not DOCS.exists(), reason="not a checkout"),
]


def test_the_page_on_hugging_face_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    from howsparse.integrations.huggingface import load_pretrained
    from pretrained_for_tests import POSITIONS, VOCABULARY, saved

    monkeypatch.chdir(tmp_path)
    saved("gpt2", tmp_path / "my-gpt2")
    torch.save(torch.randint(VOCABULARY, (40, POSITIONS), generator=torch.Generator().manual_seed(0)), "tokens.pt")
    (code,) = blocks("docs/howto/huggingface.md", "python")
    made: dict[str, Any] = {}
    exec(code, made)
    assert "while" in capsys.readouterr().out
    assert 0 < made["mask"].sparsity <= made["measured"].sparsity + 1e-3
    before, after = made["model"].state_dict(), load_pretrained("pruned-gpt2").state_dict()
    for name, kept in howsparse.Mask.load("pruned-gpt2/mask.safetensors").items():
        assert torch.equal(after[name], before[name] * kept)


def test_the_script_for_several_gpus_runs_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training = write_network(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    exec(training, {})
    (code,) = blocks("docs/howto/gpus.md", "python")
    made: dict[str, Any] = {}
    exec(code.replace("max_products=64", "max_products=32"), made)
    assert made["limit"].num_weights == 17024
    assert "17,024" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "my_net")


def test_the_sweep_shown_is_read(tmp_path: Path) -> None:
    (text,) = blocks("docs/howto/sweeps.md", "yaml")
    (tmp_path / "sweep.yaml").write_text(text)
    sweep = load_sweep(tmp_path / "sweep.yaml")
    assert len(jobs_of(sweep, tmp_path / "runs.jsonl", tmp_path)) == 2 * 2 * 3
