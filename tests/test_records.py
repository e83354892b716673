"""Records: whole lines whoever writes, and enough in them to run again."""

import json
import multiprocessing
import os
import platform
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import filelock
import numpy
import pytest
import torch

from howsparse.errors import InputError
from howsparse.limit.options import LimitOptions
from howsparse.limit.result import LimitSummary
from howsparse.records import (
    AnswerRecord,
    CaseRecord,
    IterationRecord,
    Measurement,
    TrainRecord,
    append_record,
    provenance,
    read_lines,
    read_records,
    settings_hash,
)
from howsparse.records.upgrade import upgrade
from howsparse.tasks import load_task

WRITERS, LINES = 4, 25
LONG = 50_000  # more than Python and the system buffer at once


def record_of(fields: Mapping[str, object]) -> Measurement:
    """A record with these fields."""
    return Measurement.model_validate({"kind": "test", "made": provenance("pytest"), **fields})


def fields_of(path: Path) -> list[dict[str, object]]:
    """What lines hold besides the head of every record."""
    head = ("kind", "schema_version", "made")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in head} for line in lines]


def write_lines(path: Path, writer: int) -> None:
    for line in range(LINES):
        append_record(record_of({"writer": writer, "line": line, "text": str(writer) * LONG}), path)


# The children only write text; the threads that fork is warned about are torch's, and stay idle.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_several_writers_leave_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_lines, args=(path, writer)) for writer in range(WRITERS)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
        assert process.exitcode == 0
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(record["text"] == str(record["writer"]) * LONG for record in records)
    for writer in range(WRITERS):  # each writer's own lines are all there, in order
        assert [record["line"] for record in records if record["writer"] == writer] == list(range(LINES))


def test_a_run_that_two_processes_made_is_recorded_once(tmp_path: Path) -> None:
    """The worker of a killed sweep may end its run while the sweep that was typed again makes the same run."""
    path = tmp_path / "runs.jsonl"
    for run, seconds in (("one", 1), ("two", 2), ("one", 3)):
        append_record(record_of({"hash": run, "seconds": seconds}), path)
    assert [line["seconds"] for line in fields_of(path)] == [1, 2]


def test_a_writer_waits_until_the_line_before_is_whole(tmp_path: Path) -> None:
    # A system may write a line in pieces; here one does, holding the lock, and another writer comes in between.
    path = tmp_path / "runs.jsonl"
    with filelock.FileLock(tmp_path / ".runs.jsonl.lock"), path.open("a") as file:
        file.write('{"first": ')
        file.flush()
        other = threading.Thread(target=append_record, args=(record_of({"second": 2}), path))
        other.start()
        other.join(0.3)  # time enough for a writer that does not wait
        file.write("1}\n")
    other.join()
    assert fields_of(path) == [{"first": 1}, {"second": 2}]


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "runs.jsonl"
    fields: dict[str, object] = {"task": 'FC5 –\n"β"', "x": 0.1 + 0.2, "list": [1, None, True], "inner": {"a": -1e-300}}
    append_record(record_of(fields), path)
    append_record(record_of({}), str(path))
    assert fields_of(path) == [fields, {}]
    assert read_records(Measurement, ("test",), path) == [record_of(fields), record_of({})]
    assert read_records(Measurement, ("other",), path) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_not_json_is_not_written(tmp_path: Path, value: object) -> None:
    path = tmp_path / "runs.jsonl"
    append_record(record_of({"good": 1}), path)
    before = path.read_bytes()
    with pytest.raises((ValueError, TypeError)):
        append_record(record_of({"bad": value}), path)
    assert path.read_bytes() == before


