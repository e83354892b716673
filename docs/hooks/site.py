"""What the documentation site adds to its pages when it is built. mkdocs.yml names this file.

- Docstrings have their formulas in reST roles, as `help()` and Sphinx read them. `ReadableDocstrings` turns them into
  the `$...$` of the pages.
- Inline code that names something of the reference becomes a link to it, in pages and in docstrings.
- `<!-- all of PACKAGE -->` in a page becomes the reference of every name in the package's `__all__`.
- Pages are made of CONTRIBUTING.md, of the help texts of the command line, and of the benchmarks' docstrings.
"""

import ast
import functools
import importlib
import re
import types
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parents[1]
SOURCE = DOCS.parent / "src"
ROOMS = ["howsparse", *(f"howsparse.{room}" for room in ("linalg", "geometry", "training", "risk", "deploy"))]
ROOMS += ["howsparse.limit.bracket"]  # where a name on a page may be from, if it does not say

_ROLE = re.compile(r":math:`([^`]*)`")
_DISPLAY = re.compile(r"^( *)\.\. math:: *(.*(?:\n\1 +\S.*)*)", re.MULTILINE)
_CODE = re.compile(r"(?<![`\[\w])`([A-Za-z_][\w.]*)(\([^`]*\))?`(?![`\]])")
_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1\S.*|\n\1 +\S.*)*", re.MULTILINE)
_SHARED = re.compile(r"^( +)(\w+), ((?:\w+, )*\w+): ", re.MULTILINE)
_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_ALL = re.compile(r"<!-- all of ([\w.]+)(?:, without ([\w., ]+))? -->")


def with_dollars(text: str) -> str:
    """reST formulas as Markdown ones.

    >>> with_dollars(":math:`x` is")
    '$x$ is'
    """

    def displayed(match: re.Match[str]) -> str:
        lines = [match[1] + line.strip() for line in ("$$", *match[2].splitlines(), "$$")]
        return "\n".join(lines)

    text = _DISPLAY.sub(displayed, text)
    return _ROLE.sub(lambda m: f"${' '.join(m[1].split())}$", text)


def with_fences(text: str) -> str:
    """Examples at a prompt as code blocks."""
    return _EXAMPLE.sub(lambda m: f"{m[1]}```pycon\n{m[0]}\n{m[1]}```", text)


def with_one_name_each(text: str) -> str:
    """An entry of several parameters, ``a, b: text``, as an entry for each.

    >>> with_one_name_each("    low, high: the ends.")
    '    high: see `low`.\\n    low: the ends.'
    """

    def split(match: re.Match[str]) -> str:
        others = "".join(f"{match[1]}{name}: see `{match[2]}`.\n" for name in match[3].split(", "))
        return f"{others}{match[1]}{match[2]}: "

    return _SHARED.sub(split, text)


def names_of(module: str) -> list[str]:
    """The names in a module's `__all__`; none if there is no such module."""
    path = SOURCE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    found = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    return [str(name) for value in found for name in ast.literal_eval(value)]


def with_directives(page: str) -> str:
    """The page with a directive for every name of the packages that it names in a comment."""

    def listed(match: re.Match[str]) -> str:
        left_out = set(re.findall(r"\w+", match[2] or ""))
        return "\n\n".join(f"::: {match[1]}.{name}" for name in names_of(match[1]) if name not in left_out)

    return _ALL.sub(listed, page)


@functools.cache
def documented() -> frozenset[str]:
    """Full names of everything that has an entry in the reference."""
    pages = (with_directives(path.read_text()) for path in sorted((DOCS / "reference").glob("*.md")))
    return frozenset(name for page in pages for name in re.findall(r"^::: ([\w.]+)", page, re.MULTILINE))


def entry_of(code: str) -> str | None:
    """The full name of what inline code names; None if the reference has no such entry, or if it is a plain word.

    A plain word such as `measure` may be a command, so only names with a dot, an underline or a capital count. Methods
    and properties of a class are shown with it, so they count if the class does.
    """
    if not re.search(r"[._A-Z]", code):
        return None
    places = ("", *(f"{room}." for room in ROOMS))
    full = [place + name for name in (code, code.removeprefix("howsparse.")) for place in places]
    return next((name for name in full if name in documented() or is_member(name)), None)


