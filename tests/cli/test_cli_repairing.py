"""`howsparse prune --repair` from the shell's side: the file that it writes is read back and evaluated."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import nn

import howsparse
from cli_for_tests import fitted, refused, run, work_in_copy
from howsparse.limit.paired import paired_p_value
from howsparse.pruning.orders import ORDERS

pytestmark = pytest.mark.usefixtures("one_thread")

MODULE = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(64, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 10))

def loss_alone(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])
"""
NET = ("repairnets:net", "--weights", "dense.safetensors", "--data", "data.npz")
OUT = ("--output", "pruned.safetensors", "--mask", "mask.safetensors")
PARTS = {"train": slice(0, 600), "test": slice(600, 1100), "held": slice(1100, 1797)}


def digits(part: str) -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    chosen = np.random.default_rng(0).permutation(len(data.target))[PARTS[part]]
    return (data.data[chosen] / 16).astype(np.float32), data.target[chosen]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module, data, and a network that was trained for a second."""
    folder = tmp_path_factory.mktemp("repairnets")
    (folder / "repairnets.py").write_text(MODULE)
    (x, y), (test_x, test_y), (held_x, held_y) = (digits(part) for part in PARTS)
    np.savez(folder / "data.npz", inputs=x, targets=y, test_inputs=test_x, test_targets=test_y)
    np.savez(folder / "held.npz", inputs=held_x, targets=held_y)
    np.savez(folder / "seen.npz", inputs=np.concatenate([held_x, x[:2]]), targets=np.concatenate([held_y, y[:2]]))
    weights = fitted(MODULE, torch.from_numpy(x), torch.from_numpy(y), rate=0.01, steps=60)
    save_file(weights, folder / "dense.safetensors")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with copies of these files."""
    return work_in_copy(trained, tmp_path, "repairnets", monkeypatch)


def network(file: str) -> nn.Module:
    import repairnets  # type: ignore[import-not-found]

    model: nn.Module = repairnets.net()
    model.load_state_dict(load_file(file))
    return model.eval()


def right(file: str, part: str) -> np.ndarray:
    """Which examples the network of a file classifies as they are labelled."""
    x, y = digits(part)
    with torch.no_grad():
        found: np.ndarray = network(file)(torch.from_numpy(x)).argmax(1).numpy() == y
    return found


