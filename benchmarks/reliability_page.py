"""The page of promises: each with the test that holds it, and the last figures of its check."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["page"]

_HEAD = """# What it promises of itself

Each promise has a test, which `make test` runs, and where a number says more than a test, a check:
`python -m benchmarks.reliability` and `make fuzz`. A check tries more than the test does. Its last figures are in
`results/reliability.jsonl`, and are shown here.

"""

# promise, test, check
_PROMISES = (
    (
        "Kept and saved files carry a digest of their content; one that was damaged is refused in one line, or made"
        " again with a warning",
        "`tests/test_store.py`, `tests/training/test_loop.py`, `tests/limit/test_result.py`",
        "flipped bit",
    ),
    ("A file that was cut short gives no traceback", "`tests/test_store.py`, `tests/training/test_loop.py`", "cut"),
    (
        "Kept work carries what it is; a file that was copied over another one is not used",
        "`tests/test_store.py`, `tests/linalg/test_remembered.py`, `tests/training/test_loop.py`",
        "copied over another",
    ),
    (
        "All answers are about one set of weights: those that are prunable and not frozen, or those that are named",
        "`tests/limit/test_frozen.py`",
        "frozen",
    ),
    (
        "An l1 term has its strength under a `GradScaler`, also with a fused optimizer; infinite and NaN strengths are"
        " refused; a copied optimizer has no term",
        "`tests/training/test_l1.py`",
        None,
    ),
    ("The ends of a bracket are in order", "`tests/limit/test_existence.py`", "brackets"),
    (
        "A table holds runs of one problem, one recipe, one data set and one kind of limit, each run once",
        "`tests/experiments/test_compare.py`, `tests/experiments/test_sweep.py`",
        None,
    ),
    ("`--images` that cannot be kept is refused", "`tests/cli/test_cli_networks.py`", None),
    ("Complex and quantised weights are refused", "`tests/test_loading.py`, `tests/risk/test_empirical.py`", None),
    (
        "An example whose labels do not count (-100) is in no loss, and in no number of examples",
        "`tests/risk/test_empirical.py`, `tests/training/test_loop.py`, `tests/training/test_data_parallel.py`",
        None,
    ),
    (
        "Threads that share a model wait for each other: each gets the answer of one thread",
        "`tests/risk/test_alone.py`",
        "threads",
    ),
    (
        "Every input of a command, a file or a function ends in an answer or in a refusal of one line: no traceback, no"
        " hang, no code run from data, no file lost. An exception that a network of your own raises is passed on",
        "`tests/test_fuzz.py`; all kinds by `make fuzz`",
        ", fuzzed",
    ),
    (
        "`train` that was killed gives the same bits when it is typed again, and leaves no process, no shared memory,"
        " no temporary file and no record twice",
        "`tests/experiments/test_sweep.py`, `tests/cli/test_cli_run.py`; by `python -m benchmarks.kills`",
        ", killed",
    ),
    (
        "Weights of half precision, no curvature, one weight, equal weights, only negative curvature, one class and few"
        " examples get a right answer or a refusal",
        "`tests/limit/test_edges.py`",
        None,
    ),
    (
        "Importing the package and answering about local files asks no network, and the import brings no package that"
        " takes long",
        "`tests/test_imports.py`",
        None,
    ),
)


def page(lines: Sequence[Mapping[str, Any]]) -> str:
    """The text of docs/reliability.md from all recorded lines."""
    last = {line["check"]: line for line in lines}
    rows = [f"| {promise} | {test} | {_figures(last, check)} |" for promise, test, check in _PROMISES]
    table = "\n".join(["| promise | test | tried, and went wrong |", "|---|---|---|", *rows])
    return f"{_HEAD}{table}\n\n{_kept(last)}{_digest(last)}"


def _figures(last: Mapping[str, Mapping[str, Any]], check: str | None) -> str:
    """How many were tried, and how many went wrong, over all kinds of the check."""
    found = [line for name, line in last.items() if check is not None and name.endswith(check)]
    if not found:
        return "by its test"
    return f"{sum(line['tried'] for line in found):,}, {sum(line['wrong'] for line in found):,}"


def _kept(last: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of what became of damaged files, by kind."""
    kinds = [name for name in last if ", " in name and not name.endswith((", fuzzed", ", killed"))]
    if not kinds:
        return ""
    rows = [
        f"| {name} | {last[name]['tried']} | {last[name].get('refused', 0)} | {last[name].get('made again', 0)}"
        f" | {last[name].get('no effect', 0)} | {last[name]['wrong']} |"
        for name in kinds
    ]
    head = (
        "| file, damage | tried | refused | made again | says nothing | used or traceback |\n|---|---|---|---|---|---|"
    )
    text = (
        "What became of damaged files. A file that the program made for itself is made again; one that a user named is"
        " refused. Some bits say nothing, such as those of the spaces that fill up a header. Another answer without a"
        " word, a traceback, or a message of several lines would count as wrong.\n\n"
    )
    return f"## Kept files\n\n{text}{head}\n" + "\n".join(rows) + "\n\n"


def _digest(last: Mapping[str, Mapping[str, Any]]) -> str:
    """What the digest costs."""
    if "digest" not in last:
        return ""
    line = last["digest"]
    return (
        f"The digest (SHA-256) of a product of {line['gigabytes']:g} GB: writing takes {line['write']:.2f} seconds of"
        f" the processor with it and {line['write_without']:.2f} without it; reading and checking takes"
        f" {line['read']:.2f}.\n"
    )
