"""The code blocks of the README and of the pages in docs/."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page in one language: "python", "yaml", "text", and "" for commands.

    Args:
        page: path from the repository's root.
        language: the word after the three backticks.
    """
    return [code for named, code in _BLOCK.findall((ROOT / page).read_text()) if named == language]


def commands(page: str) -> list[str]:
    """The lines of a page's blocks of commands."""
    return [line for block in blocks(page, "") for line in block.splitlines()]


def write_network(folder: Path) -> str:
    """Write the tutorial's module my_net.py; return the code that trains its network and writes dense.safetensors."""
    module, training, *_ = blocks("docs/tutorial.md", "python")
    assert module.startswith("# my_net.py")
    (folder / "my_net.py").write_text(module)
    return training


@contextmanager
def tutorial_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder that has the tutorial's module and its trained checkpoint."""
    training = write_network(folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("COLUMNS", "120")
    sys.modules.pop("my_net", None)
    exec(training, {})
    yield
    sys.modules.pop("my_net", None)
