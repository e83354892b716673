"""Pictures of what the commands print in a terminal of 80 columns, for `benchmarks.page`."""

import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from howsparse.files import write_whole

__all__ = ["COMMANDS", "picture"]

COLUMNS = 80
COMMANDS = {
    "limit": "howsparse limit digits --weights digits.safetensors",
    "measure": "howsparse measure digits --weights digits.safetensors --order best",
    "prune": "howsparse prune digits --weights digits.safetensors --max-drop 1 --output pruned.safetensors",
    "compare": "howsparse compare digits --methods dense,one_shot,random --sparsities 0.9,limit --seeds 2 --epochs 10",
}


def picture(command: str, folder: Path, path: Path) -> None:
    """Run a command, and draw what it prints on stdout, as a terminal of 80 columns shows it.

    Args:
        command: the command, which begins with ``howsparse``.
        folder: where it runs.
        path: the picture, an .svg file.
    """
    printed = in_terminal([sys.executable, "-m", *shlex.split(command)], folder)
    with Path(os.devnull).open("w") as nowhere:
        console = Console(width=COLUMNS, record=True, file=nowhere, force_terminal=True)
        for line in f"$ {command}\n{printed}".splitlines():
            text = Text.from_ansi(line)
            for start in range(0, max(len(text), 1), COLUMNS):  # a terminal folds at its last column
                console.print(text[start : start + COLUMNS], no_wrap=True, overflow="ignore")
        # Without the fonts that the picture would load from the network.
        form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        drawn = console.export_svg(title="", code_format=form, unique_id=path.stem)
    write_whole(path, lambda file: file.write_text(drawn, encoding="utf-8"))


def in_terminal(command: list[str], folder: Path) -> str:
    """What a command prints on stdout, which is a terminal. Its progress goes to stderr and is left out."""
    ours, theirs = pty.openpty()
    source = str(Path(__file__).parents[1] / "src")
    own = {"COLUMNS": str(COLUMNS), "LINES": "40", "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    paths = {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    running = subprocess.Popen(
        command, cwd=folder, stdout=theirs, stderr=subprocess.PIPE, text=True, env=os.environ | own | paths
    )
    os.close(theirs)
    pieces = []
    while piece := _read(ours):
        pieces.append(piece)
    os.close(ours)
    _, errors = running.communicate()
    if running.returncode:
        raise SystemExit(f"{shlex.join(command)} failed: {errors[-500:]}")
    return b"".join(pieces).decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    """What comes next; nothing at its end, which Linux reports as an error."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""
