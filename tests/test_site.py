"""The documentation site: it builds without a warning, and its reference has everything that is public."""

import doctest
import importlib
import importlib.util
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import howsparse
from pages_for_tests import DOCS, ROOT

pytestmark = pytest.mark.skipif(not (ROOT / "mkdocs.yml").exists(), reason="not a checkout")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/hooks/site.py, which is no module of a package."""
    pytest.importorskip("mkdocstrings")
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "hooks" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_builds_without_a_warning(hooks: ModuleType, tmp_path: Path) -> None:
    """Strict: a link or a cross reference that leads nowhere is an error."""
    source = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    made = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": source},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    theory = (tmp_path / "site" / "theory" / "index.html").read_text()
    assert 'href="../reference/geometry/#howsparse.geometry.subspace_loss"' in theory
    geometry = (tmp_path / "site" / "reference" / "geometry" / "index.html").read_text()
    assert ":math:" not in geometry
    assert 'class="arithmatex"' in geometry
    assert "howsparse certify" in (tmp_path / "site" / "reference" / "cli" / "index.html").read_text()


def test_the_reference_has_everything_that_is_exported(hooks: ModuleType) -> None:
    """The names of the package and of its rooms; what a room takes over from another one counts once."""
    rooms = [room.name for room in pkgutil.iter_modules(howsparse.__path__, "howsparse.") if room.ispkg]
    inner = ["howsparse.pruning.orders", "howsparse.pruning.repair"]
    internal = {"howsparse.cli"}  # reached by commands, which have a page
    documented = {named(name) for name in hooks.documented()}
    for room in {"howsparse", *rooms, *inner} - internal:
        for name in getattr(importlib.import_module(room), "__all__", []):
            full = f"{room}.{name}"
            assert full in hooks.documented() or named(full) in documented or full in rooms, full


def named(full: str) -> object:
    """What a full name stands for, as something that two names of the same object share."""
    module, _, name = full.rpartition(".")
    value = getattr(importlib.import_module(module), name)
    return (value.__module__, value.__qualname__) if hasattr(value, "__qualname__") else id(value)


def test_the_examples_of_the_hooks_are_right(hooks: ModuleType) -> None:
    found = doctest.testmod(hooks)
    assert found.attempted > 0
    assert found.failed == 0


def test_formulas_of_several_lines_become_a_block(hooks: ModuleType) -> None:
    text = "A.\n\n    .. math:: a \\\\\n       = b\n\n    Then :math:`x\n    y`."
    assert hooks.with_dollars(text) == "A.\n\n    $$\n    a \\\\\n    = b\n    $$\n\n    Then $x y$."


def test_examples_become_blocks_of_code(hooks: ModuleType) -> None:
    text = "Text.\n\n    >>> f(\n    ...     1)\n    2\n\n    More."
    assert hooks.with_fences(text) == ("Text.\n\n    ```pycon\n    >>> f(\n    ...     1)\n    2\n    ```\n\n    More.")


def test_code_that_names_no_entry_stays_as_it_is(hooks: ModuleType) -> None:
    text = "`measure` and `measure_no_such` and\n\n```\n`howsparse.measure`\n```\n"
    assert hooks.with_links(text) == text
    assert hooks.with_links("`howsparse.measure(x)`") == "[`howsparse.measure(x)`][howsparse.measure]"
