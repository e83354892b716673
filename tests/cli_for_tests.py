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
