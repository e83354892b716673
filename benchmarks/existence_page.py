"""docs/table-1.md from the records of `benchmarks.existence`."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from howsparse.paper.numbers import paper_tasks

__all__ = ["page"]

Line = dict[str, Any]
PAPER = paper_tasks()["fc5-cifar10"].bounds

INTRODUCTION = """# Table 1: the distance of the two bounds

The paper's Table 1 gives the difference of its two bounds, (1 - T) - (1 - U), in points of sparsity: {paper} for FC5.
This page computes it again, with more products than a limit spends. It is for readers who want to know why the number
here differs from the paper's. Eq. 19 can be read in two ways, and both are computed:

- **block**: U(p) - p at p = T, from the spectrum of the block of the Hessian that belongs to the removed weights
  (`geometry.existence_density`). This is what the text says.
- **tail**: the same sum over the smallest eigenvalues of the whole Hessian, as many as there are removed weights
  (`paper.existence.tail_density`). It needs no products beyond those for T.

All numbers are points of sparsity. An *interval* holds all values that are possible with these products, for the probe
that was drawn. It does not cover the chance of the probe (for FC5, five probes show it). "Gauss, 128 steps" is how the
paper computes spectra. "Exact" values come from dense Hessians in float64. On digits, both sums are taken at the middle
of T's bracket.

Made by `python -m benchmarks.existence`; the records with command, commit, machine and notes are in
`results/existence.jsonl`, that of FC5's training in `results/train_table1.jsonl`.
"""


def page(lines: Iterable[Line]) -> str:
    """The page in docs."""
    networks: dict[str, dict[str, Line]] = {}
    for line in lines:
        networks.setdefault(line["network"], {})[line["part"]] = line
    large = {name: parts for name, parts in networks.items() if "exact" not in parts and name == "fc5"}
    small = {name: parts for name, parts in networks.items() if "exact" in parts}
    text = [INTRODUCTION.format(paper=PAPER)]
    text += [fc5(parts) for parts in large.values() if "whole" in parts]
    if small:
        text += [exact(small)]
    return "\n".join(text)


def fc5(parts: dict[str, Line]) -> str:
    """The section on FC5: a row for each reading."""
    whole = parts["whole"]
    rows = [
        row("tail", line["tail_low"], line["tail_high"], [line["tail_by_steps"]["128"]], line["steps"])
        for name, line in parts.items()
        if name.startswith("whole")
    ]
    last = [line for name, line in parts.items() if name.startswith("whole")][-1]
    gauss = [line["by_gauss"] for name, line in parts.items() if name == "block" or name.startswith("probe")]
    for block in reversed([line for name, line in parts.items() if name.startswith("block")]):
        ends = block["existence_low"], block["existence_high"]
        rows.insert(0, row("block", *ends, gauss, block["steps"], block["trivial"]))
    by_steps = ", ".join(f"{points(value)} at {steps}" for steps, value in last["tail_at_own_limit"].items())
    return "\n".join(
        [
            "## FC5",
            "",
            f"FC5 was trained as in the paper, with seed 0. The Hessian is over {whole['images']:,} training images,"
            f" and the tolerance, {whole['tolerance']:.4f}, is that of all training images. {whole['zero_rows']:,} of"
            f" {whole['num_weights']:,} rows are exactly zero. After {last['steps']} steps, 1 - T is between"
            f" {points(last['limit_low'])} and {points(last['limit_high'])}. The block is computed at p ="
            f" {points(whole['density'])} %, the middle of T's bracket after {whole['steps']} steps. A larger p makes"
            " U(p) - p smaller. The tail's interval covers every T in its bracket.",
            "",
            "| reading | steps | interval | Gauss, 128 steps | paper |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"If T and the tail both come from the same Gauss rule, the tail is {by_steps} steps.",
            "",
            *smears(parts),
            *conclusion(parts),
            *dimensions(parts),
        ]
    )


def row(
    reading: str,
    low: float,
    high: float,
    gauss: list[float],
    steps: int,
    trivial: bool = False,
) -> str:
    """A row of FC5's table."""
    interval = f"{points(low)} to {points(high)}" + (" (T itself)" if trivial else "")
    values = ", ".join(points(value) for value in gauss)
    return f"| {reading} | {steps} | {interval} | {values} | {PAPER} |"


def smears(parts: dict[str, Line]) -> list[str]:
    """The tail with the authors' smearing, which makes it random."""
    if "smeared" not in parts:
        return []
    said = []
    for kernel, values in parts["smeared"]["tails"].items():
        ends = f"{points(min(values))} to {points(max(values))}"
        said.append(f"{float(kernel):g} bins wide, {points(float(np.mean(values)))} ({ends})")
    return [
        "The authors' code does not compute U, but it smears the spectrum ([authors.md](authors.md)). The tail of the"
        " smeared Gauss rule of 128 steps depends on the kernel; these are the mean and the range over small shifts of"
        f" the bins: {'; '.join(said)}.",
        "",
    ]


