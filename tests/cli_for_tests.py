"""The command line, called as a shell calls it."""

import sys

import pytest

from howsparse.cli import main


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `howsparse` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["howsparse", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def refused(*arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What `howsparse` says on stderr when it refuses: the exit code is 2, and nothing is on stdout."""
    assert run(*arguments, monkeypatch=monkeypatch) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err
