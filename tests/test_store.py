"""The store: one value for one key, whoever asks, and never a damaged or a foreign one."""

import multiprocessing
import re
import shutil
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from howsparse.errors import InputError
from howsparse.store import Kind, Store, digest

TEXT = Kind[str]("text", 1, lambda value: ({"text": value}, {}), lambda fields, tensors: str(fields["text"]))


class Counted:
    """Computes a text, and counts how often."""

    def __init__(self, text: str = "made") -> None:
        self.text, self.calls = text, 0

    def __call__(self, workspace: Path | None) -> str:
        self.calls += 1
        return self.text


@dataclass(frozen=True)
class Options:
    a: int = 1
    b: float | None = None


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def kept_as(folder: Path, asked: dict[str, Any], text: str) -> str:
    found: str = Store(folder).get(asked["kind"], asked["inputs"], asked["options"], Counted(text))
    return found


def test_a_value_is_computed_once(tmp_path: Path) -> None:
    compute = Counted()
    for _ in range(3):
        assert Store(tmp_path).get(TEXT, {"x": torch.ones(3)}, Options(), compute) == "made"
    assert compute.calls == 1
    assert len(entries(tmp_path)) == 1


def test_without_a_folder_nothing_is_kept() -> None:
    compute = Counted()
    for _ in range(2):
        assert Store(None).get(TEXT, {}, {}, compute) == "made"
    assert compute.calls == 2


@pytest.mark.parametrize(
    "change",
    [
        {"kind": replace(TEXT, name="other")},
        {"kind": replace(TEXT, version=2)},
        {"inputs": {"x": torch.tensor([1.0, 2.0])}},
        {"inputs": {"x": torch.tensor([1, 3])}},
        {"inputs": {"x": torch.tensor([[1], [2]])}},
        {"inputs": {"y": torch.tensor([1, 2])}},
        {"options": Options(2)},
        {"options": Options(1, 0.0)},
        {"options": {"a": 1, "b": None}},
    ],
)
def test_kind_version_inputs_and_every_option_make_another_entry(change: dict[str, object], tmp_path: Path) -> None:
    asked: dict[str, Any] = {"kind": TEXT, "inputs": {"x": torch.tensor([1, 2])}, "options": Options()}
    assert kept_as(tmp_path, asked, "first") == "first"
    assert kept_as(tmp_path, asked | change, "second") == "second"
    assert kept_as(tmp_path, asked, "third") == "first"


simple = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 2.0]) | st.text("a1 ", max_size=3)
values = st.recursive(
    simple, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text("ab", max_size=2), v, max_size=2)
)


@given(values, values)
def test_digests_differ_where_values_do(one: object, other: object) -> None:
    assert (digest(one) == digest(other)) == (repr(one) == repr(other) or _same_mapping(one, other))