def conclusion(parts: dict[str, Line]) -> list[str]:
    """Which reading the paper's value agrees with."""
    value, error = (float(number) / 100 for number in PAPER.split(" ± "))
    last = [line for name, line in parts.items() if name.startswith("whole")][-1]
    intervals = {"the tail of the whole spectrum": (last["tail_low"], last["tail_high"])}
    blocks = [line for name, line in parts.items() if name.startswith("block")]
    if blocks:
        block = blocks[-1]
        intervals["the block of removed weights"] = (block["existence_low"], block["existence_high"])
    said, excluded = [], 0
    for reading, (low, high) in intervals.items():
        excluded += low > value + error or high < value - error
        if low > value + error:
            verdict = "**does not give the paper's value**: it is at least"
            said.append(f"- *{reading}* {verdict} {points(low)}.")
        elif high < value - error:
            said.append(f"- *{reading}* **does not give the paper's value**: it is at most {points(high)}.")
        else:
            ends = f"{points(low)} to {points(high)}"
            said.append(f"- *{reading}*: these products do not exclude the paper's value; the interval is {ends}.")
    if excluded == len(intervals):
        said += ["", f"So **no reading tried here gives the paper's {PAPER}**.{by_chance(parts, value, error)}"]
    return ["What this says of the paper's value:", "", *said, ""]


def by_chance(parts: dict[str, Line], value: float, error: float) -> str:
    """How often the smeared tail comes near the paper's value."""
    if "smeared" not in parts:
        return ""
    counts = {
        kernel: sum(abs(tail - value) <= error for tail in tails) for kernel, tails in parts["smeared"]["tails"].items()
    }
    total = sum(len(tails) for tails in parts["smeared"]["tails"].values())
    return f" The smeared tail is within its error for {sum(counts.values())} of {total} shifts and kernels, by chance."


def dimensions(parts: dict[str, Line]) -> list[str]:
    """The block's effective dimension at a few densities, for U(p) = p."""
    found = [line for name, line in parts.items() if name.startswith("dimensions")]
    if not found:
        return []
    return [
        "U(p) = p holds to within one dimension if D (U(p) - p) is at most 1. At densities larger than T it is:",
        "",
        "| density p | D (U(p) - p) |",
        "|---|---|",
        *(
            f"| {line['density']:g} | {line['dimensions_low']:,.1f} to {line['dimensions_high']:,.1f} |"
            for line in found
        ),
        "",
    ]


def exact(networks: dict[str, dict[str, Line]]) -> str:
    """The section on networks whose spectra are exact."""
    head = [
        "| network | 1 - T, exact | T | block, exact | block, interval | block, Gauss, 128 steps | tail, exact |"
        " tail, interval | tail, Gauss, 128 steps | exact, as shares of T: block, tail |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines, solved = [], []
    for name, parts in networks.items():
        true, whole, block = parts["exact"], parts["whole"], parts["block"]
        gauss = [line["by_gauss"] for key, line in parts.items() if key == "block" or key.startswith("probe")]
        density = whole["density"]
        lines.append(
            f"| {name} | {points(true['limit'])} | {points(1 - true['limit'])} | {points(true['existence'])} |"
            f" {points(block['existence_low'])} to {points(block['existence_high'])}"
            f"{' (T itself)' if block['trivial'] else ''} |"
            f" {points(float(np.mean(gauss)))} ± {points(float(np.std(gauss, ddof=1)))} | {points(true['tail'])} |"
            f" {points(whole['tail_low'])} to {points(whole['tail_high'])} | {points(whole['tail_by_steps']['128'])} |"
            f" {true['existence'] / density:.2f}, {true['tail'] / density:.2f} |"
        )
        if "fixed_point" in true:
            solved.append(
                f"| {name} | {true['zero_rows'] / whole['num_weights']:.3f} | {100 * true['fixed_point']:.2f} |"
                f" {100 * true['fixed_point_one_dimension']:.2f} | {points(true['limit'])} |"
            )
    return "\n".join(
        [
            "## Digits, where the spectra are exact",
            "",
            "The networks have the sizes 64-64-32-10. In small networks the chance of the probe matters more. So an"
            " exact value can lie outside an interval, which is for the probe that was drawn. The last column has the"
            " exact values of both readings, divided by T.",
            "",
            *head,
            *lines,
            "",
            "### U(p) = p on these networks",
            "",
            "The paper asks for U(p) = p. The table has the largest sparsity at which this holds exactly, and the"
            " largest at which it holds to within one dimension, by bisection with exact spectra of the blocks. There"
            " are solutions below p = 1 because of dead units: the smallest weights belong to them, up to the first"
            " weight of a unit that is not dead.",
            "",
            "| network | rows that are exactly zero, share | sparsity, U(p) = p | to within one dimension | 1 - T |",
            "|---|---|---|---|---|",
            *solved,
            "",
        ]
    )


def points(share: float) -> str:
    """A fraction in points."""
    return f"{100 * share:.2f}"
