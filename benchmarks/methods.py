"""Pruning methods side by side: the page in docs, from the records of `howsparse compare`.

howsparse compare TASK --methods ... --sparsities ... --seeds N --record results/methods.jsonl
python -m benchmarks.methods [--record results/methods.jsonl] [--table docs/methods.md]
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from howsparse.experiments.summary import Row, rows
from howsparse.files import write_whole
from howsparse.paper.numbers import paper_tasks
from howsparse.records import AnswerRecord, CaseRecord, read_records

INTRODUCTION = """# Pruning methods, side by side

This page compares methods that train and prune a network. It is for readers who can train their network again. Made by
`python -m benchmarks.methods` from `results/methods.jsonl`. Each row is a method, and each column a sparsity. The
numbers are test accuracies in per cent, as mean and standard deviation over the seeds. If the sparsity is the word
"limit", it is computed for each seed from the network that the task trains densely with l1. *Trainings* and *epochs in
all* are the most that the method takes for one sparsity.

- **One-shot pruning after training with l1 (the paper's GOP) is about as good as the iterative methods at the limit
  that it computes, and needs one training instead of many.** On the digits MLP it has the highest accuracy of all
  methods that prune. Above its limit it loses accuracy abruptly, while methods that train after pruning lose it slowly.
  It is better than the dense network on the convnet and worse on the MLP. The test set has 360 images, so one image is
  0.28 points.
- **`limit_guided` reaches the accuracy of the lottery ticket with about half as many trainings**: on the convnet at
  every sparsity, on the MLP up to 95 %. At 98 % on the MLP its accuracy is lower.
- **With short trainings, FC5 does not give the paper's ranking.** Methods that train the sparse network are better than
  the dense network, which has not finished learning after so few epochs, and GOP is worse than these methods. The l1
  term moves a weight by learning rate times strength in each step. So a short training needs a large strength to reach
  this sparsity, and a large strength costs accuracy. With the paper's 200 epochs, GOP keeps almost all of its dense
  accuracy up to this sparsity ([fc5.md](fc5.md)). The lottery ticket's accuracy is low in the paper. Here, with
  rewinding to the initialisation, it is not low.
- **Rare Gems needs its l2 penalty** at high sparsity, as the paper says ([iteration.md](iteration.md)). The penalty
  acts in every step. The digits take about 2,400 steps, and the published settings 70,000, so the strength is larger
  here: 0.001.
- **`surgeon` does not train after pruning.** The other methods do, or train with l1 before. So most of them are better
  here. [repair.md](repair.md) shows what `surgeon`'s repairs do for networks that cannot be trained again.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, default=Path("results/methods.jsonl"))
    parser.add_argument("--whole", type=Path, default=Path("results/prune.jsonl"), help="one_shot at full length")
    parser.add_argument("--table", type=Path, default=Path("docs/methods.md"))
    options = parser.parse_args()
    records = read_records(CaseRecord, ("method",), options.record)
    whole = read_records(AnswerRecord, ("prune",), options.whole)
    write_whole(options.table, lambda file: file.write_text(page(records, whole)))
    print(options.table.read_text())


def page(records: list[CaseRecord], whole: list[AnswerRecord]) -> str:
    """One table for each task and recipe; then `howsparse prune` of networks trained at full length."""
    groups: dict[tuple[str, str], list[CaseRecord]] = {}
    for record in records:
        groups.setdefault((record.key.problem, record.key.settings_hash), []).append(record)
    full = ["## One-shot after the recipe's full training", "", *(line for record in whole for line in pruned(record))]
    return "\n".join([INTRODUCTION, *(section(task, group) for (task, _), group in groups.items()), *full])


def pruned(record: AnswerRecord) -> list[str]:
    """What `howsparse prune` recorded of a network."""
    answer = record.answer
    accuracies = f"{100 * answer['pruned_accuracy']:.2f} % (dense {100 * answer['dense_accuracy']:.2f} %)"
    what = f"{record.model}, seed {record.seed}: {accuracies} at sparsity {100 * answer['pruned_sparsity']:.1f} %"
    return [what, "", "```", record.made.command, "```", ""]


def section(task: str, records: list[CaseRecord]) -> str:
    """Heading, table and commands of one comparison."""
    used, found = records[0].settings, rows(records)
    targets = list(dict.fromkeys(row.target for row in found if row.method != "dense"))
    seeds = len({record.key.seed for record in records})
    paper = paper_accuracy(task)
    heads = ["method", *(head(target, found) for target in targets), "trainings", "epochs in all"]
    lines = [
        f"## {task}, {used['epochs']} epochs a training, {seeds} seed(s), l1 {used['l1']:g} for one_shot",
        "",
        "| " + " | ".join(heads + ["the paper"] * bool(paper)) + " |",
        "|---" * (len(heads) + bool(paper)) + "|",
    ]
    for method in dict.fromkeys(row.method for row in found):
        own = {row.target: row for row in found if row.method == method}
        cells = [cell(own.get(0.0 if method == "dense" else target)) for target in targets]
        cells += [most(row.trainings for row in own.values()), most(row.epochs for row in own.values())]
        known = method if method in paper else method.partition(":fraction=")[0]
        cells += [f"paper: {paper[known]}" if known in paper else ""] * bool(paper)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    reasons = {row.method: row.refused for row in found if row.refused is not None}
    lines += ["", *(f"- {reason}" for reason in reasons.values())]
    commands = dict.fromkeys(record.made.command for record in records)
    return "\n".join([*lines, "", "```", *commands, "```", ""])


def paper_accuracy(task: str) -> dict[str, str]:
    """What the paper prints of each method on this task; nothing for a task that is not the paper's."""
    paper = paper_tasks().get(task)
    return {} if paper is None else paper.accuracy.model_dump()


def head(target: float | str, found: list[Row]) -> str:
    """Head of a sparsity's column; of a word, with the mean sparsity that was reached."""
    if not isinstance(target, str):
        return f"{100 * target:g} %"
    reached = [row.sparsity for row in found if row.target == target and row.sparsity is not None]
    return f"{target}, {100 * sum(reached) / len(reached):.1f} %"


def cell(row: Row | None) -> str:
    """Accuracy in per cent, with its deviation."""
    if row is None or row.accuracy is None:
        return "-"
    spread = row.accuracy_deviation
    return f"{100 * row.accuracy:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def most(counts: Iterable[float | None]) -> str:
    """The largest of the counts that are known."""
    known = [count for count in counts if count is not None]
    return f"{max(known):.0f}" if known else "-"


if __name__ == "__main__":
    main()
