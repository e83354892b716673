"""The paper's tables and figures from the runs that are recorded: `results/`, docs/paper.md and the README's table.

python -m benchmarks.paper [--results results] [--docs docs] [--readme README.md]
"""

import argparse
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper_differences import differences
from howsparse.files import write_whole
from howsparse.paper.figures import FIGURES, paper_figure, runs_figure
from howsparse.paper.numbers import paper_tasks
from howsparse.paper.render import markdown_table, paper_table
from howsparse.paper.tables import settings, table
from howsparse.records import CaseRecord, read_records
from howsparse.report.plots import save_figure

INTRODUCTION = """# The paper's experiments

This page has the tables and figures of the paper, computed again with this package. It is for readers who know the
paper and want to compare. Made by `python -m benchmarks.paper` from `results/runs.jsonl` (Figure 4: from
`results/iteration.jsonl`). `howsparse table` and `howsparse figure` show the same. The records hold the settings, seed,
commit, machine and command of every run.

All numbers are in per cent or in points, and the paper's numbers stand in brackets. A number with ± is the mean over
the seeds, with their standard deviation. A "-" stands where nothing was run. If a run has other epochs or another
number of images than the paper's, its row says so and shows no numbers of the paper. Such a run is not averaged with
runs that are like the paper's, and it is not in their figures.

Most of these other runs are *rehearsals*: runs on 256 images. A rehearsal shows that all steps of a task work:
training, limit, measured curves and pruning. Its numbers cannot be compared with the paper's. The rehearsals for
CIFAR-10 use its first 256 images. Those for CIFAR-100 and TinyImageNet use scikit-learn's digits, as
`python -m benchmarks.standin` writes them.

- **Table 1** compares the two bounds of the paper. 1 - T is the *limit*: at a higher sparsity, random subspaces of the
  weights do not keep the loss. 1 - U is a sparsity that can be reached, by the paper's other theorem. The table has the
  distance between the two. U needs the spectrum of the block of removed weights. A limit spends only one sixteenth of
  its products on this block, so the distance is known only as an interval, over the seeds for which it could be
  computed. *Upper end* says where the upper end of this interval comes from. "T itself, which always holds" stands for
  a simple fact: the distance cannot be larger than T. "unknown" says that the limit's bracket is too wide. The paper
  gives no interval. [table-1.md](table-1.md) has more products, exact spectra, and another reading of the paper.
- **Table 2** compares the limit with magnitude pruning. *Limit* and *bracket* are the middle and the ends of the proven
  bracket. *Measured by accuracy* is the largest sparsity at which the network keeps its test accuracy when its smallest
  weights are removed. *Predicted* is what the local quadratic model of the loss says, and *measured by loss* is the
  measurement that it predicts: the largest sparsity at which the training loss stays within the tolerance.
- **Table 3** has the test accuracies of pruning methods at the limit's sparsity. *Dense* is a network without l1, as in
  the paper. The accuracy of one_shot's network before pruning is in its record. The other methods prune to the limit
  that one_shot's runs found, within 0.1 points. An option that differs from the paper's stands beside the number:
  with `fraction=0.5`, a round of the lottery ticket removes half of the weights, and in the paper one fifth. *Random*
  stands for random masks, which are not in the paper."""

BESIDE = """## Tasks beside the paper's

- `vgg16-quarter-cifar10` and `resnet18-quarter-cifar100` are networks of the paper with a quarter of its channels and
  fewer epochs, so that a machine without a GPU can train them. Everything else is the paper's recipe.
- A name with `@authors` is the paper's task, trained as the code of its authors does: the schedule of the learning rate
  takes a step in each iteration, and the l1 term covers all parameters.

The paper has no numbers for them. All numbers are per cent, and the limit is shown with its bracket. *One-shot* is the
test accuracy of the network that was pruned without retraining, and the sparsity that it was pruned to: the limit, or
what was predicted if the limit is not resolved.
"""

DIFFERENCES = """## Where our numbers differ from the paper's

*Agree* says whether our number and the paper's differ by at most two standard deviations of each, and if not, why. A
number from one seed has no deviation. For the limit and for the difference of the bounds, the bracket counts instead.
"open" means that we do not know the reason.
"""

