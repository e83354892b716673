"""The page of promises: each with the test that holds it, and the last figures of its check."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["page"]

_HEAD = """# What howsparse promises of itself

This page lists what the package promises about its files, its answers and its commands, and how each promise is
checked. It is for readers who want to rely on the package. `make test` runs the test of every promise. Some promises
also have a longer check, which tries many more cases: `python -m benchmarks.reliability`, `make fuzz` and `python -m
benchmarks.kills`. The last column has the last figures of this check, from `results/reliability.jsonl`: how many cases
were tried, and how many of them went wrong. "By its test" means that there is no longer check.

"""

# promise, test, check
_PROMISES = (
    (
        "Every file that the package writes for later holds a digest (SHA-256) of its content. A damaged file is"
        " refused in one line, or made again with a warning",
        "`tests/test_store.py`, `tests/training/test_loop.py`, `tests/limit/test_result.py`",
        "flipped bit",
    ),
    ("A file whose end is missing gives no traceback", "`tests/test_store.py`, `tests/training/test_loop.py`", "cut"),
    (
        "Every file of kept work says which work it holds. If a file is copied over another one, it is not used",
        "`tests/test_store.py`, `tests/linalg/test_remembered.py`, `tests/training/test_loop.py`",
        "copied over another",
    ),
    (
        "All answers are about the same set of weights: the prunable weights that are not frozen, or the ones that the"
        " caller names",
        "`tests/limit/test_frozen.py`",
        "frozen",
    ),
    (
        "An l1 term keeps its strength under a `GradScaler`, also with a fused optimizer. Infinite and NaN strengths"
        " are refused. The copy of an optimizer has no l1 term",
        "`tests/training/test_l1.py`",
        None,
    ),
    ("The lower end of a bracket is never above its upper end", "`tests/limit/test_existence.py`", "brackets"),
    (
        "A table shows only runs with the same problem, recipe, data set and kind of limit, and each run once",
        "`tests/experiments/test_compare.py`, `tests/experiments/test_sweep.py`",
        None,
    ),
    ("`--images` is refused if the batches cannot be cut to this number", "`tests/cli/test_cli_networks.py`", None),
    ("Complex and quantised weights are refused", "`tests/test_loading.py`, `tests/risk/test_empirical.py`", None),
    (
        "An example whose labels are all ignored (-100) counts neither in a loss nor in a number of examples",
        "`tests/risk/test_empirical.py`, `tests/training/test_loop.py`, `tests/training/test_data_parallel.py`",
        None,
    ),
    (
        "Threads that share a model wait for each other: each gets the answer that it would get alone",
        "`tests/risk/test_alone.py`",
        "threads",
    ),
    (
        "Every input of a command, a file or a function gives an answer or is refused in one line. There is no"
        " traceback and no endless run, no code from data is run, and no file is lost. An exception that your own"
        " network raises is passed on",
        "`tests/test_fuzz.py`; all kinds by `make fuzz`",
        ", fuzzed",
    ),
    (
        "If `train` is killed and the same command is given again, the result has the same bits. No process, no shared"
        " memory, no temporary file and no second record is left",
        "`tests/experiments/test_sweep.py`, `tests/cli/test_cli_run.py`; by `python -m benchmarks.kills`",
        ", killed",
    ),
    (
        "Unusual cases get a right answer or a refusal: weights of half precision, no curvature, a single weight, equal"
        " weights, only negative curvature, a single class, few examples",
        "`tests/limit/test_edges.py`",
        None,
    ),
    (
        "Importing the package and answering about local files needs no internet. The import loads no package that"
        " takes long to load",
        "`tests/test_imports.py`",
        None,
    ),
)


def page(lines: Sequence[Mapping[str, Any]]) -> str:
    """The text of docs/reliability.md from all recorded lines."""
    last = {line["check"]: line for line in lines}
    rows = [f"| {promise} | {test} | {_figures(last, check)} |" for promise, test, check in _PROMISES]
    table = "\n".join(["| promise | test | tried, went wrong |", "|---|---|---|", *rows])
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
    head = "| file, damage | tried | refused | made again | no effect | used or traceback |\n|---|---|---|---|---|---|"
    text = (
        "Each row is a kind of file and a kind of damage, with the number of files that were damaged in this way"
        " (*tried*). A file that the program keeps for itself is *made again*. A file that a user names is *refused*."
        " *No effect*: the damaged bit has no meaning, such as a bit of the spaces that fill up a header. The last"
        " column counts what went wrong: the damaged file was used, or there was a traceback or a message of several"
        " lines.\n\n"
    )
    return f"## Kept files\n\n{text}{head}\n" + "\n".join(rows) + "\n\n"


def _digest(last: Mapping[str, Mapping[str, Any]]) -> str:
    """What the digest costs."""
    if "digest" not in last:
        return ""
    line = last["digest"]
    return (
        f"What the digest costs for a file of {line['gigabytes']:g} GB: writing takes {line['write']:.2f} seconds of"
        f" processor time with the digest, and {line['write_without']:.2f} without it. Reading and checking takes"
        f" {line['read']:.2f}.\n"
    )