def test_provenance_says_command_machine_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["train", "digits", "--output", "a folder/it's $HOME.safetensors"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/howsparse", *arguments])
    found = provenance()
    assert shlex.split(found.command) == ["howsparse", *arguments]
    assert found.versions["torch"] in (torch.__version__, torch.__version__.partition("+")[0])
    assert found.versions["numpy"] == numpy.__version__
    assert found.versions["python"] == platform.python_version()
    assert found.machine.cores == os.cpu_count()


@pytest.mark.parametrize("folder", ["/home/me/data", "../data", "../../other/data"])
def test_commands_name_no_folder_of_a_machine(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["howsparse", "run", "digits", "--data", folder, f"--record={folder}/runs.jsonl"])
    assert provenance().command == "howsparse run digits --data data --record=runs.jsonl"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_is_the_checkouts_and_says_if_files_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("howsparse.records.origin.__file__", str(tmp_path / "record.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance().commit is None  # installed, not checked out

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "tag.gpgSign=false", "-c", "commit.gpgSign=false"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *who, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    git("init")
    (tmp_path / "record.py").write_text("1")
    git("add", "record.py")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "v1")
    assert provenance().commit == git("rev-parse", "--short=12", "HEAD")
    (tmp_path / "record.py").write_text("2")
    assert provenance().commit == git("rev-parse", "--short=12", "HEAD") + "-dirty"


def test_commit_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance().commit is None


def test_files_are_merged_by_hash(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    for record in ({"hash": "a", "at": 1}, {"at": 2}, {"at": 2}):
        append_record(record_of(record), one)
    for record in ({"hash": "b", "at": 3}, {"hash": "a", "at": 4}):
        append_record(record_of(record), two)
    merged = read_lines(one, two, tmp_path / "none.jsonl")
    assert [record["at"] for record in merged] == [1, 2, 2, 3]  # the first of two of one hash; without one, every line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"at": ', "is not a record"),
        ("[1]", "it is no JSON object"),
        ('{"kind": "method"}', "it lacks"),
        ('{"kind": "run", "hash": {}, "schema_version": 1}', "its hash is no text"),
        ('{"kind": "test", "hash": null, "schema_version": 1}', "its hash is no text"),
        ('{"kind": "test", "schema_version": 99}', "schema version 99 is newer"),
        ('{"kind": "test", "schema_version": 1}', "field 'made': Field required"),
    ],
)
def test_a_broken_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    append_record(record_of({}), tmp_path / "runs.jsonl")
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"runs\.jsonl, line 2") as caught:
        read_records(Measurement, ("test",), tmp_path / "runs.jsonl")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_line_of_the_first_version_reads_as_one_of_today() -> None:
    """The fields and words of version 0, with what became of them."""
    limits = {"limit": 0.9, "low": 0.8, "high": 1.0, "upper_bound": 0.7, "certified": 0.6, "products": 9}
    stage = {"name": "s", "sparsity": 0.0, "epochs": 1, "loss": 0.5, "accuracy": 0.5, "seconds": 1.0, "limits": limits}
    schedule = {"kind": "constant", "warmup_epochs": 0, "milestones": [], "gamma": 0.1}
    recipe = {
        "name": "digits", "network": "digits_mlp", "epochs": 20, "batch_size": 128, "learning_rate": 0.05,
        "momentum": 0.9, "schedule": schedule, "l1": 0.001, "proximal": False, "weight_decay": 0.0, "augment": False,
    }  # fmt: skip
    old = {
        "kind": "method", "task": "digits", "recipe": recipe, "recipe_hash": "x", "data": "d", "train_images": 7,
        "limit_images": None, "limit_max_products": 64, "method": "lottery_ticket:rate=0.5,rewind=2",
        "target": "certified", "seed": 3, "sparsity": 0.9, "accuracy": 0.8, "loss": 0.1, "epochs": 40, "trainings": 2,
        "training_seconds": 2.0, "seconds": 3.0, "history": [stage], "hash": "old", "commit": None,
        "command": "howsparse compare digits --methods lottery_ticket:rate=0.5 --folder /tmp/here",
        "machine": {"processor": "p", "cores": 2, "system": "s", "accelerator": None}, "versions": {"torch": "2"},
    }  # fmt: skip
    record = CaseRecord.model_validate(upgrade(old))
    assert (record.key.method, record.key.target) == ("lottery_ticket:fraction=0.5,rewind=2", "predicted")
    assert record.key.limit == LimitOptions(max_products=64)
    assert record.made.command == "howsparse compare digits --methods lottery_ticket:fraction=0.5 --folder here"
    assert record.history[0].limits == LimitSummary(0.9, 0.8, 1.0, 0.6, 9, upper_bound=0.7)
    task = load_task("digits", epochs=20)  # its settings are the recipe's, but for the numbers above
    assert record.settings == task.settings()
    assert record.key.settings_hash == settings_hash(task.settings())
    assert upgrade(record.model_dump(mode="json")) == record.model_dump(mode="json")


def test_every_recorded_line_is_read() -> None:
    folder = Path(__file__).parents[1] / "results"
    kinds = {"run": 0, "method": 0, "train": 0, "limit": 0, "iteration": 0}
    for path in folder.glob("*.jsonl"):
        for line in read_lines(path):
            kinds[line["kind"]] = kinds.get(line["kind"], 0) + 1
        read_records(CaseRecord, ("run", "method"), path)
        read_records(IterationRecord, ("iteration",), path)
        read_records(AnswerRecord, ("limit", "prune"), path)
        read_records(TrainRecord, ("train",), path)
    if folder.exists():
        assert all(kinds.values())
