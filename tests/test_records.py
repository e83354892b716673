"""Records: whole lines whoever writes, and enough in them to run again."""

import fcntl
import json
import multiprocessing
import os
import platform
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy
import pytest
import torch

from howsparse import records as module
from howsparse.errors import InputError
from howsparse.records import append_record, provenance, read_records

WRITERS, LINES = 4, 25
LONG = 50_000  # more than Python and the system buffer at once


def write_lines(path: Path, writer: int) -> None:
    for line in range(LINES):
        append_record({"writer": writer, "line": line, "text": str(writer) * LONG}, path)


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


def test_a_writer_waits_until_the_line_before_is_whole(tmp_path: Path) -> None:
    # A system may write a line in pieces; here one does, holding the lock, and another writer comes in between.
    path = tmp_path / "runs.jsonl"
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write('{"first": ')
        file.flush()
        other = threading.Thread(target=append_record, args=({"second": 2}, path))
        other.start()
        other.join(0.3)  # time enough for a writer that does not wait
        file.write("1}\n")
    other.join()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"first": 1}, {"second": 2}]


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "runs.jsonl"
    record: dict[str, object] = {"task": 'FC5 –\n"β"', "x": 0.1 + 0.2, "list": [1, None, True], "inner": {"a": -1e-300}}
    append_record(record, path)
    append_record({}, str(path))
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [record, {}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_not_json_is_not_written(tmp_path: Path, value: object) -> None:
    path = tmp_path / "runs.jsonl"
    append_record({"good": 1}, path)
    with pytest.raises((ValueError, TypeError)):
        append_record({"bad": value}, path)
    assert path.read_text() == '{"good": 1}\n'


def test_provenance_says_command_machine_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["train", "digits", "--output", "a folder/it's $HOME.safetensors"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/howsparse", *arguments])
    found = json.loads(json.dumps(provenance(), allow_nan=False))
    assert shlex.split(found["command"]) == ["howsparse", *arguments]
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["numpy"] == numpy.__version__
    assert found["versions"]["python"] == platform.python_version()
    assert found["machine"]["cores"] == os.cpu_count()
    assert set(found) == {"command", "commit", "machine", "versions"}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_is_the_checkouts_and_says_if_files_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "record.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance()["commit"] is None  # installed, not checked out

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
    assert provenance()["commit"] == git("rev-parse", "--short=12", "HEAD")
    (tmp_path / "record.py").write_text("2")
    assert provenance()["commit"] == git("rev-parse", "--short=12", "HEAD") + "-dirty"


def test_commit_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance()["commit"] is None


def test_files_are_merged_by_hash(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    records: list[dict[str, object]] = [{"hash": "a", "at": 1}, {"at": 2}, {"at": 2}]
    for record in records:
        append_record(record, one)
    records = [{"hash": "b", "at": 3}, {"hash": "a", "at": 4}]
    for record in records:
        append_record(record, two)
    merged = read_records(one, two, tmp_path / "none.jsonl")
    assert [record["at"] for record in merged] == [1, 2, 2, 3]  # the first of two of one hash; without one, every line


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text('{"at": 1}\n{"at": \n')
    with pytest.raises(InputError, match=r"runs\.jsonl, line 2, is not a record"):
        read_records(tmp_path / "runs.jsonl")