def _same_mapping(one: object, other: object) -> bool:
    """Equal up to the order of keys, with types told apart."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same_mapping(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_mapping, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def test_what_has_no_content_has_no_digest() -> None:
    with pytest.raises(TypeError, match="a object has no digest"):
        digest([object()])


def test_no_flipped_bit_is_used(tmp_path: Path) -> None:
    Store(tmp_path).get(TEXT, {}, {}, Counted("0123456789"))
    (file,) = entries(tmp_path)
    whole = file.read_bytes()
    for place in range(0, 8 * len(whole), 13):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        compute = Counted("0123456789")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert Store(tmp_path).get(TEXT, {}, {}, compute) == "0123456789"
        assert len(caught) == compute.calls
        if compute.calls:
            (told,) = caught
            assert re.fullmatch(r"kept work is made again: [^\n]*", str(told.message))
            assert file.read_bytes() == whole
        else:  # a bit that says nothing, such as one of the spaces that fill up a header
            assert 8 <= place // 8 < len(whole)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, -1])
def test_a_file_that_was_cut_short_is_made_again(length: int, tmp_path: Path) -> None:
    Store(tmp_path).get(TEXT, {}, {}, Counted("one"))
    (file,) = entries(tmp_path)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.warns(UserWarning, match="kept work is made again"):
        assert Store(tmp_path).get(TEXT, {}, {}, Counted("one")) == "one"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"sha256": 1', b"[" * 10_000])
def test_a_file_with_other_contents_is_made_again(content: bytes, tmp_path: Path) -> None:
    Store(tmp_path).get(TEXT, {}, {}, Counted("one"))
    (file,) = entries(tmp_path)
    for written in (content, len(content).to_bytes(8, "little") + content):  # as it is, and as a safetensors header
        file.write_bytes(written)
        with pytest.warns(UserWarning, match="kept work is made again"):
            assert Store(tmp_path).get(TEXT, {}, {}, Counted("one")) == "one"


def test_a_file_that_was_copied_over_another_is_found(tmp_path: Path) -> None:
    for text in ("one", "two"):
        Store(tmp_path).get(TEXT, {"name": text}, {}, Counted(text))
    one, two = sorted(entries(tmp_path), key=lambda file: b"one" not in file.read_bytes())
    shutil.copyfile(two, one)
    with pytest.warns(UserWarning, match="is the text of other inputs or options"):
        assert Store(tmp_path).get(TEXT, {"name": "one"}, {}, Counted("one")) == "one"
    assert Store(tmp_path).get(TEXT, {"name": "two"}, {}, Counted("never")) == "two"


def test_fields_that_are_not_understood_are_made_again(tmp_path: Path) -> None:
    Store(tmp_path).get(TEXT, {}, {}, Counted())
    other = replace(TEXT, unpack=lambda fields, tensors: str(fields["another"]))
    with pytest.warns(UserWarning, match="kept work is made again: 'another'"):
        assert Store(tmp_path).get(other, {}, {}, Counted("again")) == "again"


def test_work_of_an_earlier_version_is_made_again_with_a_warning(tmp_path: Path) -> None:
    Store(tmp_path).get(TEXT, {}, {}, Counted())
    (file,) = entries(tmp_path)
    file.unlink()
    file.with_suffix("").mkdir()
    with pytest.warns(UserWarning, match="of an earlier howsparse"):
        assert Store(tmp_path).get(TEXT, {}, {}, Counted("again")) == "again"


def test_unfinished_work_is_found_again_and_removed_in_the_end(tmp_path: Path) -> None:
    def stopped(workspace: Path | None) -> str:
        assert workspace is not None
        workspace.mkdir()
        (workspace / "half").write_text("half")
        raise KeyboardInterrupt

    def rest(workspace: Path | None) -> str:
        assert workspace is not None
        return (workspace / "half").read_text() + " and the rest"

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).get(TEXT, {}, {}, stopped)
    assert Store(tmp_path).get(TEXT, {}, {}, rest) == "half and the rest"
    (file,) = entries(tmp_path)
    assert file.is_file()


def count_calls(folder: Path, barrier: "multiprocessing.synchronize.Barrier") -> None:
    def compute(workspace: Path | None) -> str:
        with (folder / "calls").open("a") as file:
            file.write("x")
        return "made"

    barrier.wait()
    assert Store(folder / "store").get(TEXT, {}, {}, compute) == "made"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_of_several_processes_one_computes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [context.Process(target=count_calls, args=(tmp_path, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "calls").read_text() == "x"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to"):
        Store(tmp_path / "file" / "store").get(TEXT, {}, {}, Counted())


def test_a_view_has_the_digest_of_its_values() -> None:
    """Also a view of one value, whose stride is not 1."""
    pairs = torch.arange(6).reshape(3, 2)
    for view in (pairs[:, 1], pairs[1:2, 1], pairs[:1].T, pairs[::2]):
        assert digest(view) == digest(view.clone(memory_format=torch.contiguous_format))
    assert digest(torch.arange(1, 8, 2)[1:2][:]) == digest(torch.tensor([3]))
    assert digest(torch.arange(1, 8)[2::7]) == digest(torch.tensor([3]))
