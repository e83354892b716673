"""What `import howsparse` brings with it: nothing of itself, no package that takes long, and no network."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import howsparse

_HEAVY = (
    *("scipy.optimize", "scipy.stats", "scipy.sparse.linalg", "sklearn", "matplotlib", "plotly", "pandas", "datasets"),
    *("transformers", "accelerate", "pytorch_lightning", "peft", "dask", "joblib", "yaml", "onnx", "onnxruntime"),
    *("torch_pruning", "typer", "rich", "pyarrow", "PIL", "networkx", "lightning", "onnxscript", "psutil"),
)
_EVERY_NAME = "for name in howsparse.__all__: getattr(howsparse, name)"
_NO_NETWORK = """
import sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise SystemExit(f"the network was asked: {event} {arguments}")

sys.addaudithook(watch)
"""


def _said(code: str) -> str:
    """What a new Python process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_brings_nothing_until_a_name_is_asked_for() -> None:
    loaded = "print({name.split('.')[0] for name in sys.modules} & {'torch', 'numpy', 'pydantic'})"
    of_itself = "print([name for name in sys.modules if name.startswith('howsparse.')])"
    assert _said(f"import sys, howsparse; {loaded}; {of_itself}").split("\n")[:2] == ["set()", "[]"]


def test_the_public_names_bring_no_heavy_package() -> None:
    new = "print((set(sys.modules) - before) & set(heavy))"
    begin = f"import sys, torch, howsparse\nbefore, heavy = set(sys.modules), {_HEAVY}"
    assert _said(f"{begin}\n{_EVERY_NAME}\n{new}").strip() == "set()"


def test_names_are_found_where_a_type_checker_sees_them() -> None:
    tree = ast.parse(Path(howsparse.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If)).body
    imports = [node for node in guarded if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert {*seen, "load_task"} == set(howsparse.__all__)
    for name, module in seen.items():
        assert getattr(howsparse, name) is getattr(import_module(str(module)), name)
    assert set(howsparse.__all__) <= set(dir(howsparse))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert howsparse.geometry.__name__ == "howsparse.geometry"
    with pytest.raises(AttributeError, match="no attribute 'measured'"):
        import_module("howsparse").measured  # noqa: B018


def test_neither_the_import_nor_an_answer_asks_the_network() -> None:
    answer = "import howsparse; task = howsparse.load_task('digits'); m = howsparse.outcomes(task.initial(), task.test)"
    assert _said(f"{_NO_NETWORK}{answer}; print(len(m.losses))").strip() == "360"
