"""The page docs/recovery.md, from the records of `benchmarks.recovery`."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from howsparse.limit.bracket import RESOLVED_WIDTH

__all__ = ["page"]

Line = dict[str, Any]
VARIANTS = {
    "R": "ball of radius R, as recoverable",
    "2R": "ball of radius 2 R",
    "mu": "shift mu",
    "mu/10": "shift mu / 10",
}
PREDICTORS: dict[str, tuple[str, Callable[[Line], float]]] = {
    "measured": ("measured now", lambda line: float(line["measured"])),
    "predicted": ("predicted now, GGN", lambda line: float(line["predicted"])),
    "limit": ("limit, middle of the bracket", lambda line: sum(line["limit"]) / 2),
    "directional": ("directional limit, middle", lambda line: sum(line.get("directional", (math.nan,) * 2)) / 2),
    "recoverable": ("recoverable, middle", lambda line: sum(line["recoverable"]) / 2),
    **{
        name: (words, lambda line, name=name: crossing(line, name))  # type: ignore[misc]
        for name, words in VARIANTS.items()
    },
}


def crossing(line: Line, variant: str) -> float:
    """The middle of the two sparsities at which the bounds on the loss after adapting meet the tolerance."""
    return (met(line, variant, 0) + met(line, variant, 1)) / 2


def met(line: Line, variant: str, side: int) -> float:
    """Where one bound meets the tolerance, between masks of the grid: interpolated in the logarithm of the density."""
    at, before = float(line["predicted"]), 1.0
    for mask in line["variants"]:
        now = mask[variant][side]
        if now > 1.0:
            part = (1.0 - before) / (now - before) if now > before else 0.0
            return 1 - math.exp((1 - part) * math.log(1 - at) + part * math.log(1 - mask["sparsity"]))
        at, before = mask["sparsity"], now
    return at


def page(lines: list[Line]) -> str:
    """The page: one table by training, one of errors, one of losses, and how it was done."""
    networks = [with_directional(line, lines) for line in lines if line["kind"] == "recovery"]
    tasks = list(dict.fromkeys(line["task"] for line in networks))
    networks.sort(key=lambda line: tasks.index(line["task"]))
    answered = [line for line in networks if resolved(line)]
    directional = sum("directional" in line for line in networks)
    parts = (
        introduction(len(networks), directional, networks[0]["budgets"]),
        verdict(answered, networks),
        by_training(networks),
    )
    return "\n".join(line for part in (*parts, errors(answered), losses(networks)) for line in part).rstrip() + "\n"


def resolved(line: Line) -> bool:
    """Whether the bracket of the recoverable sparsity is narrow enough to be an answer."""
    low, high = line["recoverable"]
    return bool(high - low <= RESOLVED_WIDTH)


def with_directional(line: Line, lines: list[Line]) -> Line:
    """The network's record with its directional limit, if that is recorded."""
    same = ("task", "l1", "weight_decay", "seed")
    found = [other for other in lines if other["kind"] == "recovery-directional"]
    known = [other for other in found if all(other[name] == line[name] for name in same)]
    return line | {name: known[-1][name] for name in ("directional", "variants") if known and name in known[-1]}


def introduction(count: int, directional: int, budgets: list[int]) -> list[str]:
    return f"""# Does retraining recover what is predicted?

This page compares predictions with real retraining. It is for readers who think about retraining after pruning and want
to know how far it will reach. Made by `python -m benchmarks.recovery --page` from `results/recovery.jsonl`, which has a
line for each of {count} networks.

All numbers are sparsities of the global magnitude mask at which the *training* loss is at most that of the dense
network plus the default tolerance.

- *measured now*: without retraining.
- *retrained, {budgets[0]}* and *{budgets[1]}*: the kept weights are trained again, with all biases, on the same
  examples, without l1 and with the mask held. The networks on digits get this number of iterations of L-BFGS over all
  examples (the statistics of BatchNorm stay). FC5 and ResNet20 get this number of steps of SGD (batches of 128,
  momentum 0.9, learning rate from 0.01 to 0). The largest sparsity is found by bisection.
- *recoverable*: `howsparse.recoverable`, computed without training. It is the loss of the local model after the kept
  weights have moved at most as far as the removed ones did (R).
- *predicted now*, *limit* and *directional limit*: see [Theory](theory.md), which has all formulas.

The radius R was fixed after a look at three of these networks (seed 0: digits with l1 0.001 and with neither, the
convnet with l1 0.0001), before the others were retrained. The table of errors also has other choices: a ball of twice
the radius, and instead of a ball fixed shifts of mu = 2 tolerance / R² and of a tenth of it. Limits and directional
limits are from few products, so some of their brackets are wide, and the table of errors takes the middle. It leaves
out networks whose bracket of *recoverable* is wider than {RESOLVED_WIDTH:g}. The directional limit was computed for
{directional} networks.

""".splitlines()


