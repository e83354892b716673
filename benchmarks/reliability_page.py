"""The page of promises: each with the test that holds it, and the last figures of its check.

    python -m benchmarks.reliability_page

writes docs/reliability.md from results/reliability.jsonl.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from howsparse.files import write_whole
from howsparse.records import read_lines

__all__ = ["page"]

_HEAD = """# What howsparse promises of itself

This page lists what the package promises about its files, its answers and its commands, and how each promise is
checked. It is for readers who want to rely on the package. `make test` runs the test of every promise. Some promises
also have a longer check, which tries many more cases. Its command is in the third column. The last two columns have the
last figures of this check, from `results/reliability.jsonl`: how many cases were tried, and how many of them went
wrong.

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
        "`tests/test_fuzz.py`",
        ", fuzzed",
    ),
    (
        "If a command is killed and given again, the result has the same bits. No process, no shared memory, no"
        " temporary file and no second record is left",
        "`tests/test_files.py`, `tests/experiments/test_sweep.py`, `tests/cli/test_cli_run.py`",
        ", killed",
    ),
    (
        "Ctrl-C at any line of the code leaves the model (weights, modes, hooks, gradients, buffers) and torch's"
        " settings as they were",
        "`tests/limit/test_interrupts.py`",
        ", interrupted",
    ),
    ("After 1,000 products no more memory is in use than before", "`tests/risk/test_no_growth.py`", "products"),
    (
        "`import howsparse` takes at most 0.3 seconds more than `import torch`. The package loads no package that takes"
        " long to load before it needs it. Importing it and answering about local files needs no internet",
        "`tests/test_imports.py`",
        "import",
    ),
    (
        "A batch that does not fit into the memory of a GPU is halved, with the same result",
        "`tests/risk/test_micro_batches.py`",
        None,
    ),
    (
        "Unusual cases get a right answer or a refusal: weights of half precision, no curvature, a single weight, equal"
        " weights, only negative curvature, a single class, few examples",
        "`tests/limit/test_edges.py`",
        None,
    ),
    (
        "Only regular files are written, also with `--force`: never a device, a pipe, a socket, a folder, or a link to"
        " a file that does not exist",
        "`tests/cli/test_paths.py`",
        None,
    ),
    (
        "If two options name the same file, also through links, the command is refused before any work",
        "`tests/cli/test_paths.py`",
        None,
    ),
    (
        "`--record` takes only a file of records, and this is checked before any work. An unfinished last line of such"
        " a file is no error, and the next record starts on a new line",
        "`tests/cli/test_paths.py`, `tests/cli/test_cli_refusals.py`",
        None,
    ),
    (
        "The workers of a sweep end within a second of the process that started them, however it ends",
        "`tests/cli/test_cli_refusals.py`, `tests/experiments/test_sweep.py`",
        None,
    ),
    (
        "If `train` is stopped after it wrote its record and before it wrote the weights, the same command finishes the"
        " work, and there is one record",
        "`tests/cli/test_cli_refusals.py`",
        None,
    ),
    (
        "Damaged files of data, weights, sweeps and records are refused in one line. So are labels, types and shapes"
        " that do not fit the network, before any work",
        "`tests/cli/test_cli_refusals.py`, `tests/tasks/test_data.py`",
        None,
    ),
    (
        "Numbers of seeds, epochs and rounds that are too large to ever finish are refused",
        "`tests/cli/test_cli_refusals.py`",
        None,
    ),
    (
        "A full disk is reported in one line, and no part of a file is left. The work goes on if stdout is closed",
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
        f" {line['read']:.2f}."
    )


if __name__ == "__main__":
    text = page(read_lines("results/reliability.jsonl"))
    write_whole("docs/reliability.md", lambda file: file.write_text(text, encoding="utf-8"))
