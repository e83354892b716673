"""Why magnitude pruning takes rounds, and what l2 does to Rare Gems: the limit beside the share that each step keeps.

    python -m benchmarks.iteration TASK [--data D] [--epochs E] [--sparsity 0.95] [--images N] [--max-products 96]
        [--seed 0] [--record results/iteration.jsonl] [--table docs/iteration.md]

The paper's Figure 4. The limit of the current network says which share of its remaining weights must stay; the share
that does stay is written beside it. Limits are computed after each training of the lottery ticket, and before each
freeze of Rare Gems, with and without l2.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from benchmarks.commands import own_command
from howsparse.files import write_whole
from howsparse.limit.options import LimitOptions
from howsparse.methods import Run, Stage
from howsparse.methods.limits import limit_of
from howsparse.methods.lottery_ticket import lottery_ticket
from howsparse.methods.rare_gems import rare_gems
from howsparse.problem import Problem
from howsparse.pruning.masks import Mask
from howsparse.records import IterationRecord, IterationStep, append_record, provenance, read_records
from howsparse.tasks import load_task

Result = tuple[list[IterationStep], float | None]

INTRODUCTION = """# The limit along iterative pruning

This page computes the limit again and again while a method prunes a network in steps, as in the paper's Figure 4. It is
for readers who prune in rounds. Made by `python -m benchmarks.iteration`; the commands are in the records,
`results/iteration.jsonl`. Each row is a step. *Density* is the share of all weights that are left before it. The other
columns are shares of these weights: *must stay* is the share that must be kept by the limit (T at its fixed point, with
its bracket), and *stays* is the share that the method keeps in this step.

- **Why magnitude pruning takes several rounds** (Figure 4, top). The share that must stay rises from round to round, at
  least until few weights are left: after each round of pruning and training, the network can lose a smaller part of its
  weights. In no round does the limit allow the final density at once. But the first rounds could remove much more than
  20 %, and the method `limit_guided` does this.
- **What l2 does to Rare Gems** (Figure 4, bottom). On the digits MLP, at densities above 0.2, a smaller share of the
  active weights must stay with l2 than without it. The final network is better with l2. In each step (a freeze), the
  method keeps more weights than must stay, with l2 and without it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--data", default=None)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--sparsity", type=float, default=0.95)
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--max-products", type=int, default=96)
    parser.add_argument("--l2", type=float, default=1e-5, help="of Rare Gems, beside none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/iteration"))
    parser.add_argument("--record", type=Path, default=Path("results/iteration.jsonl"))
    parser.add_argument("--table", type=Path, default=Path("docs/iteration.md"))
    options = parser.parse_args()
    changes = {} if options.epochs is None else {"epochs": options.epochs}
    problem = load_task(options.task, options.data, **changes)
    run = Run(options.folder, options.images, LimitOptions(max_products=options.max_products))
    target, seed, l2 = options.sparsity, options.seed, options.l2
    ways: dict[str, Callable[[], Result]] = {
        "lottery_ticket": lambda: ticket_steps(problem, target, seed, run),
        "rare_gems without l2": lambda: gem_steps(problem, target, seed, run, 0.0),
        f"rare_gems with l2 {l2:g}": lambda: gem_steps(problem, target, seed, run, l2),
    }
    for method, steps_of in ways.items():
        steps, accuracy = steps_of()
        record = IterationRecord(
            made=provenance(own_command("benchmarks.iteration")),
            problem=problem.name,
            epochs=problem.epochs,
            seed=seed,
            examples=options.images,
            target=target,
            method=method,
            steps=steps,
            accuracy=accuracy,
        )
        append_record(record, options.record)
    records = read_records(IterationRecord, ("iteration",), options.record)
    write_whole(options.table, lambda file: file.write_text(page(records)))
    print(options.table.read_text())


def ticket_steps(problem: Problem, sparsity: float, seed: int, run: Run) -> Result:
    """After each round's training: what is left, what must stay of it, what does stay of it."""
    steps: list[IterationStep] = []

    def watch(stage: Stage, model: nn.Module, mask: Mask) -> None:
        steps.append(step(problem, model, mask, seed, run, max(0.8, (1 - sparsity) / mask.density)))

    ticket = lottery_ticket(problem, sparsity, seed, replace(run, on_stage=watch))
    return steps[:-1], ticket.accuracy


def gem_steps(problem: Problem, sparsity: float, seed: int, run: Run, l2: float) -> Result:
    """Before each freeze: what is active, what must stay of it, what does stay of it."""
    steps: list[IterationStep] = []

    def watch(model: nn.Module, active: Mask, share: float) -> None:
        steps.append(step(problem, model, active, seed, run, share))

    # A search that is found in a folder is not done again, so nothing could be watched: no folder here.
    ticket = rare_gems(problem, sparsity, seed, Run(), l2=l2, on_freeze=watch)
    return steps, ticket.accuracy


def step(problem: Problem, model: nn.Module, mask: Mask, seed: int, run: Run, stays: float) -> IterationStep:
    """The limit of the weights that are left, beside the share that stays."""
    limit = limit_of(problem, model, mask, seed, run)
    low, high = limit.bracket
    return IterationStep(
        density=mask.density, needed=1 - limit.errors.middle, needed_low=1 - high, needed_high=1 - low, stays=stays
    )


def page(records: list[IterationRecord]) -> str:
    """The page in docs."""
    lines = [INTRODUCTION]
    for record in records:
        taken = f"{record.problem}, {record.epochs} epochs a training, seed {record.seed}"
        accuracy = "-" if record.accuracy is None else f"{100 * record.accuracy:.2f}"
        lines += ["", f"## {record.method}: {taken}", ""]
        lines += [f"Test accuracy in the end: {accuracy} %, at sparsity {record.target}.", ""]
        lines += ["| density | must stay, % | stays, % |", "|---|---|---|"]
        lines += [row(step) for step in record.steps]
    return "\n".join(lines) + "\n"


def row(step: IterationStep) -> str:
    """A step's line of the table."""
    low, high = 100 * step.needed_low, 100 * step.needed_high
    return f"| {step.density:.4f} | {100 * step.needed:.1f} [{low:.1f}, {high:.1f}] | {100 * step.stays:.1f} |"


if __name__ == "__main__":
    main()
