"""`howsparse compare` from the shell's side."""

import json
import re
from pathlib import Path

import pytest

import cli_for_tests
from howsparse.cli.experiments import method_list, sparsity_list
from howsparse.errors import InputError
from howsparse.methods import METHODS
from howsparse.training import loop


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    return cli_for_tests.run("compare", *arguments, monkeypatch=monkeypatch)


QUICK = ("digits", "--epochs", "2", "--seeds", "2")
TWO = (*QUICK, "--methods", "dense,random:layers=erk,smart_ratio", "--sparsities", "0.5,0.9")


def test_one_json_object_and_records_that_are_not_run_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (*TWO, "--json", "--record", "runs.jsonl", "--folder", "kept")
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    first = capsys.readouterr().out
    answer = json.loads(first)
    assert first.count("\n") == 1
    assert (answer["problem"], answer["epochs"], answer["seeds"]) == ("digits", 2, 2)
    assert [(row["method"], row["target"]) for row in answer["rows"]] == [
        *(("dense", 0.0), ("random:layers=erk", 0.5), ("random:layers=erk", 0.9)),
        *(("smart_ratio", 0.5), ("smart_ratio", 0.9)),
    ]
    dense, _, sparse, *refused = answer["rows"]
    assert dense["seeds"] == [0, 1]
    assert 0.15 < sparse["accuracy"] < dense["accuracy"] < 1
    assert sparse["sparsity"] == pytest.approx(0.9, abs=1e-4)
    assert all("convolutions" in row["refused"] for row in refused)
    written = Path("runs.jsonl").read_text()
    records = [json.loads(line) for line in written.splitlines()]
    assert len(records) == 2 + 4 + 4
    assert records[0]["made"]["command"].startswith("howsparse compare digits --epochs 2")
    assert any(Path("kept").glob("training-*.safetensors"))

    monkeypatch.setattr(loop, "_one_epoch", None)  # nothing is trained
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == first
    assert Path("runs.jsonl").read_text() == written
    # without the records, the trainings in the folder give the same numbers
    assert run(*TWO, "--json", "--folder", "kept", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_a_table_for_people(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run(*TWO, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "digits, 2 epochs a training, 2 seed(s): test accuracy, %" in shown
    assert re.search(r"method .* 50\.0 % .* 90\.0 %", shown)
    assert re.search(r"dense +│ +\d\d\.\d\d ± \d+\.\d\d │ +\d\d\.\d\d ± \d+\.\d\d │ +2", shown)
    assert re.search(r"smart_ratio +│ +- │ +- │ +- ", shown)
    assert "smart_ratio is for networks with convolutions" in shown
    assert {path.name.partition("-")[0] for path in Path("runs").iterdir()} == {".locks", "training"}


def test_an_interrupted_comparison_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("digits", "--epochs", "2", "--seeds", "1", "--methods", "random,dense", "--sparsities", "0.5,0.9")
    assert run(*arguments, "--json", "--folder", "whole", monkeypatch=monkeypatch) == 0
    whole = capsys.readouterr().out
    one_epoch, count = loop._one_epoch, 0

    def interrupted(*rest: object) -> object:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return one_epoch(*rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_one_epoch", interrupted)
        assert run(*arguments, "--json", "--record", "runs.jsonl", monkeypatch=monkeypatch) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("stopped; run the same command again to continue from runs\n")
    assert len(Path("runs.jsonl").read_text().splitlines()) == 1
    assert run(*arguments, "--json", "--record", "runs.jsonl", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == whole
    assert len(Path("runs.jsonl").read_text().splitlines()) == 3


BAD = [
    (("digits", "--methods", "magic"), "no method is called 'magic'; choose from: dense,"),
    (("digits", "--methods", "dense,"), "no method is called ''"),
    (("digits", "--methods", "dense,one_shot:tune=1"), "one_shot has no option 'tune'; it has: fine_tune"),
    (("digits", "--methods", "one_shot:fine_tune=x"), "option fine_tune of one_shot does not take 'x'"),
    (("digits", "--sparsities", "0.9,most"), "--sparsities 'most' is neither a fraction in [0, 1) nor limit,"),
    (("digits", "--sparsities", "0.9,1.0"), "--sparsities '1.0' is neither"),
    (("digits", "--sparsities", ""), "--sparsities '' is neither"),
    (("digits", "--sparsities", "nan"), "--sparsities 'nan' is neither"),
    (("digit",), "no task is called 'digit'; choose from: alexnet-cifar10, digits,"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_gets_one_clear_line_and_exit_code_2(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = cli_for_tests.refused("compare", *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert said.startswith(f"howsparse: {message}")
    assert said.count("\n") == 1
    assert list(folder.iterdir()) == []


def test_method_list() -> None:
    assert method_list("all") == list(METHODS)
    assert method_list("dense") == ["dense"]
    assert method_list("dense, lottery_ticket:fraction=0.5,rewind=2 ,random:layers=erk,one_shot") == [
        *("dense", "lottery_ticket:fraction=0.5,rewind=2", "random:layers=erk", "one_shot"),
    ]
    assert method_list("gradual:begin=0.1, end=0.5,dense") == ["gradual:begin=0.1, end=0.5", "dense"]


def test_sparsity_list() -> None:
    assert sparsity_list("0.9, limit,0,predicted,9e-1") == [0.9, "limit", 0.0, "predicted", 0.9]
    for text in ("-0.1", "measured", "0.9,,0.95", "inf"):
        with pytest.raises(InputError, match="is neither a fraction"):
            sparsity_list(text)