def verdict(networks: list[Line], all_networks: list[Line]) -> list[str]:
    """What the tables say, in words, of the networks with an answer; and of the larger ones in any case."""
    few, many = networks[0]["budgets"]

    def gaps(name: str, budget: int, of: list[Line]) -> tuple[float, float]:
        """Mean size of the errors and the worst error, in points."""
        found = np.array([100 * (PREDICTORS[name][1](line) - line["reached"][budget]) for line in of])
        return float(np.abs(found).mean()), float(found[np.abs(found).argmax()])

    mean, worst = gaps("recoverable", 1, networks)
    now = [gaps(name, 1, networks)[0] for name in ("limit", "predicted", "measured")]
    weak = gaps("recoverable", 0, [line for line in networks if not strong(line)])
    strongly = gaps("recoverable", 0, [line for line in networks if strong(line)])
    sizes = [gaps(name, 1, networks)[0] for name in VARIANTS]
    return f"""## What it shows

- **Recoverable predicts best.** On average over the networks, it differs by {mean:.1f} points from what {many}
  iterations reach; the worst difference is {worst:+.1f} points. The middle of the limit differs by {now[0]:.0f} points.
  What is predicted or measured without retraining differs by {now[1]:.0f} and {now[2]:.0f} points.
- **It is wrong for short retraining.** After {few} iterations, it differs by {weak[0]:.0f} points on average for
  networks with little or no l1, at worst by {weak[1]:+.0f} points. The weights must then move along directions of
  little curvature, which takes many iterations. With l1 of 3e-4 and more the difference is {strongly[0]:.1f} points.
- **The size of the trust region matters little**: the four choices have mean errors of {min(sizes):.1f} to
  {max(sizes):.1f} points after {many} iterations. R was fixed before, and it is kept even if another choice is closer.
- **The loss itself is not predicted well.** Retraining fits the examples nearly perfectly, and the local model predicts
  a higher loss.
{larger(all_networks)}- All of this is about the training loss. It says nothing about unseen data.

""".splitlines()


def larger(networks: list[Line]) -> str:
    """What there is about the larger networks."""
    text = ""
    for line in (line for line in networks if line["task"] == "fc5-cifar10"):
        text += f"- On FC5 ({line['examples']:,} images), *recoverable* is higher than what"
        text += f" {line['budgets'][1]} steps of SGD reach.\n  A Gauss-Newton matrix of few images has"
        text += " curvature in few directions, so it predicts too small a loss.\n"
    for line in (line for line in networks if line["task"] == "resnet20"):
        low, high = line["recoverable"]
        text += f"- On ResNet20 ({line['examples']:,} images), {line['recoverable_products']} products give no answer:"
        text += f" the bracket is {low:.2f} to {high:.2f}.\n  So it is not in the table of errors."
        text += f" {line['budgets'][1]} steps of SGD reach {line['reached'][1]:.2f}, which is below the bracket.\n"
    return text


def strong(line: Line) -> bool:
    """Whether the network was trained with enough l1 for its weights to be sparse."""
    return bool(line["l1"] >= 3e-4 or line["task"] == "fc5-cifar10")


