"""The paper's tables and figures from the runs that are recorded: `results/`, docs/paper.md and the README's table.

python -m benchmarks.paper [--results results] [--docs docs] [--readme README.md]
"""

import argparse
import re
import shutil
from pathlib import Path

from howsparse.files import write_whole
from howsparse.paper.figures import FIGURES, paper_figure
from howsparse.paper.render import markdown_table, paper_table
from howsparse.paper.tables import TASKS, as_paper, settings, table
from howsparse.records import read_records
from howsparse.report.plots import save_figure

INTRODUCTION = """# The paper's experiments

Made by `python -m benchmarks.paper` from `results/runs.jsonl` (Figure 4: `results/iteration.jsonl`). `howsparse table`
and `howsparse figure` show the same. The records hold recipe, seed, commit, machine and command of every
run; in brackets, the paper's numbers. A run of other epochs or images than the paper's says so, has none of the paper's
numbers beside it, and is neither averaged with one that is like the paper's nor in its figures.

What differs from the paper, and why. In Table 1 the two bounds lie further apart than the paper's: U needs the spectrum
of the block of removed weights, on which only a sixteenth of the products is spent, and what is shown is the middle of
its bracket. The paper's value for FC5 lies in that bracket, its value for FC12 just below it; the paper's come without
one. In Table 3, "dense" is a network without l1, as in the paper; what one_shot's network reached before it was pruned
is in its record.

A rehearsal on 256 images shows that a recipe runs whole (training, limit, measured curves, pruning); its numbers say
nothing of the paper's. For CIFAR-10 these are its first 256 images; CIFAR-100 and TinyImageNet are not at hand, and
scikit-learn's digits stand in for them, as `python -m benchmarks.standin` writes them."""

HEADS = {
    1: "Table 1: how far the two bounds are apart",
    2: "Table 2: the limit, and where magnitude pruning really ends",
    3: "Table 3: methods at the limit's sparsity, test accuracy",
}
CAPTIONS = {
    "3": "Figure 3: loss and accuracy against sparsity, without retraining; the limit as a line in its bracket",
    "2": "Figure 2: the weights, and the squared norm of the smallest against the density; T is the limit's",
    "4": "Figure 4: the limit along the lottery ticket's rounds, and along the freezes of Rare Gems",
    "rows": "Appendix: l1 norms of Hessian rows, from the smallest weight to the largest",
    "magnitudes": "Appendix: the limit, had the weights been larger",
    "3-rehearsals": "Rehearsals: loss and accuracy against sparsity on 256 images, drawn like Figure 3",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    options = parser.parse_args()
    records = read_records(options.results / "runs.jsonl", options.results / "iteration.jsonl")
    tables = {number: markdown_table(paper_table(number, table(number, records))) for number in HEADS}
    for number, text in tables.items():
        write(options.results / f"table-{number}.md", text + "\n")
    rehearsals = [run for setting, runs in settings(records).items() if not as_paper(*setting) for run in runs]
    drawn = {f"figure-{name}": paper_figure(name, records) for name in FIGURES}
    if rehearsals:
        drawn["figure-3-rehearsals"] = paper_figure("3", rehearsals)
    for name, figure in drawn.items():
        for suffix in (".pdf", ".png"):
            save_figure(figure, options.results / f"{name}{suffix}")
        shutil.copy(options.results / f"{name}.png", options.docs / f"{name}.png")
    parts = [INTRODUCTION]
    parts += [f"## {head}\n\n{tables[number]}" for number, head in HEADS.items()]
    parts += [f"## {caption}\n\n![{caption}](figure-{name}.png)" for name, caption in CAPTIONS.items()]
    commands = [run["command"] for runs in settings(records).values() for run in runs]
    parts += ["## Commands\n\n```\n" + "\n".join(commands) + "\n```"]
    write(options.docs / "paper.md", "\n\n".join(parts) + "\n")
    like_paper = [row for row in table(2, records) if row["as_paper"]]
    write(options.readme, with_table(options.readme.read_text(), markdown_table(paper_table(2, like_paper))))
    print(f"{len(records)} records of {len({task for task, _, _ in settings(records)})} of {len(TASKS)} tasks")


def with_table(page: str, text: str) -> str:
    """``page`` with what stands between the marks replaced."""
    start, end = "<!-- table 2, by benchmarks.paper -->", "<!-- end -->"
    return re.sub(f"{start}.*?{end}", lambda _: f"{start}\n{text}\n{end}", page, flags=re.DOTALL)


def write(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write_text(text))


if __name__ == "__main__":
    main()
