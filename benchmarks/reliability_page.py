"""The page of promises: each with the test that holds it, and the last figures of its check.

    python -m benchmarks.reliability_page

writes docs/reliability.md from results/reliability.jsonl.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from howsparse.files import write_whole
from howsparse.records import read_lines

__all__ = ["page"]

_HEAD = """# What it promises of itself

`make test` runs the test of each promise. Where a number says more than a test, a check tries more than the test does:
the command is beside its last figures, which are in `results/reliability.jsonl`.

"""
_DAMAGES = ("flipped bit", "cut", "copied over another")
_COMMANDS = {  # of a check, by the end of its name
    ", fuzzed": "make fuzz",
    ", killed": "python -m benchmarks.kills",
    ", interrupted": "python -m benchmarks.interrupts",
}

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
        "`tests/test_fuzz.py`",
        ", fuzzed",
    ),
    (
        "A command that was killed gives the same bits when it is typed again, and leaves no process, no shared memory,"
        " no temporary file and no record twice",
        "`tests/test_files.py`, `tests/experiments/test_sweep.py`, `tests/cli/test_cli_run.py`",
        ", killed",
    ),
    (
        "Ctrl-C at any line leaves the model (numbers, modes, hooks, gradients, buffers) and torch's settings as they"
        " were",
        "`tests/limit/test_interrupts.py`",
        ", interrupted",
    ),
    ("1,000 products leave nothing in memory", "`tests/risk/test_no_growth.py`", "products"),
    (
        "Importing the package takes at most 0.3 seconds beyond torch, brings no package that takes long, and asks no"
        " network; nor does an answer about local files",
        "`tests/test_imports.py`",
        "import",
    ),
    (
        "A batch that does not fit into the memory of a GPU is halved, with the same result",
        "`tests/risk/test_micro_batches.py`",
        None,
    ),
    (
        "Weights of half precision, no curvature, one weight, equal weights, only negative curvature, one class and few"
        " examples get a right answer or a refusal",
        "`tests/limit/test_edges.py`",
        None,
    ),
    (
        "Only regular files are written: no device, pipe, socket, folder, or link to nothing, also with `--force`; a"
        " file that two options name is refused before any work, also through links",
        "`tests/cli/test_paths.py`",
        None,
    ),
    (
        "A file of records is never something else, and is checked before any work; an unfinished last line is not an"
        " error, and does not swallow the next record",
        "`tests/cli/test_paths.py`, `tests/cli/test_cli_refusals.py`",
        None,
    ),
    (
        "The workers of a sweep end within a second of the process that started them, however it ends, also before"
        " their first job",
        "`tests/cli/test_cli_refusals.py`, `tests/experiments/test_sweep.py`",
        None,
    ),
    (
        "Damaged files of data, weights, sweeps and records, and labels, types and shapes that do not fit the network,"
        " are refused in one line before any work",
        "`tests/cli/test_cli_refusals.py`, `tests/tasks/test_data.py`",
        None,
    ),
    (
        "Numbers of seeds, epochs and rounds that would never end are refused",
        "`tests/cli/test_cli_refusals.py`",
        None,
    ),
    (
        "A full disk is said in one line, and leaves no part of a file; a closed stdout does not stop the work",
        "`tests/cli/test_cli_refusals.py`",
        None,
    ),
)


def page(lines: Sequence[Mapping[str, Any]]) -> str:
    """The text of docs/reliability.md from all recorded lines."""
    last = {line["check"]: line for line in lines}
    rows = [f"| {promise} | {test} | {_figures(last, check)} |" for promise, test, check in _PROMISES]
    table = "\n".join(["| promise | test | check | tried | wrong |", "|---|---|---|---|---|", *rows])
    return f"{_HEAD}{table}\n\n{_costs(last)}{_suites(last)}{_kept(last)}{_parts(last)}"


def _figures(last: Mapping[str, Mapping[str, Any]], check: str | None) -> str:
    """The command of a check, how many were tried, and how many went wrong, over all its kinds."""
    found = [line for name, line in last.items() if check is not None and name.endswith(check)]
    if check is None or not found:
        return "`make test` | | "
    word = f'"{check}"' if " " in check else check
    command = _COMMANDS.get(check, f"python -m benchmarks.reliability {word}")
    tried, wrong = (sum(line[field] for line in found) for field in ("tried", "wrong"))
    return f"`{command}` | {tried:,} | {wrong:,}"


def _parts(last: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of all inputs, kills and interruptions, by kind."""
    names = [name for name in last if name.endswith(tuple(_COMMANDS))]
    if not names:
        return ""
    rows = [f"| {name} | {last[name]['tried']:,} | {last[name]['wrong']:,} |" for name in names]
    head = "| what | tried | wrong |\n|---|---|---|"
    return f"## Inputs, kills and interruptions\n\n{head}\n" + "\n".join(rows) + "\n"


def _suites(last: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of the versions of Python and torch with which the tests were run."""
    names = [name for name in last if name.startswith("suite, ")]
    if not names:
        return ""
    rows = [
        f"| {name.removeprefix('suite, ')} | {last[name]['tried'] - last[name]['wrong']:,} | {last[name]['wrong']}"
        f" | {last[name]['skipped']} |"
        for name in names
    ]
    text = "All tests, by `python -m benchmarks.compatibility` with the interpreter of each environment."
    head = "| versions | passed | failed | skipped |\n|---|---|---|---|"
    return f"## Python and torch\n\n{text}\n\n{head}\n" + "\n".join(rows) + "\n\n"


def _costs(last: Mapping[str, Mapping[str, Any]]) -> str:
    """What importing, the digest and products cost."""
    said = [_digest(last)]
    if "import" in last:
        line = last["import"]
        said.append(
            f"After `import torch`, `import howsparse` takes {1000 * line['seconds']:.1f} ms of the processor (median"
            f" of {line['tried']} new processes; at most {1000 * line['most']:.1f} ms). It imports a name when that is"
            f" first asked for; all public names take {line['names']:.2f} seconds (at most {line['names_most']:.2f})."
        )
    if "products" in last:
        line = last["products"]
        said.append(f"1,000 products leave at most {line['bytes']:,} bytes and {line['objects']} objects of Python.")
    said = [each for each in said if each]
    return "## Costs\n\n" + "\n\n".join(said) + "\n\n" if said else ""


def _kept(last: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of what became of damaged files, by kind."""
    kinds = [name for name in last if name.endswith(_DAMAGES)]
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
        f" {line['read']:.2f}."
    )


if __name__ == "__main__":
    text = page(read_lines("results/reliability.jsonl"))
    write_whole("docs/reliability.md", lambda file: file.write_text(text, encoding="utf-8"))