def by_training(networks: list[Line]) -> list[str]:
    """Means over the seeds."""
    budgets = networks[0]["budgets"]
    head = ["network", "training", "networks", *(f"retrained, {budget}" for budget in budgets), "recoverable"]
    head += ["measured now", "predicted now", "limit", "directional limit"]
    lines = ["## By training", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for key in dict.fromkeys((n["task"], n["l1"], n["weight_decay"]) for n in networks):
        same = [n for n in networks if (n["task"], n["l1"], n["weight_decay"]) == key]
        how = f"l1 {key[1]:g}" if key[1] else f"weight decay {key[2]:g}" if key[2] else "neither"
        cells = [f"{np.mean([n['reached'][i] for n in same]):.3f}" for i in range(len(budgets))]
        cells += [span(same, "recoverable"), *(f"{mean(same, name):.3f}" for name in ("measured", "predicted"))]
        cells += [span(same, "limit"), span(same, "directional")]
        lines.append(f"| {key[0]} | {how} | {len(same)} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def mean(networks: list[Line], name: str) -> float:
    return float(np.mean([PREDICTORS[name][1](network) for network in networks]))


def span(networks: list[Line], name: str) -> str:
    """The mean of both ends of a bracket."""
    known = [network[name] for network in networks if name in network]
    if not known:
        return "-"
    low, high = np.mean(known, axis=0)
    return f"{low:.3f} to {high:.3f}"


def errors(networks: list[Line]) -> list[str]:
    """Mean and worst error of each predictor against retraining, for each budget and each kind of training."""
    kinds: dict[str, Callable[[Line], bool]] = {
        "all": lambda n: True,
        "l1 of 3e-4 and more, FC5": strong,
        "less or none": lambda n: not strong(n),
    }
    budgets = networks[0]["budgets"]
    titles = [f"{kind}; {budget}" for kind in kinds for budget in budgets]
    lines = [
        "## Errors against retraining",
        "",
        "A cell has the mean size of the error, the worst error in brackets, and the mean error with its sign, in",
        "points of sparsity. Plus means higher than what retraining reached. The heads of the columns name the",
        "training of the networks and the number of iterations of retraining.",
        "",
        "| predictor | " + " | ".join(titles) + " |",
        "|---" * (1 + len(titles)) + "|",
    ]
    for name, (words, _) in PREDICTORS.items():
        cells = [error(list(filter(keep, networks)), name, i) for keep in kinds.values() for i in range(len(budgets))]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def error(networks: list[Line], name: str, budget: int) -> str:
    gaps = np.array([100 * (PREDICTORS[name][1](n) - n["reached"][budget]) for n in networks])
    gaps = gaps[np.isfinite(gaps)]
    if not gaps.size:
        return "-"
    worst = gaps[np.abs(gaps).argmax()]
    return f"{np.abs(gaps).mean():.1f} ({worst:+.1f}); {gaps.mean():+.1f}"


def losses(networks: list[Line]) -> list[str]:
    """The loss predicted after adapting against the loss reached, at the fixed sparsities."""
    budgets = networks[0]["budgets"]
    lines = [
        "## Losses",
        "",
        "This table has the rise of the loss, divided by the tolerance, as the median over the networks: predicted",
        "before the kept weights adapt, predicted after it (lower and upper bound), and reached by retraining. A",
        "minus means that the loss is below that of the dense network.",
        "",
        "| network | sparsity | predicted now | after adapting | "
        + " | ".join(f"retrained, {b}" for b in budgets)
        + " |",
        "|---" * (4 + len(budgets)) + "|",
    ]
    for task in dict.fromkeys(n["task"] for n in networks):
        same = [n for n in networks if n["task"] == task]
        for at, fixed in enumerate(same[0]["fixed"]):
            rows = [[n["fixed"][at][name] / n["tolerance"] for name in ("now", "low", "high")] for n in same]
            reached = [[(each - n["loss"]) / n["tolerance"] for each in n["fixed"][at]["reached"]] for n in same]
            now, low, high = np.median(rows, axis=0)
            cells = [f"{now:.1f}", f"{low:.1f} to {high:.1f}", *(f"{each:.1f}" for each in np.median(reached, axis=0))]
            lines.append(f"| {task} | {fixed['sparsity']:g} | " + " | ".join(cells) + " |")
    return [*lines, ""]
