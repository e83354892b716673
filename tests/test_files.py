"""Files are whole or not there, and a user's files stay."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from howsparse.errors import InputError
from howsparse.files import refuse_to_overwrite, save_tensors, write_whole


@pytest.fixture
def private_umask() -> Iterator[None]:
    old = os.umask(0o027)
    yield
    assert os.umask(old) == 0o027  # reading the mask must not change it


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "answer.txt"
    path.write_text("old")

    def write(file: Path) -> None:
        file.write_text("new")
        assert path.read_text() == "old"
        assert file.suffix == ".txt"

    write_whole(path, write)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("old", ["old", None])
def test_a_failed_write_leaves_no_trace(tmp_path: Path, old: str | None, error: type[BaseException]) -> None:
    path = tmp_path / "answer.txt"
    if old is not None:
        path.write_text(old)

    def write(file: Path) -> None:
        file.write_text("half")
        raise error

    with pytest.raises(InputError if error is OSError else error):
        write_whole(path, write)
    assert [file.read_text() for file in tmp_path.iterdir()] == ([old] if old is not None else [])


def test_what_a_killed_writer_left_is_removed_and_what_another_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "answer.txt"
    kill = "lambda file: (file.write_text('half'), os.kill(os.getpid(), signal.SIGKILL))"
    code = f"import os, signal; from howsparse.files import write_whole; write_whole('answer.txt', {kill})"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    assert len(left) == 1

    def write(file: Path) -> None:
        assert not left[0].exists()
        write_whole(path, lambda other: other.write_text("first"))
        file.write_text("second")

    write_whole(path, write)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["second"]


def test_folders_are_made(tmp_path: Path) -> None:
    write_whole(str(tmp_path / "a" / "b" / "c.txt"), lambda file: file.write_text("c"))
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "c"


@pytest.mark.usefixtures("private_umask")
def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "ours", lambda file: file.write_text(""))
    (tmp_path / "plain").write_text("")
    assert (
        stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode) == 0o640
    )


def test_tensors_round_trip_whatever_their_storage(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    tied = nn.Linear(2, 2)
    tensors = {
        "transposed": base.T,
        "row": base[1],
        "every other": base[:, ::2],
        "half": base.to(torch.bfloat16),
        "bool": base > 5,
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 2),
        "parameter": tied.weight,
        "again": tied.weight,
    }
    save_tensors(tensors, tmp_path / "t.safetensors")
    back = load_file(tmp_path / "t.safetensors")
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_refuse_to_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    refuse_to_overwrite(path, force=False)
    path.write_text("precious")
    refuse_to_overwrite(path, force=True)
    with pytest.raises(InputError, match=r"out\.safetensors exists; .*--force"):
        refuse_to_overwrite(path, force=False)
    assert path.read_text() == "precious"
