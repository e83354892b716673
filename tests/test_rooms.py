"""A room of the package imports only from rooms before it in this list."""

import ast
from pathlib import Path

import howsparse

ROOMS = [
    *("errors", "parallel", "files", "progress", "shown", "arrays", "matmul", "memory", "store", "identity"),
    *("geometry", "linalg", "risk", "pruning", "limit", "training"),
    *("problem", "methods", "records", "tasks", "loading", "integrations", "experiments"),
    *("deploy", "report", "paper", "cli"),
]
PACKAGE = Path(howsparse.__file__).parent


def imported(file: Path) -> set[str]:
    """Rooms that a file imports from, at its top or within a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("howsparse.")} & set(ROOMS)


def test_imports_go_one_way() -> None:
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in ("__init__", "__main__"):  # the package's face imports from anywhere
            later = ROOMS[ROOMS.index(room) + 1 :]
            assert not imported(file) & set(later), f"{file.relative_to(PACKAGE)} imports from a later room"
