"""The page docs/docstrings.md, from the records of `benchmarks.docstrings`."""

from collections.abc import Iterable
from typing import Any

__all__ = ["page"]

Line = dict[str, Any]

INTRODUCTION = """# What the docstrings say

This page counts how many docstrings of the reference are complete, at the first and at the last commit that was
counted. It is for people who change the package. The reference lists functions, classes and their public methods. A
cell such as "10 of 12" means that 12 docstrings need this part, and that 10 of them have it.

- *Args*: every parameter has an entry. For a class, these are the parameters of its constructor, or its fields.
- *Returns*: a section says what is returned. Needed by functions and methods that return something; a property needs
  none, because its docstring says what it is.
- *Raises*: a section says when an `InputError` is raised. Needed where the function, or a function of the same file
  that it calls, raises one.
- *Example*: there is an example, which the tests run. Needed by functions and classes; the example of a class counts
  for its methods.

Made by `python -m benchmarks.docstrings`; the records with command and commit are in `results/docstrings.jsonl`.
"""

PARTS = {"args": "Args", "returns": "Returns", "raises": "Raises", "example": "Example"}


def page(records: Iterable[Line]) -> str:
    """The page in docs.

    Args:
        records: lines of results/docstrings.jsonl.
    """
    lines = list(records)
    commits = list(dict.fromkeys(line["made"]["commit"] for line in lines))
    titles = {commits[-1]: "Now"} if len(commits) == 1 else {commits[0]: "Before", commits[-1]: "After"}
    tables = [
        f"## {title}\n\n{table([line for line in lines if line['made']['commit'] == commit])}"
        for commit, title in titles.items()
    ]
    return "\n".join([INTRODUCTION, *tables])


def table(lines: list[Line]) -> str:
    """A row for each part of the package."""
    head = ["", "docstrings", *PARTS.values()]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        cells = [f"{line[part]} of {line[f'{part}_needed']}" for part in PARTS]
        rows.append([line["group"], str(line["entries"]), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
