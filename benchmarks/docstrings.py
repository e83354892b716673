"""How many docstrings of the reference say everything: parameters, the returned value, errors, and an example.

    python -m benchmarks.docstrings [--record results/docstrings.jsonl] [--page docs/docstrings.md] [--missing]

It reads the sources, and runs nothing. --missing prints what is missing, and records nothing.
"""

import argparse
import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.commands import own_command
from benchmarks.docstrings_page import page
from howsparse.files import write_whole
from howsparse.records import Measurement, append_record, provenance, read_lines

ROOT = Path(__file__).parents[1]
PARTS = ("args", "returns", "raises", "example")

Function = ast.FunctionDef | ast.AsyncFunctionDef

_ALL = re.compile(r"<!-- all of ([\w.]+)")
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):\n((?: .*\n|\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^    ([*\w]+(?:, [*\w]+)*)(?: \([^)]*\))?:", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """A public function, class or method.

    Attributes:
        name: its full name.
        path: the file that defines it.
        exported: whether `howsparse` itself exports it, or its class.
        parts: for each part that its docstring needs, whether the docstring has it.
    """

    name: str
    path: Path
    exported: bool
    parts: dict[str, bool]

    @property
    def room(self) -> str:
        """The package that it belongs to, such as "geometry"."""
        folder = self.path.relative_to(ROOT / "src" / "howsparse").parts[0]
        return "other" if folder.endswith(".py") else folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, default=Path("results/docstrings.jsonl"))
    parser.add_argument("--page", type=Path, default=Path("docs/docstrings.md"))
    parser.add_argument("--missing", action="store_true", help="print what is missing, and record nothing")
    options = parser.parse_args()
    found = entries()
    if options.missing:
        for entry in found:
            missing = [part for part, there in entry.parts.items() if not there]
            if missing:
                print(f"{entry.path.relative_to(ROOT)}: {entry.name}: {', '.join(missing)}")
        return
    made = provenance(own_command("benchmarks.docstrings"))
    rooms = {room: [entry for entry in found if entry.room == room] for room in sorted({e.room for e in found})}
    groups = {"all": found, "exported by howsparse": [entry for entry in found if entry.exported]} | rooms
    for group, members in groups.items():
        append_record(Measurement(kind="docstrings", made=made, group=group, **counts(members)), options.record)
    write_whole(options.page, lambda file: file.write_text(page(read_lines(options.record))))
    print(options.page.read_text())


def counts(members: list[Entry]) -> dict[str, Any]:
    """How many entries there are, and for each part how many need it and how many have it."""
    answer: dict[str, Any] = {"entries": len(members)}
    for part in PARTS:
        needed = [entry.parts[part] for entry in members if part in entry.parts]
        answer |= {f"{part}_needed": len(needed), part: sum(needed)}
    return answer


def entries() -> list[Entry]:
    """Everything that the reference lists, in the order of the names."""
    top = {definition[1].name for name in _all_of("howsparse") if (definition := _definition(f"howsparse.{name}"))}
    found: dict[str, Entry] = {}
    for listed in _listed():
        definition = _definition(listed)
        if definition is not None:
            path, node = definition
            checks = Module(path)
            for name, parts in checks.parts(node):
                full = f"{path.relative_to(ROOT / 'src').with_suffix('')}".replace("/", ".") + f".{name}"
                found[full] = Entry(full, path, node.name in top, parts)
    return [found[name] for name in sorted(found)]


class Module:
    """What the docstrings of one file need, and have."""

    def __init__(self, path: Path) -> None:
        self._functions = {
            node.name: node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function)
        }

    def parts(self, node: Function | ast.ClassDef) -> Iterator[tuple[str, dict[str, bool]]]:
        """The name and the parts of a function, or of a class and its public methods."""
        if isinstance(node, Function):
            yield node.name, self._of_function(node) | {"example": ">>>" in (ast.get_docstring(node) or "")}
            return
        yield node.name, self._of_class(node)
        for inner in node.body:
            if isinstance(inner, Function) and not inner.name.startswith("_") and not _is_property(inner):
                yield f"{node.name}.{inner.name}", self._of_function(inner)

    def _of_function(self, node: Function) -> dict[str, bool]:
        text = ast.get_docstring(node) or ""
        answer: dict[str, bool] = {}
        if _parameters(node):
            answer["args"] = _parameters(node) <= _documented(text)
        if node.returns is not None and ast.unparse(node.returns) not in ("None", "NoReturn", "Self"):
            answer["returns"] = bool({"Returns", "Yields"} & _sections(text).keys())
        if self._raises(node, set()):
            answer["raises"] = "Raises" in _sections(text)
        return answer

    def _of_class(self, node: ast.ClassDef) -> dict[str, bool]:
        text = ast.get_docstring(node) or ""
        methods = {inner.name: inner for inner in node.body if isinstance(inner, Function)}
        makers = [methods[name] for name in ("__init__", "__new__", "__post_init__") if name in methods]
        names = {name for maker in makers for name in _parameters(maker)} | _fields(node)
        answer = {"example": ">>>" in text}
        if names:
            answer["args"] = names <= _documented(text)
        if any(self._raises(maker, set()) for maker in makers):
            answer["raises"] = "Raises" in _sections(text)
        return answer

    def _raises(self, node: Function, seen: set[str]) -> bool:
        """Whether an InputError is raised here, or by a function of the same file that is called here."""
        seen.add(node.name)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Raise) and inner.exc is not None and "InputError" in ast.unparse(inner.exc):
                return True
            if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id not in seen:
                called = self._functions.get(inner.func.id)
                if called is not None and self._raises(called, seen):
                    return True
        return False


def _listed() -> Iterator[str]:
    """Full names that the pages of the reference list."""
    for path in sorted((ROOT / "docs" / "reference").glob("*.md")):
        text = path.read_text()
        yield from re.findall(r"^::: ([\w.]+)", text, re.MULTILINE)
        for module in _ALL.findall(text):
            yield from (f"{module}.{name}" for name in _all_of(module))


def _file(module: str) -> Path | None:
    path = ROOT.joinpath("src", *module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists()), None)


def _all_of(module: str) -> list[str]:
    path = _file(module)
    tree = ast.parse(path.read_text()) if path else ast.Module([], [])
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    return [str(name) for value in values for name in ast.literal_eval(value)]


def _definition(full: str) -> tuple[Path, Function | ast.ClassDef] | None:
    """The file and the node of a function or class, found through the imports of packages; None for other values."""
    module, _, name = full.rpartition(".")
    path = _file(module)
    if path is None:
        return None
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, Function | ast.ClassDef) and node.name == name:
            return path, node
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if name == (alias.asname or alias.name) and _file(full) is None:
                    return _definition(f"{node.module}.{alias.name}")
    return None


def _parameters(node: Function) -> set[str]:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    return {one.arg for one in every if one is not None} - {"self", "cls"}


def _fields(node: ast.ClassDef) -> set[str]:
    """Public fields of a dataclass or of a pydantic model."""
    annotated = [inner.target for inner in node.body if isinstance(inner, ast.AnnAssign)]
    return {target.id for target in annotated if isinstance(target, ast.Name) and not target.id.startswith("_")}


def _is_property(node: Function) -> bool:
    return any("property" in ast.unparse(one) or ".setter" in ast.unparse(one) for one in node.decorator_list)


def _sections(text: str) -> dict[str, str]:
    return {match[1]: match[2] for match in _SECTION.finditer(f"{text}\n")}


def _documented(text: str) -> set[str]:
    """Names in the sections of parameters and attributes."""
    parts: Iterable[str] = (_sections(text).get(name, "") for name in ("Args", "Attributes"))
    return {name.strip("* ") for part in parts for group in _ENTRY.findall(part) for name in group.split(",")}


if __name__ == "__main__":
    main()