def answered(*arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(*arguments, "--json", monkeypatch=monkeypatch) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found: dict[str, Any] = json.loads(out)
    return found


def check_written(found: dict[str, Any]) -> None:
    """The file has exactly the zeros of the mask, another bias or statistics, and the accuracy that was said."""
    mask = howsparse.Mask.load("mask.safetensors")
    written, dense = load_file("pruned.safetensors"), load_file("dense.safetensors")
    assert found["pruned_sparsity"] == pytest.approx(mask.sparsity)
    assert written.keys() == dense.keys()
    for name, kept in mask.items():
        assert torch.equal(written[name] != 0, kept)
    assert not torch.equal(written["3.bias"], dense["3.bias"])
    assert not torch.equal(written["0.weight"][mask["0.weight"]], dense["0.weight"][mask["0.weight"]])


def test_the_certified_network_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The numbers of the certificate are those of the outcomes of the network in the file."""
    arguments = ("prune", *NET, *OUT, "--held-out", "held.npz", "--max-drop", "3", "--repair", "layers")
    found = answered(*arguments, "--record", "runs.jsonl", monkeypatch=monkeypatch, capsys=capsys)
    check_written(found)
    before, after = right("dense.safetensors", "held"), right("pruned.safetensors", "held")
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    certificate = found["certificate"]
    (step,) = [step for step in certificate["steps"] if step["sparsity"] == found["certified"]]
    assert (step["lost"], step["won"]) == (lost, won)
    assert step["p_value"] == paired_p_value(lost, won, len(before), 0.03, 0.05) <= 0.05
    assert certificate["num_examples"] == len(before)
    assert certificate["dense_score"] == pytest.approx(before.mean())
    assert certificate["pruned_score"] == pytest.approx(after.mean())
    assert 0 < found["certified"] == found["pruned_sparsity"] <= found["measured"] < 1
    assert found["dense_accuracy"] == pytest.approx(right("dense.safetensors", "test").mean())
    assert found["pruned_accuracy"] == pytest.approx(right("pruned.safetensors", "test").mean())
    assert (found["order"], found["repair"]) == ("magnitude", "layers")
    assert found["goal"] == "the accuracy drops by at most 3 points"
    assert {(row["order"], row["repair"]) for row in found["combinations"]} == {
        ("magnitude", "none"),
        ("magnitude", "layers"),
    }
    assert found["measured"] == max(row["measured"] for row in found["combinations"])
    recorded = json.loads(Path("runs.jsonl").read_text())
    assert all(recorded[name] == value for name, value in found.items())


def test_half_of_the_test_data_is_held_out_and_auto_tries_all_that_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("prune", *NET, *OUT, "--max-drop", "5", "--repair", "auto", monkeypatch=monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    measured = re.match(
        r"(\d+\.\d) % of 2,960 weights can go while the accuracy drops by at most 5 points"
        r" \(measured; (\S+) order, (\S+) repair\)$",
        lines[0],
    )
    assert measured is not None, lines[0]
    assert lines[1].startswith("With 95 % confidence, the accuracy on the population drops by at most 5 points when")
    assert "250 held-out examples, exact paired test" in lines[1]
    assert lines[3].split()[:2] == [measured[2], measured[3]]
    rows = [line.split()[:2] for line in lines[3:] if line.split()[0] in ORDERS]
    assert {repair for _, repair in rows} >= {"none", "layers", "batchnorm", "rounds"}
    assert {order for order, _ in rows} == {"magnitude", "layerwise", "erk", "wanda", "wanda-row"}
    assert any(line.startswith("written: the network with ") and "(certified)" in line for line in lines)
    audit = lines[-1].removeprefix("next: ").split()
    assert run(*audit[1:], monkeypatch=monkeypatch) == 0


def test_at_a_given_sparsity(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = answered(
        "prune", *NET, *OUT, "--sparsity", "0.8", "--repair", "layers", monkeypatch=monkeypatch, capsys=capsys
    )
    check_written(found)
    assert found["pruned_sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert (found["certified"], found["measured"], found["certificate"]) == (None, None, None)
    assert found["pruned_accuracy"] == pytest.approx(right("pruned.safetensors", "test").mean())
    model = network("dense.safetensors")
    x, y = digits("train")
    howsparse.repair_layers(model, howsparse.magnitude_mask(model, 0.8), [(torch.from_numpy(x), torch.from_numpy(y))])
    written = load_file("pruned.safetensors")
    assert all(torch.equal(written[name], value) for name, value in model.state_dict().items())


def test_what_cannot_be_certified_is_said_and_the_measured_network_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """250 held-out examples are too few for one point; a loss needs a bound. No option asked for a certificate."""
    for options, reason in (
        (("--max-drop", "1"), "250 held-out examples are too few"),
        (("--tolerance", "0.1"), "--tolerance needs --loss-bound"),
    ):
        arguments = ("prune", *NET, *OUT, "--force", *options, "--repair", "layers")
        found = answered(*arguments, monkeypatch=monkeypatch, capsys=capsys)
        assert (found["certified"], found["certificate"]) == (None, None)
        assert found["sentence"].startswith(f"Not certified: {reason}")
        assert found["pruned_sparsity"] == found["measured"] > 0
        assert found["examples"] == 500  # all test data choose
        check_written(found)


def test_a_certificate_that_fails_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Held-out inputs of another kind, labelled as the dense network sees them: every change of an outcome is lost."""
    x = np.random.default_rng(0).standard_normal((600, 64)).astype(np.float32) / 4
    with torch.no_grad():
        seen = network("dense.safetensors")(torch.from_numpy(x)).argmax(1).numpy()
    np.savez("mine.npz", inputs=x, targets=seen)
    arguments = ("prune", *NET, *OUT, "--force", "--held-out", "mine.npz", "--repair", "layers")
    found = answered(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert (found["certified"], found["certificate"]["certified"]) == (None, None)
    assert found["sentence"].startswith("Nothing is certified: with ")
    assert found["pruned_sparsity"] == found["measured"] > 0
    check_written(found)
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    assert "% removed (not certified): " in capsys.readouterr().out


BAD: list[tuple[tuple[str, ...], str]] = [
    (("--repair", "glue"), "repair 'glue' is not known; use one of none, batchnorm, layers"),
    (("--repair", "auto", "--order", "nonsense"), "--order 'nonsense' is not known"),
    (("--repair", "auto", "--sparsity", "limit"), "--sparsity limit is for pruning without --repair"),
    (("--repair", "auto", "--sparsity", "1.5"), "outside [0, 1)"),
    (("--repair", "auto", "--sparsity", "0.5", "--max-drop", "1"), "leave out --max-drop, or --sparsity"),
    (("--repair", "auto", "--sparsity", "0.5", "--confidence", "0.9"), "--sparsity has no goal to certify"),
    (("--repair", "auto", "--certificate", "c.safetensors"), "--certificate is for the weights without repair"),
    (("--held-out", "held.npz"), "are for --repair"),
    (("--confidence", "0.9", "--max-drop", "1"), "are for --repair"),
    (("--repair", "auto", "--max-drop", "200"), "--max-drop 200 is not in [0, 100)"),
    (("--repair", "auto", "--max-drop", "0", "--confidence", "0.9"), "--max-drop 0 cannot be certified"),
    (("--repair", "auto", "--confidence", "2"), "confidence 2 is outside (0.5, 1)"),
    (("--repair", "auto", "--confidence", "0"), "confidence 0 is outside (0.5, 1)"),
    (("--repair", "auto", "--tolerance", "0.1", "--confidence", "0.9"), "--tolerance needs --loss-bound"),
    (("--repair", "auto", "--held-out", "seen.npz"), "2 held-out examples are also among the data"),
    (("--repair", "auto", "--held-out", "absent.npz"), "no data file at absent.npz"),
    (("--repair", "auto", "--confidence", "0.99"), "250 held-out examples are too few"),
    (("--repair", "auto", "--loss", "repairnets:loss_alone"), "the loss cannot tell which predictions are correct"),
    (("--repair", "auto", "--max-drop", "1", "--tolerance", "0.1"), "give exactly one"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), BAD, ids=[" ".join(options) for options, _ in BAD])
def test_bad_input_gets_one_line_and_writes_nothing(
    options: tuple[str, ...],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(folder.iterdir())
    said = refused("prune", *NET, *OUT, *options, monkeypatch=monkeypatch, capsys=capsys)
    assert message in said
    assert said.startswith("howsparse: ")
    assert said.count("\n") == 1
    assert [file for file in sorted(folder.iterdir()) if file.name != "__pycache__"] == before


def test_an_interrupt_writes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from howsparse.limit.bench import Bench

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Bench, "made", interrupted)
    assert run("prune", *NET, *OUT, "--repair", "layers", monkeypatch=monkeypatch) in (1, 130)
    assert not Path("pruned.safetensors").exists()
    assert not Path("mask.safetensors").exists()