def is_member(full: str) -> bool:
    """Whether a name is a method or property, with a docstring, of a class that has an entry in the reference.

    >>> is_member("howsparse.linalg.Spectrum.rounding"), is_member("howsparse.linalg.Spectrum.no_such")
    (True, False)
    """
    owner, _, name = full.rpartition(".")
    if owner not in documented() or name.startswith("_"):
        return False
    module, _, holder = owner.rpartition(".")
    found = vars(getattr(importlib.import_module(module), holder)).get(name)
    members = (types.FunctionType, property, functools.cached_property, classmethod, staticmethod)
    return isinstance(found, members) and bool(found.__doc__)


def with_links(text: str) -> str:
    """Inline code that names an entry of the reference becomes a link to it; code blocks stay as they are."""

    def linked(match: re.Match[str]) -> str:
        entry = entry_of(match[1])
        return f"[{match[0]}][{entry}]" if entry else match[0]

    parts, last = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_CODE.sub(linked, text[last : fence.start()]), fence[0]]
        last = fence.end()
    return "".join(parts) + _CODE.sub(linked, text[last:])


class ReadableDocstrings(griffe.Extension):  # type: ignore[misc]
    """Docstrings as the site's Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for every function, class and attribute."""
        if obj.docstring is not None:
            text = with_one_name_each(with_dollars(obj.docstring.value))
            obj.docstring.value = with_links(with_fences(text))


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages that are made of other files."""
    guide = re.sub(r"\]\(docs/", "](", (DOCS.parent / "CONTRIBUTING.md").read_text())
    files.append(File.generated(config, "contributing.md", content=guide))
    files.append(File.generated(config, "reference/cli.md", content=command_page()))
    files.append(File.generated(config, "measured.md", content=benchmark_page()))
    return files


def command_page() -> str:
    """The commands and their options, from their help texts."""
    from typer.main import get_command

    from howsparse.cli import app
    from howsparse.cli.app import COMMANDS

    group = get_command(app)
    parts = ["# Commands", "This page lists every command with its options, as `howsparse COMMAND --help` prints them."]
    for name in COMMANDS:
        command = group.commands[name]  # type: ignore[attr-defined]
        given = [(p.name or "").upper() for p in command.params if p.param_type_name == "argument"]
        parts += [f"## howsparse {name}", f"`{' '.join(['howsparse', name, *given])} [OPTIONS]`", command.help or ""]
        rows = [(", ".join(p.opts), p.help) for p in command.params if p.param_type_name == "option" and not p.hidden]
        parts.append(
            "\n".join(["| option | meaning |", "|---|---|", *(f"| `{opts}` | {cell(text)} |" for opts, text in rows)])
        )
    return "\n\n".join(parts) + "\n"


def benchmark_page() -> str:
    """What each benchmark measures, its commands and its page, from its docstring."""
    parts = [
        "# Commands of the benchmarks",
        "This page is for readers who want to make a number on these pages again. Every number is in a record in"
        " `results/`, with the command, the commit, the machine and the versions. The commands run in a checkout of the"
        " repository. Data and weights of others are not part of it; each docstring says what is needed.",
    ]
    for path in sorted((DOCS.parent / "benchmarks").glob("*.py")):
        source = path.read_text()
        docstring = ast.get_docstring(ast.parse(source)) or ""
        commands = re.findall(r"^ *(python -m .*(?:\n {4,}(?!python).*)*)", docstring, re.MULTILINE)
        pages = sorted({page for page in re.findall(r"docs/([\w-]+\.md)", source) if (DOCS / page).exists()})
        if commands:
            parts += [f"## {path.stem}", docstring.partition("\n\n")[0]]
            parts += ["```\n" + "\n".join(" ".join(command.split()) for command in commands) + "\n```"]
            parts += ["Pages: " + ", ".join(f"[{title(page)}]({page})" for page in pages) + "."] if pages else []
    return "\n\n".join(parts) + "\n"


def title(page: str) -> str:
    """The first heading of a page."""
    return next(line for line in (DOCS / page).read_text().splitlines() if line.startswith("# ")).removeprefix("# ")


def cell(text: str | None) -> str:
    """A help text in a cell of a Markdown table."""
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return with_links(with_directives(markdown)) if page.file.src_uri != "reference/cli.md" else markdown
