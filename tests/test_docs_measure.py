"""The page on measuring a network one has is run as it stands, and what it shows is what the commands print."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import howsparse
from cli_for_tests import run
from pages_for_tests import DOCS, blocks, tutorial_folder

PAGE = "docs/measure.md"

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not DOCS.exists(), reason="not a checkout"),
]


def numbers_and_words(text: str) -> tuple[list[float], list[str]]:
    """The numbers of an output, times apart, and its words. Rows of a table are sorted: close orders may swap."""
    text = re.sub(r"in \d+\.\d+ s", "in TIME", text)
    text = re.sub(r"( \d+\.\d+ %) +\d+\.\d+$", r"\1 TIME", text, flags=re.MULTILINE)
    words = re.sub(r"\d[\d.,]*", "#", text).split()
    return [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.\d+|\d+", text)], sorted(words)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A working directory with the tutorial's module and checkpoint; the Python blocks of the page."""
    with tutorial_folder(tmp_path, monkeypatch):
        yield blocks(PAGE, "python")


def test_the_commands_print_what_the_page_shows(
    written: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [shlex.split(line) for block in blocks(PAGE, "") for line in block.splitlines()]
    assert [command[1] for command in commands] == ["measure", "measure", "certify", "prune", "audit"]
    outputs = []
    for command in commands:
        assert run(*command[1:], monkeypatch=monkeypatch) == 0, capsys.readouterr().err
        outputs.append(capsys.readouterr().out)
    for shown, printed in zip(blocks(PAGE, "text"), outputs, strict=False):
        (expected, words), (found, said) = numbers_and_words(shown), numbers_and_words(printed)
        assert said == words
        # another processor rounds differently in the training, so a measured sparsity may be another one close by
        assert found[0] == pytest.approx(expected[0], abs=5)
        assert len(found) == len(expected)
    certificate = howsparse.Certificate.load("certificate.safetensors")
    state = load_file("pruned.safetensors")
    gone = sum(int((state[name] == 0).sum()) for name in certificate.mask)
    assert gone == round(certificate.sparsity * certificate.mask.num_weights)


def test_the_python_runs(written: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    made: dict[str, Any] = {}
    for code in written:
        exec(code, made)
    said = capsys.readouterr().out.splitlines()
    certificate, pattern, results = made["certificate"], made["pattern"], made["results"]
    assert said[0] == certificate.sentence
    assert 0.3 < certificate.sparsity < 0.7
    state = torch.load("pruned.pt")
    assert all((state[name][~kept] == 0).all() for name, kept in certificate.mask.items())
    assert said[1] in certificate.mask
    assert pattern.sparsity in (0.25, 0.5)
    assert made["measured"].sparsity <= made["best"].sparsity
    dense, loss = results.loss, results.losses.mean()
    assert dense == pytest.approx(loss)
    assert results.counts.sum() == 500
