"""What cannot be used is refused in one line: damaged files, data that do not fit, numbers that have no end."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cli_for_tests import refused, run
from howsparse import files
from howsparse.cli.terminal import patient_stdout
from howsparse.errors import InputError
from howsparse.experiments.compare import cases
from howsparse.experiments.sweep import load_sweep
from howsparse.loading import load_batches, read_tensors
from howsparse.methods import load_method
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.risk.fitting import check_fits
from howsparse.risk.losses import cross_entropy

INPUTS = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
LABELS = np.arange(12) % 2


def damaged(whole: bytes) -> list[bytes]:
    """Nothing, several beginnings of a file, and the file with a changed byte."""
    cuts = [whole[:n] for n in (0, 1, 9, 30, len(whole) // 2, len(whole) - 30)]
    return [*cuts, b"hello world", bytes(range(256))]


def test_damaged_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", inputs=INPUTS, targets=LABELS)
    for content in damaged((tmp_path / "whole.npz").read_bytes()):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.npz is not an .npz file of plain arrays: \S"):
            load_batches(str(tmp_path / "bad.npz"), 4)


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_weights_are_refused(legacy: bool, tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "whole.pt", _use_new_zipfile_serialization=not legacy)
    assert list(read_tensors(tmp_path / "whole.pt")) == ["weight", "bias"]
    for content in damaged((tmp_path / "whole.pt").read_bytes()):
        (tmp_path / "bad.pt").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.pt (is not a readable weights file: \S|has pickled objects)"):
            read_tensors(tmp_path / "bad.pt")


def test_safetensors_of_any_suffix_are_read(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "weights.pt")
    assert read_tensors(tmp_path / "weights.pt")["weight"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": INPUTS, "targets": LABELS + 1}, "label 2 is none of the model's 2 classes"),
        ({"inputs": INPUTS, "targets": LABELS - 1}, "label -1 is none of"),
        ({"inputs": INPUTS, "targets": LABELS.astype(np.float32)}, "does not fit the network or its loss"),
        ({"inputs": INPUTS, "targets": LABELS.astype(np.uint16)}, "does not fit"),
        ({"inputs": INPUTS.astype(np.float64), "targets": LABELS}, "does not fit"),
        ({"inputs": INPUTS[:, :2], "targets": LABELS}, "does not fit"),
        ({"inputs": INPUTS > 0, "targets": LABELS}, "does not fit"),
        ({"inputs": INPUTS * 1j, "targets": LABELS}, "does not fit"),
        ({"input_ids": INPUTS, "labels": LABELS}, "does not fit"),
        ({"inputs": INPUTS[:5], "targets": LABELS}, "store the same number"),
        ({"inputs": INPUTS, "targets": LABELS, "test_inputs": INPUTS, "test_targets": LABELS[:5]}, "store the same"),
        ({"inputs": np.float32(3), "targets": np.int64(0)}, "no examples"),
        ({"inputs": INPUTS * np.inf, "targets": LABELS}, "infinite or not a number"),
        (
            {"inputs": INPUTS, "targets": LABELS, "test_inputs": INPUTS * np.nan, "test_targets": LABELS},
            "'test_inputs' has values that are infinite or not a number",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = str(tmp_path / "data.npz")
    np.savez(path, **arrays)

    def checked() -> None:
        for batches in load_batches(path, 4):
            check_fits(nn.Linear(3, 2), batches, cross_entropy, path)

    with pytest.raises(InputError, match=message) as caught:
        checked()
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["lottery_ticket:fraction=1e-300", "one_shot:fine_tune=12345678901234567890", "lottery_ticket:fraction=nan"]
)
def test_a_method_that_would_not_end_is_refused(name: str) -> None:
    from howsparse import Problem

    batches = [(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]))]
    with pytest.raises(InputError):
        load_method(name)(Problem(lambda: nn.Linear(3, 2), train=batches, test=batches, epochs=1), 0.5)


def test_more_seeds_than_fit_into_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seeds"):
        cases(["dense"], [0.5], 100_000_000_000)
    path = tmp_path / "sweep.yaml"
    path.write_text("tasks: [{task: digits}]\nmethods: [dense]\nsparsities: [0.5]\nseeds: 100000000000\n")
    with pytest.raises(InputError, match="seeds"):
        load_sweep(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[" * 5000, b"a: b: c", b""])
def test_a_sweep_that_is_no_yaml_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"sweep\.yaml"):
        load_sweep(tmp_path / "sweep.yaml")


@pytest.mark.parametrize("content", [b'{"kind": "a"}\n\xff\n', b"3\n", b"[" * 100_000 + b"\n", b'"text"\n'])
def test_lines_that_are_no_records_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=r"runs\.jsonl, line \d"):
        read_lines(tmp_path / "runs.jsonl")


def test_a_line_of_a_killed_writer_does_not_swallow_the_next(tmp_path: Path) -> None:
    path, made = tmp_path / "runs.jsonl", provenance()
    append_record(Measurement(kind="test", made=made), path)
    whole = path.read_bytes()
    for torn in (whole[:1], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(whole + torn)
        before = len(read_lines(path))
        append_record(Measurement(kind="test", made=made), path)
        assert len(read_lines(path)) == before + 1
    path.write_bytes(b"my notes")
    with pytest.raises(InputError, match="ends with a line that is no record"):
        append_record(Measurement(kind="test", made=made), path)
    assert path.read_bytes() == b"my notes"


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "file").write_text("before")
    with pytest.raises(InputError, match="No space left"):
        files.write_whole(tmp_path / "file", lambda file: file.write_text("after"))
    assert (tmp_path / "file").read_text() == "before"
    with pytest.raises(InputError, match="No space left"):
        append_record(Measurement(kind="test", made=provenance()), tmp_path / "runs.jsonl")
    assert {file.name for file in tmp_path.iterdir()} <= {"file", "runs.jsonl", ".runs.jsonl.lock"}


def test_a_closed_stdout_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        with patient_stdout():
            print("x" * 100_000)
            sys.stdout.flush()
            print("and on")
    monkeypatch.setattr(sys, "stdout", None)
    with patient_stdout():
        print("nobody reads this")
    assert sys.stdout is None
    monkeypatch.setattr(sys, "stdout", io.StringIO())


@pytest.mark.parametrize("seed", ["18446744073709551616", "-1"])
def test_a_seed_that_torch_cannot_take_is_refused(
    seed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--seed" in refused("measure", "m:n", "--seed", seed, monkeypatch=monkeypatch, capsys=capsys)


def test_a_training_that_was_killed_before_its_weights_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, record = tmp_path / "weights.safetensors", tmp_path / "runs.jsonl"
    given = ["train", "digits", "--epochs", "1", "--output", str(output), "--record", str(record)]
    given += ["--folder", str(tmp_path / "runs")]
    save = files.save_tensors

    def killed(*_: Any) -> None:
        raise SystemExit(137)

    monkeypatch.setattr(files, "save_tensors", killed)
    assert run(*given, monkeypatch=monkeypatch) == 137
    monkeypatch.setattr(files, "save_tensors", save)
    assert run(*given, monkeypatch=monkeypatch) == 0
    assert output.is_file()
    assert len(record.read_text().splitlines()) == 1


def test_a_worker_ends_with_a_killed_parent() -> None:
    """A process starts a worker and is killed; the worker ends, which closes its end of the pipe."""
    workers = Path(sys.modules["howsparse"].__file__ or "").parent / "experiments" / "workers.py"
    worker = f"import os, runpy, time; runpy.run_path({str(workers)!r})['end_with'](os.getppid()); time.sleep(60)"
    parent = "import os, signal, subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]);"
    parent += "time.sleep(1); os.kill(os.getpid(), signal.SIGKILL)"
    with subprocess.Popen([sys.executable, "-c", parent, worker], stdout=subprocess.PIPE) as started:
        assert started.communicate(timeout=30)[0] == b""  # returns when parent and worker have ended
