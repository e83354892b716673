"""`howsparse measure`, `certify`, `audit` and `prune --max-drop/--order` from the shell's side, against the library."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import howsparse
from cli_for_tests import fitted, refused, run, work_in_copy
from howsparse.cli.subject import EveryOther
from howsparse.limit.certify import candidates_around
from howsparse.pruning.orders import ORDERS

MODULE = """
import torch
from torch import nn

import howsparse

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 4))

def surprise(output, batch):  # a metric in [0, 1]: probability of the label
    return output.softmax(1).gather(1, batch[1][:, None])[:, 0]

class Doubled(howsparse.CrossEntropy):
    def of_output(self, output, batch):
        return 2 * super().of_output(output, batch)

doubled = Doubled()

def ignored():
    return [(torch.randn(8, 6), torch.full((8,), -100))]
"""
NET = ("tinynets:net", "--weights", "dense.safetensors", "--data", "data.npz")
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, and the largest of their first four entries as the label."""
    inputs = np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)
    return inputs, inputs[:, :4].argmax(1)


def batches(count: int, seed: int) -> Batches:
    inputs, targets = drawn(count, seed)
    return [(torch.from_numpy(inputs), torch.from_numpy(targets))]


TRAIN, TEST, HELD_OUT = (400, 1), (900, 2), (1200, 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module of networks, data, and trained weights."""
    folder = tmp_path_factory.mktemp("tinynets")
    (folder / "tinynets.py").write_text(MODULE)
    (x, y), (test_x, test_y), (held_x, held_y) = drawn(*TRAIN), drawn(*TEST), drawn(*HELD_OUT)
    np.savez(folder / "data.npz", inputs=x, targets=y, test_inputs=test_x, test_targets=test_y)
    np.savez(folder / "held.npz", inputs=held_x, targets=held_y)
    weights = fitted(MODULE, torch.from_numpy(x), torch.from_numpy(y), rate=0.02, steps=150)
    save_file(weights, folder / "dense.safetensors")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with copies of these files."""
    return work_in_copy(trained, tmp_path, "tinynets", monkeypatch)


def network() -> nn.Module:
    import tinynets  # type: ignore[import-not-found]

    model: nn.Module = tinynets.net()
    model.load_state_dict(load_file("dense.safetensors"))
    return model


def answered(*arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one JSON object that a command prints."""
    assert run(*arguments, "--json", monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found: dict[str, Any] = json.loads(out)
    return found


GOALS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    ((), {"max_drop": 0.01}),
    (("--max-drop", "2.5"), {"max_drop": 0.025}),
    (("--tolerance", "0.02"), {"tolerance": 0.02}),
    (("--tolerance", "5%"), {"max_rise": 0.05}),
    (("--metric", "top2"), {"max_drop": 0.01, "metric": "top2"}),
    (("--order", "wanda"), {"max_drop": 0.01, "order": "wanda"}),
]


@pytest.mark.parametrize(("options", "asked"), GOALS, ids=[" ".join(options) or "default" for options, _ in GOALS])
def test_measure_is_the_librarys_measure(
    options: tuple[str, ...],
    asked: dict[str, Any],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = answered("measure", *NET, *options, "--record", "runs.jsonl", monkeypatch=monkeypatch, capsys=capsys)
    expected = howsparse.measure(network(), batches(*TEST), calibration=batches(*TRAIN), **asked)
    assert 0 < found["measured"] < 0.99
    assert found["measured"] == expected.sparsity
    assert (found["dense_loss"], found["pruned_loss"]) == (expected.dense.loss, expected.pruned.loss)
    assert (found["dense_accuracy"], found["pruned_accuracy"]) == (expected.dense.accuracy, expected.pruned.accuracy)
    assert [point["sparsity"] for point in found["curve"]] == [point.sparsity for point in expected.curve]
    assert (found["num_weights"], found["examples"], found["order"]) == (240, 900, expected.order)
    assert found["goal"] == expected.goal.describe(expected.metric)
    assert found.keys() >= {"kind", "model", "metric", "seconds", "seed", "effective_weights_baseline"}
    recorded = json.loads(Path("runs.jsonl").read_text())
    assert all(recorded[name] == value for name, value in found.items())


def test_a_metric_of_ones_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (*NET, "--metric", "tinynets:surprise", "--max-drop", "4")
    found = answered("measure", *arguments, monkeypatch=monkeypatch, capsys=capsys)
    import tinynets

    expected = howsparse.measure(network(), batches(*TEST), max_drop=0.04, metric=tinynets.surprise)
    assert (found["measured"], found["metric"]) == (expected.sparsity, "surprise")
    assert 0 < found["measured"] < 1


def test_all_orders_and_the_best_of_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network has BatchNorm: no order and no estimate of the time may change its statistics."""
    found = answered("measure", *NET, "--order", "best", monkeypatch=monkeypatch, capsys=capsys)
    expected = howsparse.measure_orders(network(), batches(*TEST), calibration=batches(*TRAIN))
    assert {row["order"]: row["measured"] for row in found["orders"]} == {
        m.order: m.sparsity for m in expected.measured
    }
    assert {row["order"] for row in found["orders"]} | found["refused"].keys() == set(ORDERS)
    assert found["measured"] == max(row["measured"] for row in found["orders"]) == expected.best.sparsity
    assert found["dense_loss"] == expected.best.dense.loss
    assert run("measure", *NET, "--order", "best", monkeypatch=monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 15
    assert lines[0].startswith(f"{100 * expected.best.sparsity:.1f} % of 240 weights can go while the accuracy drops")
    assert lines[2].split()[0] == expected.best.order


def test_a_part_of_the_data_other_batches_and_another_loss(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = {"monkeypatch": monkeypatch, "capsys": capsys}
    whole = answered("measure", *NET, "--order", "gradient", **ask)  # type: ignore[arg-type]
    options = ("--images", "50", "--batch-size", "16", "--loss", "tinynets:doubled", "--population", "400")
    found = answered("measure", *NET, "--order", "gradient", *options, **ask)  # type: ignore[arg-type]
    few = [(x[:50], y[:50]) for x, y in batches(*TRAIN)]
    expected = howsparse.measure(network(), batches(*TEST), order="gradient", calibration=few)
    assert found["measured"] == expected.sparsity
    assert found["images"] == 50
    assert found["dense_loss"] == pytest.approx(2 * whole["dense_loss"], rel=1e-6)
    assert found["dense_accuracy"] == pytest.approx(whole["dense_accuracy"])


@pytest.mark.parametrize("width", [80, 120])
def test_the_answer_comes_first_and_the_next_commands_can_be_pasted(
    width: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert run("measure", *NET, "--plot", "curve.png", monkeypatch=monkeypatch) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) <= 15
    assert lines[0].endswith(" of 240 weights can go while the accuracy drops by at most 1 point (measured)")
    assert any(line.startswith("data") and "900 test examples" in line for line in lines)
    assert Path("curve.png").read_bytes()[:4] == b"\x89PNG"
    commands = [line.removeprefix("next: ").split() for line in lines if line.startswith("next: ")]
    assert [command[1] for command in commands] == ["certify", "measure", "prune"]
    for command in commands:
        assert run(*command[1:], monkeypatch=monkeypatch) == 0, capsys.readouterr().err
    measured = lines[0].split()[0]
    pruned = load_file("pruned.safetensors")
    gone = sum(int((pruned[name] == 0).sum()) for name in ("0.weight", "3.weight"))
    assert f"{100 * gone / 240:.1f}" == measured


def test_without_test_data_the_answer_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("tinynets:net", "--weights", "dense.safetensors", "--data", "held.npz")
    assert run("measure", *arguments, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "1,200 examples, which may have trained the network" in shown
    assert "next, with 300 held-out examples or more: howsparse certify tinynets:net" in shown
    said = refused("certify", *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert "no test data" in said


def test_certify_halves_the_test_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answered("certify", *NET, "--max-drop", "3", monkeypatch=monkeypatch, capsys=capsys)
    test = batches(*TEST)
    choose, held = ([(x[start::2], y[start::2]) for x, y in test] for start in (0, 1))
    measured = howsparse.measure(network(), choose, max_drop=0.03).sparsity
    expected = howsparse.certify(network(), held, max_drop=0.03, candidates=candidates_around(measured))
    assert found["num_examples"] == 450
    assert 0 < found["certified"] < 1
    assert found["certified"] == expected.sparsity
    assert found["sentence"] == expected.sentence
    assert [step["p_value"] for step in found["steps"]] == [step.p_value for step in expected.steps]
    assert found["overlap_checked"]


def test_a_certificate_on_a_file_of_held_out_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("certify", *NET, "--held-out", "held.npz", "--max-drop", "2", "--order", "layerwise")
    assert run(*arguments, "--output", "certificate.safetensors", monkeypatch=monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 15
    certificate = howsparse.Certificate.load("certificate.safetensors")
    assert certificate.holds
    assert lines[0] == certificate.sentence
    assert "(layerwise order; 1,200 held-out examples, exact paired test)" in lines[0]
    (chosen,) = [line for line in lines if line.rstrip().endswith("certified")]
    assert chosen.split()[0] == f"{np.floor(1e4 * certificate.sparsity + 1e-6) / 100:.2f}"
    model = network()
    assert certificate.matches(model)
    by_file = lines[-1].removeprefix("next: ").split()
    assert "--certificate" in by_file
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    by_sparsity = capsys.readouterr().out.splitlines()[-1].removeprefix("next: ").split()
    assert "--sparsity" in by_sparsity
    for command in (by_file, by_sparsity):
        assert run(*command[1:], "--force", monkeypatch=monkeypatch) == 0
        model.load_state_dict(load_file("pruned.safetensors"))
        assert certificate.matches(model), "the command that follows must prune to the certified mask"


def test_a_certificate_for_the_loss(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (*NET, "--held-out", "held.npz", "--tolerance", "0.2", "--loss-bound", "4")
    found = answered("certify", *arguments, monkeypatch=monkeypatch, capsys=capsys)
    measured = howsparse.measure(network(), batches(*TEST), tolerance=0.2).sparsity
    candidates = candidates_around(measured)
    expected = howsparse.certify(network(), batches(*HELD_OUT), tolerance=0.2, loss_bound=4.0, candidates=candidates)
    assert found["certified"] == expected.sparsity
    assert (found["test"], found["metric"], found["loss_bound"]) == ("betting", "loss", 4.0)
    assert "the mean loss on the population (at most 4 per example) rises by at most 0.2" in found["sentence"]


def test_too_few_held_out_examples_are_refused_with_the_number_that_is_enough(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = drawn(299, 9)
    np.savez("few.npz", inputs=x, targets=y)
    said = refused("certify", *NET, "--held-out", "few.npz", monkeypatch=monkeypatch, capsys=capsys)
    assert "299 held-out examples are too few" in said
    assert "give at least 300" in said
    assert said.count("\n") == 1


def test_a_half_has_every_other_example_whatever_the_batches_are() -> None:
    data = torch.arange(23)
    for sizes in ([23], [5, 1, 1, 9, 7], [1] * 23):
        parts = list(data.split(sizes))
        halves = [torch.cat(list(EveryOther(parts, start))).tolist() for start in (0, 1)]
        assert halves == [data[0::2].tolist(), data[1::2].tolist()]


def changes() -> dict[str, Path]:
    """Files of the same change: a state dict, the part of it that differs, and a mask."""
    model = network()
    mask = howsparse.magnitude_mask(model, 0.5)
    mask.save("mask.safetensors")
    mask.apply_(model)
    save_file(model.state_dict(), "whole.safetensors")
    save_file({name: model.state_dict()[name] for name in mask}, "part.safetensors")
    torch.save({"state_dict": model.state_dict()}, "whole.pt")
    return {name: Path(name) for name in ("whole.safetensors", "part.safetensors", "mask.safetensors", "whole.pt")}


def test_audit_of_a_change_in_every_form(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = howsparse.audit(network(), howsparse.magnitude_mask(network(), 0.5), batches(*TRAIN))
    for name, path in changes().items():
        found = answered("audit", *NET, "--change", str(path), monkeypatch=monkeypatch, capsys=capsys)
        assert found["predicted"] == pytest.approx(expected.predicted, rel=1e-5), name
        assert found["measured"] == pytest.approx(expected.measured, rel=1e-5), name
        assert [layer["name"] for layer in found["layers"]] == [layer.name for layer in expected.layers]
        assert found["worst"] == expected.worst.name
        assert found["change"] == name
        assert sum(layer["second_order"] + layer["first_order"] for layer in found["layers"]) == pytest.approx(
            found["predicted"]
        )
    assert run("audit", *NET, "--change", "mask.safetensors", "--plot", "audit.png", monkeypatch=monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"{expected.worst.name} raises the loss most") for line in lines)
    assert len(lines) <= 15
    assert Path("audit.png").read_bytes()[:4] == b"\x89PNG"


def test_prune_to_what_is_measured_and_to_a_sparsity_of_an_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = {"monkeypatch": monkeypatch, "capsys": capsys}
    out = ("--output", "pruned.safetensors", "--mask", "mask.safetensors", "--force")
    cases: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("--max-drop", "2"), {"max_drop": 0.02}),
        (("--order", "erk"), {"order": "erk"}),
        (("--order", "magnitude", "--tolerance", "0.1"), {"tolerance": 0.1}),
    ]
    for options, asked in cases:
        found = answered("prune", *NET, *options, *out, **ask)  # type: ignore[arg-type]
        expected = howsparse.measure(network(), batches(*TEST), **asked)
        assert found["measured"] == found["pruned_sparsity"] == expected.sparsity
        assert found["pruned_accuracy"] == expected.pruned.accuracy
        assert "products" not in found  # no limit was computed
    found = answered("prune", *NET, "--order", "wanda", "--sparsity", "0.3", *out, **ask)  # type: ignore[arg-type]
    mask = howsparse.Mask.load("mask.safetensors")
    order = howsparse.rank(network(), "wanda", batches(*TRAIN))
    assert all(torch.equal(mask[name], kept) for name, kept in order.mask(0.3).items())
    dense, pruned = load_file("dense.safetensors"), load_file("pruned.safetensors")
    assert all(torch.equal(pruned[n], torch.where(mask[n], t, 0) if n in mask else t) for n, t in dense.items())


CERTIFY = ("certify", *NET, "--held-out", "held.npz")
BAD: list[tuple[tuple[str, ...], str]] = [
    (("measure", *NET, "--max-drop", "200"), "--max-drop 200 is not in [0, 100)"),
    (("measure", *NET, "--max-drop", "-1"), "--max-drop -1 is not in [0, 100)"),
    (("measure", *NET, "--max-drop", "nan"), "--max-drop nan is not in [0, 100)"),
    (("measure", *NET, "--tolerance", "abc"), "--tolerance 'abc' is neither a loss nor a share of the loss; give"),
    (("measure", *NET, "--tolerance", "-5%"), "negative"),
    (("measure", *NET, "--tolerance", "0.1", "--max-drop", "1"), "give exactly one"),
    (("measure", *NET, "--order", "nonsense"), "--order 'nonsense' is not known; use one of magnitude,"),
    (("measure", *NET, "--metric", "nonsense"), "metric 'nonsense' is not known"),
    (("measure", *NET, "--metric", "tinynets:nonsense"), "module 'tinynets' has no 'nonsense'"),
    (("measure", "tinynets:net", "--data", "tinynets:ignored"), "-100"),
    (("measure", "tinynets:net"), "--data is missing; give"),
    (("measure", *NET, "--loss", "tinynets:absent"), "module 'tinynets' has no 'absent'"),
    (("measure", *NET, "--images", "0"), "--images 0 is not positive"),
    (("measure", *NET, "--plot", "taken.png"), "taken.png exists"),
    (("measure", "tinynets:net", "--data", "absent.npz"), "no data file at absent.npz"),
    (("measure", "fc5-cifar10", "--weights", "dense.safetensors", "--data", "no/such/folder"), "no/such/folder"),
    (("certify", *NET, "--held-out", "shuffled.npz"), "held-out examples are also among the data"),
    (("certify", *NET, "--held-out", "shuffled.npz", "--batch-size", "7"), "held-out examples are also among the data"),
    (("certify", *NET, "--held-out", "shuffled.npz", "--images", "5"), "held-out examples are also among the data"),
    (("certify", *NET, "--held-out", "few.npz"), "too few"),
    (("certify", *NET, "--held-out", "absent.npz"), "no data file at absent.npz"),
    ((*CERTIFY, "--confidence", "2"), "confidence 2 is outside (0.5, 1)"),
    ((*CERTIFY, "--max-drop", "0"), "--max-drop 0 cannot be certified"),
    ((*CERTIFY, "--tolerance", "5%"), "a share of the loss cannot be certified"),
    ((*CERTIFY, "--tolerance", "0.1"), "--tolerance needs --loss-bound"),
    ((*CERTIFY, "--loss-bound", "4"), "--loss-bound is for --tolerance"),
    ((*CERTIFY, "--order", "nonsense"), "--order 'nonsense' is not known"),
    ((*CERTIFY, "--output", "taken.png"), "taken.png exists"),
    (("audit", *NET, "--change", "absent.safetensors"), "absent.safetensors"),
    (("audit", *NET, "--change", "other.safetensors"), "other.weight"),
    (("audit", *NET, "--change", "dense.safetensors"), "leaves every weight as it is"),
    (("prune", *NET, "--order", "nonsense", "--output", "new.safetensors"), "--order 'nonsense' is not known"),
    (("prune", *NET, "--order", "best", "--sparsity", "0.5", "--output", "new.pt"), "--order best needs a goal"),
    (("prune", *NET, "--certificate", "other.safetensors", "--output", "new.pt"), "other.safetensors"),
    (("prune", *NET, "--certificate", "c.safetensors", "--order", "erk", "--output", "new.pt"), "has its own mask"),
    (("prune", *NET, "--max-drop", "1", "--sparsity", "0.5", "--output", "new.safetensors"), "leave out --max-drop"),
    (("prune", *NET, "--max-drop", "1", "--sparsity", "limit", "--output", "new.pt"), "--sparsity limit is for"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a for a in b[0] if a not in NET) for b in BAD])
def test_bad_input_gets_one_line_and_writes_nothing(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (train_x, train_y), (x, y), (few_x, few_y) = drawn(*TRAIN), drawn(500, 8), drawn(20, 9)
    few = np.random.default_rng(0).permutation(503)
    mixed = np.concatenate([x, train_x[-3:]])[few], np.concatenate([y, train_y[-3:]])[few]
    np.savez("shuffled.npz", inputs=mixed[0], targets=mixed[1])  # three examples trained the network
    np.savez("few.npz", inputs=few_x, targets=few_y)
    save_file({"other.weight": torch.zeros(2)}, "other.safetensors")
    Path("taken.png").touch()
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    said = refused(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert message in said
    assert said.startswith("howsparse: ")
    assert said.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_the_commands_are_listed_in_the_order_in_which_they_are_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from howsparse.cli.app import COMMANDS

    assert run("--help", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^│ ([a-z]+) ", shown, re.MULTILINE) == list(COMMANDS)