HEADS = {
    1: "Table 1: the difference between the two bounds",
    2: "Table 2: the limit, and how far magnitude pruning gets when measured",
    3: "Table 3: test accuracy of the methods at the limit's sparsity",
}
CAPTIONS = {
    "3": "Figure 3: loss and accuracy against sparsity, without retraining; the line is the limit, in its bracket",
    "2": "Figure 2: the weights, and the squared norm of the smallest weights against the density; T at the limit",
    "4": "Figure 4: the limit along the rounds of the lottery ticket, and along the freezes of Rare Gems",
    "rows": "Appendix: l1 norms of Hessian rows, from the smallest weight to the largest",
    "magnitudes": "Appendix: the limit if the weights were larger by a factor",
    "3-rehearsals": "Rehearsals: loss and accuracy against sparsity on 256 images, drawn as in Figure 3",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    options = parser.parse_args()
    paths = [options.results / "runs.jsonl", options.results / "iteration.jsonl"]
    records = read_records(CaseRecord, ("run", "method"), *paths)
    tables = {number: markdown_table(paper_table(number, table(number, records))) for number in HEADS}
    for number, text in tables.items():
        write(options.results / f"table-{number}.md", text + "\n")
    rehearsals = [run for setting, runs in settings(records).items() if not setting.as_paper for run in runs]
    drawn = {f"figure-{name}": paper_figure(name, paths) for name in FIGURES}
    if rehearsals:
        drawn["figure-3-rehearsals"] = runs_figure("3", rehearsals)
    for name, figure in drawn.items():
        for suffix in (".pdf", ".png"):
            save_figure(figure, options.results / f"{name}{suffix}")
        shutil.copy(options.results / f"{name}.png", options.docs / f"{name}.png")
    parts = [INTRODUCTION]
    parts += [f"## {head}\n\n{tables[number]}" for number, head in HEADS.items()]
    every = [row for number in HEADS for row in table(number, records)]
    parts += [f"{DIFFERENCES}\n{differences(every)}"]
    parts += [f"## {caption}\n\n![{caption}](figure-{name}.png)" for name, caption in CAPTIONS.items()]
    beside = [run for run in records if run.kind == "run" and run.key.problem not in paper_tasks()]
    if beside:
        parts += [BESIDE + "\n" + table_beside(beside)]
    commands = [run.made.command for runs in settings(records).values() for run in runs]
    commands += [run.made.command for run in records if run.kind == "method" or run in beside]
    parts += ["## Commands\n\n```\n" + "\n".join(commands) + "\n```"]
    write(options.docs / "paper.md", "\n\n".join(parts) + "\n")
    like_paper = [row for row in table(2, records) if row.setting.as_paper]
    write(options.readme, with_table(options.readme.read_text(), markdown_table(paper_table(2, like_paper))))
    tasks = {setting.task for setting in settings(records)}
    print(f"{len(records)} records of {len(tasks)} of {len(paper_tasks())} tasks")


def table_beside(runs: Sequence[CaseRecord]) -> str:
    """A row for each run of a task that is not the paper's, without refused ones that were made again."""
    made = {trained(run) for run in runs if run.refused is None}
    heads = ["task", "training", "seed", "dense accuracy", "limit", "predicted"]
    heads += ["measured by loss", "measured by accuracy", "one-shot"]
    rows = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for run in runs:
        if run.refused is not None and trained(run) in made:
            continue
        found = run.study
        assert found is not None
        answer = found.answer
        middle = "not resolved" if answer.limit is None else f"{100 * answer.limit:.2f}"
        cells = [
            run.key.problem,
            f"{run.settings['epochs']} epochs, {run.train_examples:,} images",
            str(run.key.seed),
            percent(found.dense_accuracy),
            f"{middle}, {percent(answer.limit_low)} to {percent(answer.limit_high)}",
            *map(percent, (answer.predicted, found.measured, found.measured_by_accuracy)),
            "-" if run.accuracy is None else f"{percent(run.accuracy)} at {percent(run.sparsity)}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def trained(run: CaseRecord) -> tuple[str, str, int]:
    """Which network a run is about."""
    return run.key.problem, run.key.settings_hash, run.key.seed


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f}"


def with_table(page: str, text: str) -> str:
    """``page`` with what stands between the marks replaced."""
    start, end = "<!-- table 2, by benchmarks.paper -->", "<!-- end -->"
    return re.sub(f"{start}.*?{end}", lambda _: f"{start}\n{text}\n{end}", page, flags=re.DOTALL)


def write(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write_text(text))


if __name__ == "__main__":
    main()
