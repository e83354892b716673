"""Pruning methods side by side: the page in docs, from the records of `howsparse compare`.

howsparse compare TASK --methods ... --sparsities ... --seeds N --record results/methods.jsonl
python -m benchmarks.methods [--record results/methods.jsonl] [--table docs/methods.md]
"""

import argparse
from pathlib import Path
from typing import Any

from howsparse.experiments.compare import rows
from howsparse.experiments.record import read_records
from howsparse.experiments.tables import PAPER
from howsparse.files import write_whole

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, default=Path("results/methods.jsonl"))
    parser.add_argument("--table", type=Path, default=Path("docs/methods.md"))
    options = parser.parse_args()
    write_whole(options.table, lambda file: file.write_text(page(read_records(options.record))))
    print(options.table.read_text())


def page(records: list[Record]) -> str:
    """One table for each task and recipe."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["task"], record["recipe_hash"]), []).append(record)
    intro = """# Pruning methods, side by side

Made by `python -m benchmarks.methods` from `results/methods.jsonl`. Test accuracy in per cent, mean and standard
deviation over the seeds. A word for a sparsity is that of the network that the recipe trains densely with l1, one for
each seed.
"""
    return "\n".join([intro, *(section(task, group) for (task, _), group in groups.items())])


def section(task: str, records: list[Record]) -> str:
    """Heading, table and commands of one comparison."""
    recipe, found = records[0]["recipe"], rows(records)
    targets = list(dict.fromkeys(row["target"] for row in found if row["method"] != "dense"))
    seeds = len({record["seed"] for record in records})
    paper = PAPER.get(task, {})
    heads = ["method", *(head(target, found) for target in targets), "trainings", "epochs in all"]
    lines = [
        f"## {task}, {recipe['epochs']} epochs a training, {seeds} seed(s), l1 {recipe['l1']:g} for one_shot",
        "",
        "| " + " | ".join(heads + ["the paper"] * bool(paper)) + " |",
        "|---" * (len(heads) + bool(paper)) + "|",
    ]
    for method in dict.fromkeys(row["method"] for row in found):
        own = {row["target"]: row for row in found if row["method"] == method}
        cells = [cell(own.get(0.0 if method == "dense" else target)) for target in targets]
        cells += [most(own, "trainings"), most(own, "epochs")]
        cells += [f"paper: {paper[method]}" if method in paper else ""] * bool(paper)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    reasons = {row["method"]: row["refused"] for row in found if "refused" in row}
    lines += ["", *(f"- {reason}" for reason in reasons.values())]
    commands = dict.fromkeys(record["command"] for record in records)
    return "\n".join([*lines, "", "```", *commands, "```", ""])


def head(target: float | str, found: list[Record]) -> str:
    if not isinstance(target, str):
        return f"{100 * target:g} %"
    reached = [row["sparsity"] for row in found if row["target"] == target and "sparsity" in row]
    return f"{target}, {100 * sum(reached) / len(reached):.1f} %"


def cell(row: Record | None) -> str:
    if row is None or "refused" in row:
        return "-"
    spread = row["accuracy_deviation"]
    return f"{100 * row['accuracy']:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def most(own: dict[Any, Record], what: str) -> str:
    counts = [row[what] for row in own.values() if what in row]
    return f"{max(counts):.0f}" if counts else "-"


if __name__ == "__main__":
    main()
