"""What `import howsparse` brings with it: no package that takes long, and no network."""

import subprocess
import sys

_HEAVY = (
    *("scipy.optimize", "scipy.stats", "scipy.sparse.linalg", "sklearn", "matplotlib", "plotly", "pandas", "datasets"),
    *("transformers", "accelerate", "pytorch_lightning", "peft", "dask", "joblib", "yaml", "onnx", "onnxruntime"),
    *("torch_pruning", "typer", "rich", "pyarrow", "PIL"),
)
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


def test_the_import_brings_no_heavy_package() -> None:
    new = "import sys, torch; before = set(sys.modules); import howsparse; new = set(sys.modules) - before"
    assert _said(f"{new}; print(new & set({_HEAVY}))").strip() == "set()"


def test_neither_the_import_nor_an_answer_asks_the_network() -> None:
    answer = "import howsparse; task = howsparse.load_task('digits'); m = howsparse.outcomes(task.initial(), task.test)"
    assert _said(f"{_NO_NETWORK}{answer}; print(len(m.losses))").strip() == "360"
