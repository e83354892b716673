"""Nothing a user has is lost through an option that names a path, and a bad path is refused before any work."""

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from cli_for_tests import refused
from howsparse.cli.paths import check_paths
from howsparse.errors import InputError
from howsparse.files import save_tensors, write_whole

RECORD = '{"kind": "measure", "schema_version": 1}\n'


def special(kind: str, folder: Path) -> Path:
    """A thing in ``folder`` that is no regular file."""
    path = folder / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(folder / "nothing")
    return path


@pytest.mark.parametrize("option", ["output", "mask", "plot", "record", "onnx"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "link"])
def test_only_regular_files_are_written(option: str, kind: str, tmp_path: Path) -> None:
    path = special(kind, tmp_path)
    before = path.lstat()
    with pytest.raises(InputError, match=str(path)):
        check_paths({option: path, "force": True})
    with pytest.raises(InputError, match=str(path)):
        write_whole(path, lambda file: file.write_text("content"))
    assert path.lstat() == before
    assert [*tmp_path.iterdir()] == [path]


def test_a_device_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "device", os.stat
    path.write_text("")

    def as_device(file: Any, **options: Any) -> os.stat_result:
        found = real(file, **options)
        if Path(os.fspath(file)) != path:
            return found
        return os.stat_result((stat.S_IFCHR | 0o666, *found[1:]))

    monkeypatch.setattr(os, "stat", as_device)
    with pytest.raises(InputError, match="device"):
        check_paths({"output": path, "force": True})
    with pytest.raises(InputError, match="device"):
        write_whole(path, lambda file: file.write_text("content"))
    monkeypatch.undo()
    assert path.read_text() == ""


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("before")
    link.symlink_to(real)
    write_whole(link, lambda file: file.write_text("after"))
    assert link.is_symlink()
    assert real.read_text() == "after"


@pytest.mark.parametrize(
    ("one", "other"),
    [("output", "mask"), ("output", "record"), ("plot", "record"), ("output", "weights"), ("record", "weights")],
)
@pytest.mark.parametrize("way", ["same", "dots", "link", "hard link"])
def test_the_same_file_twice_is_refused(one: str, other: str, way: str, tmp_path: Path) -> None:
    path, second = tmp_path / "file.png", tmp_path / "second.png"
    path.write_text(RECORD)
    if way == "link":
        second.symlink_to(path)
    elif way == "hard link":
        second.hardlink_to(path)
    else:
        second = path if way == "same" else tmp_path / "other" / ".." / "file.png"
        (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=f"--{one} and --{other} are the same file"):
        check_paths({one: path, other: second, "force": True})
    assert path.read_text() == RECORD


def test_two_new_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--output and --mask are the same file"):
        check_paths({"output": tmp_path / "new", "mask": tmp_path / "x" / ".." / "new"})


@pytest.mark.parametrize("content", [b"\x80\x81", b"text\n", b"[1]\n", b'{"a": 1}\n', b"[" * 100_000])
def test_a_file_of_something_else_is_no_record(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "something"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no file of records"):
        check_paths({"record": path})
    assert path.read_bytes() == content


def test_weights_are_no_record(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors({"weight": torch.ones(3)}, path)
    with pytest.raises(InputError, match="no file of records"):
        check_paths({"record": path})


def test_a_record_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    check_paths({"record": path})
    path.write_text("")
    check_paths({"record": path})
    path.write_text(RECORD + '{"kind": "unfin')
    check_paths({"record": path})
    assert path.read_text() == RECORD + '{"kind": "unfin'


def test_nothing_is_made_by_the_check(tmp_path: Path) -> None:
    check_paths({"output": tmp_path / "a" / "b", "record": tmp_path / "c" / "d", "keep": tmp_path / "e"})
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["x.xyz", "x", "x.png.gz"])
def test_a_picture_without_a_picture_s_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no suffix of a picture"):
        check_paths({"plot": tmp_path / name})


def test_a_path_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / ("n" * 300), tmp_path / "file" / "below", tmp_path / "zero\0"):
        for option in ("output", "record"):
            with pytest.raises(InputError, match="cannot write"):
                check_paths({option: path})


COMMANDS = {
    "demo": ["--output"],
    "measure m:n": ["--plot", "--record"],
    "certify m:n": ["--output", "--record"],
    "prune m:n": ["--output", "--mask", "--record"],
    "audit m:n --change c": ["--plot", "--record"],
    "limit m:n": ["--plot", "--record"],
    "train m:n": ["--output", "--record"],
    "compare m:n": ["--record"],
    "sweep s.yaml": ["--record"],
    "run m:n": ["--record"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_a_pipe_first(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = special("pipe", tmp_path)
    for option in COMMANDS[command]:
        given = [*command.split(), option, str(pipe), *(["--force"] if option != "--record" else [])]
        if "output" in " ".join(COMMANDS[command]) and option != "--output" and "demo" not in command:
            given += ["--output", str(tmp_path / "new")]
        said = refused(*given, monkeypatch=monkeypatch, capsys=capsys)
        assert "pipe" in said
        assert said.count("\n") == 1


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
def test_only_regular_files_of_records_are_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = special(kind, tmp_path)
    said = refused("table", "2", "--record", str(path), monkeypatch=monkeypatch, capsys=capsys)
    assert said == f"howsparse: {path} is no regular file; give a file of records\n"
