"""Why magnitude pruning takes rounds, and what l2 does to Rare Gems: the limit beside what each step removes.

    python -m benchmarks.iteration TASK [--data D] [--epochs E] [--sparsity 0.95] [--images N] [--max-products 96]
        [--seed 0] [--record results/iteration.jsonl] [--table docs/iteration.md]

The paper's Figure 4. After each training of the lottery ticket's rounds, and before each freeze of Rare Gems with and
without l2, the limit of the network at hand says which share of its remaining weights must stay; beside it stands the
share that does stay.
"""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from howsparse.files import write_whole
from howsparse.methods import Run, Stage
from howsparse.methods.lottery_ticket import lottery_ticket
from howsparse.methods.rare_gems import rare_gems
from howsparse.methods.stages import network_limits
from howsparse.pruning.masks import Mask
from howsparse.records import append_record, provenance, read_records
from howsparse.tasks import Task, load_task

Step = dict[str, float]

INTRODUCTION = """# The limit along iterative pruning

Made by `python -m benchmarks.iteration` (the commands are in the records, `results/iteration.jsonl`). *Must stay*: the
share of the weights that are left which the limit says must be kept, T at its fixed point, with its bracket. *Stays*:
the share that the method keeps in the step that follows.

- **Why magnitude pruning takes rounds** (the paper's Figure 4, top). The share that must stay rises round by round, at
  least until few weights are left: a network that was pruned and trained again has less to spare, relative to what it
  has left. No round's limit reaches the final density at once; but the first rounds could go much further than 20 %,
  which is what `limit_guided` does.
- **What l2 does to Rare Gems** (Figure 4, bottom). On the digits MLP, fewer of the active weights must stay with it
  than without, at every density, and the network that is found is better. A single freeze leaves more than must stay in
  either case."""


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
    task = load_task(options.task, options.data)
    task = task if options.epochs is None else task.with_recipe(epochs=options.epochs)
    run = Run(options.folder, options.images, options.max_products)
    about = {"kind": "iteration", "task": task.recipe.name, "epochs": task.recipe.epochs, "seed": options.seed}
    about |= {"images": options.images, "target": options.sparsity, "recipe_hash": task.recipe.digest()}
    ways: dict[str, Callable[[], tuple[list[Step], float]]] = {
        "lottery_ticket": lambda: ticket_steps(task, options.sparsity, options.seed, run),
        "rare_gems without l2": lambda: gem_steps(task, options.sparsity, options.seed, run, 0.0),
        f"rare_gems with l2 {options.l2:g}": lambda: gem_steps(task, options.sparsity, options.seed, run, options.l2),
    }
    for method, steps_of in ways.items():
        steps, accuracy = steps_of()
        record = about | {"method": method, "steps": steps, "accuracy": accuracy}
        command = shlex.join(["python", "-m", "benchmarks.iteration", *sys.argv[1:]])
        append_record(record | provenance() | {"command": command}, options.record)
    write_whole(options.table, lambda file: file.write_text(page(read_records(options.record))))
    print(options.table.read_text())


def ticket_steps(task: Task, sparsity: float, seed: int, run: Run) -> tuple[list[Step], float]:
    """After each round's training: what is left, what must stay of it, what does stay of it."""
    steps: list[Step] = []

    def watch(stage: Stage, model: nn.Module, mask: Mask) -> None:
        steps.append(step(task, model, mask, seed, run, max(0.8, (1 - sparsity) / mask.density)))

    watched = Run(run.folder, run.images, run.max_products, on_stage=watch)
    ticket = lottery_ticket(task, sparsity, seed, watched)
    return steps[:-1], ticket.accuracy


def gem_steps(task: Task, sparsity: float, seed: int, run: Run, l2: float) -> tuple[list[Step], float]:
    """Before each freeze: what is active, what must stay of it, what does stay of it."""
    steps: list[Step] = []

    def watch(model: nn.Module, active: Mask, share: float) -> None:
        steps.append(step(task, model, active, seed, run, share))

    ticket = rare_gems(
        task, sparsity, seed, Run(), l2=l2, on_freeze=watch
    )  # a search that is kept is not watched again
    return steps, ticket.accuracy


def step(task: Task, model: nn.Module, mask: Mask, seed: int, run: Run, stays: float) -> Step:
    limits = network_limits(task, model, mask, seed, run)
    return {
        "density": mask.density,
        "needed": 1 - limits.limit,
        "needed_low": 1 - limits.high,
        "needed_high": 1 - limits.low,
        "stays": stays,
    }


def page(records: list[dict[str, Any]]) -> str:
    """The page in docs."""
    lines = [INTRODUCTION]
    for record in records:
        taken = f"{record['task']}, {record['epochs']} epochs a training, seed {record['seed']}"
        lines += ["", f"## {record['method']}: {taken}", ""]
        lines += [f"Test accuracy in the end: {100 * record['accuracy']:.2f} %, at sparsity {record['target']}.", ""]
        lines += ["| density | must stay, % | stays, % |", "|---|---|---|"]
        lines += [row(step) for step in record["steps"]]
    return "\n".join(lines) + "\n"


def row(step: Step) -> str:
    low, high = 100 * step["needed_low"], 100 * step["needed_high"]
    return f"| {step['density']:.4f} | {100 * step['needed']:.1f} [{low:.1f}, {high:.1f}] | {100 * step['stays']:.1f} |"


if __name__ == "__main__":
    main()
