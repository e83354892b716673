"""docs/authors.md from the records of `benchmarks.authors`."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from howsparse.paper.numbers import paper_tasks

__all__ = ["page"]

Line = dict[str, Any]
PAPER = paper_tasks()["fc5-cifar10"].limit

INTRODUCTION = """# What the authors' code computes

The published code of the paper's authors differs from the paper's text in several choices. This page computes the limit
of FC5, 1 - T, with each of these choices alone and with all together. It is for readers who want to reproduce the
paper's numbers. The network is trained as in the paper, with seed 0. The paper prints {paper}, the mean and the
deviation over five trainings.

- *text*: exactly what the paper's text says. The interval is the bracket of `pruning_limit`, from {steps} Lanczos
  steps.
- *Gauss*: 128 Lanczos steps from one Rademacher probe, and the Gauss rule. All rows below use it. The first number is
  from the probe of *text*, which leaves out the rows that are exactly zero; the others are from probes on all rows.
- *rounded*: R² is rounded to an integer before use. (A row with R rounded is there for comparison.)
- *smeared*: each eigenvalue becomes a Gaussian kernel, which is evaluated at 100,000 bins. The kernels in the code are
  much narrower than the distance between the bins, so several widths were tried, each with 20 small shifts of the bins.
- *augmented*: the batches of the Hessian, and those of the tolerance, are shuffled and randomly augmented. The Hessian
  then differs from one Lanczos step to the next.
- *zero rows*: the share z of zero rows is estimated from 100 sampled rows and added to the spectrum, although the
  spectrum has these zeros already. T becomes (1 - z) T. The authors do not do this for fully connected networks.

The Hessian is over {images:,} training images, not all 50,000, so the numbers differ from those of [fc5.md](fc5.md),
where all images are used. The last column shows by how many points each choice moves the answer. If a row has several
numbers, they are from several probes.

Made by `python -m benchmarks.authors`; the records with command, commit, machine, notes and all Lanczos coefficients
are in `results/authors.jsonl`.
"""


def page(lines: Iterable[Line]) -> str:
    """The page in docs."""
    parts = {line["part"]: line for line in lines}
    text = parts.get("text")
    plain = [line for name, line in parts.items() if name.startswith("plain")]
    augmented = [line for name, line in parts.items() if name.startswith("augmented")]
    if text:  # the first 128 steps of the text's run, whose probe leaves out the rows that are exactly zero
        plain = [text["answers"], *plain]
    if not plain:
        return ""
    images = next(iter(parts.values()))["images"]
    said = INTRODUCTION.format(paper=PAPER, images=images, steps=text["steps"] if text else "many")
    table = ["| what | 1 - T, % | moved by, points |", "|---|---|---|"]
    if text:
        table.append(f"| text | {percent(text['low'])} to {percent(text['high'])} |  |")
    base = [line["gauss"] for line in plain]
    of_augmented = base[len(base) - len(augmented) :]
    table += [
        row("Gauss", base, []),
        row("Gauss, on a grid of 1,000 sparsities", [line["grid"] for line in plain], base),
        row("Gauss + R² rounded", [line["square"] for line in plain], base),
        row("Gauss + R rounded", [line["radius"] for line in plain], base),
        *smeared_rows("Gauss + smeared", plain, "smeared", base),
        row("Gauss + tolerance from augmented batches", [line["tolerance"] for line in plain], base),
        row("Gauss + augmented Hessian", [line["gauss"] for line in augmented], of_augmented),
        row("Gauss + both augmented", [line["tolerance"] for line in augmented], of_augmented),
        row("Gauss + zero rows", [line["zeros"] for line in plain], base),
        *smeared_rows("all but zero rows", augmented, "all_but_zeros", of_augmented),
        *smeared_rows("all", augmented, "all", of_augmented),
        *([] if augmented else smeared_rows("all but the augmented Hessian", plain, "all", base)),
        f"| the paper | {PAPER} |  |",
    ]
    return "\n".join(
        [
            said,
            *table,
            "",
            "Numbers that belong to the rows:",
            "",
            *notes(parts),
            "",
            *conclusion(text, plain, augmented),
            "",
        ]
    )


def row(what: str, values: list[float], base: list[float]) -> str:
    """A row of numbers, one for each probe, and the mean of their differences to the base."""
    moved = ""
    if base and len(base) == len(values):
        moved = f"{100 * float(np.mean(np.array(values) - np.array(base))):+.2f}"
    return f"| {what} | {', '.join(percent(value) for value in values) or '-'} | {moved} |"


def smeared_rows(what: str, lines: list[Line], key: str, base: list[float]) -> list[str]:
    """For each width of the kernel, mean, deviation and range over probes and shifts of the bins."""
    if not lines:
        return []
    rows = []
    for kernel in lines[0][key]:
        values = np.array([value for line in lines for value in line[key][kernel]])
        moved = ""
        if len(base) == len(lines):
            differences = [np.mean(line[key][kernel]) - own for line, own in zip(lines, base, strict=True)]
            moved = f"{100 * float(np.mean(differences)):+.2f}"
        rows.append(
            f"| {what}, kernel {float(kernel):g} bins wide | {percent(values.mean())} ± {percent(values.std())},"
            f" from {percent(values.min())} to {percent(values.max())} | {moved} |"
        )
    return rows


def notes(parts: dict[str, Line]) -> list[str]:
    """Numbers that belong to the rows: tolerances, zero rows, and what one more step of Lanczos does."""
    said = []
    if "tolerance" in parts:
        line = parts["tolerance"]
        values = ", ".join(f"{value:.4f}" for value in line["augmented"])
        said.append(
            f"- The tolerance is {line['tolerance']:.4f} over plain images, and over augmented passes {values}."
        )
    if "rows" in parts:
        said.append(f"- Of 100 sampled rows, {100 * parts['rows']['zero_share']:.0f} have a norm below 1e-7.")
    if "text" in parts:
        text = parts["text"]
        by_steps = ", ".join(f"{percent(value)} at {steps}" for steps, value in text["by_steps"].items())
        share = text["zero_rows"] / text["num_weights"] if "num_weights" in text else None
        exactly = f" ({100 * share:.0f} %)" if share is not None else ""
        said.append(f"- {text['zero_rows']:,} rows are exactly zero{exactly}; R is {text['radius']:.2f} at the limit.")
        said.append(
            f"- The Gauss rule with other numbers of steps, without the rows that are exactly zero: {by_steps}."
        )
    return said


def conclusion(text: Line | None, plain: list[Line], augmented: list[Line]) -> list[str]:
    """Which of the rows agree with the paper's number."""
    value, error = (float(number) / 100 for number in PAPER.split(" ± "))

    def agrees(answer: float) -> bool:
        return abs(answer - value) <= error

    single = {
        "Gauss alone": [line["gauss"] for line in plain],
        "R² rounded": [line["square"] for line in plain],
        "the tolerance of augmented batches": [line["tolerance"] for line in plain],
        "the augmented Hessian": [line["gauss"] for line in augmented],
        "zero rows": [line["zeros"] for line in plain],
    }
    inside = [name for name, values in single.items() if values and all(agrees(each) for each in values)]
    outside = [name for name, values in single.items() if values and name not in inside]
    said = [f"Within {PAPER}: {', '.join(inside) or 'none'}. Not within: {', '.join(outside) or 'none'}."]
    for kernel in plain[0]["smeared"]:
        values = [each for line in plain for each in line["smeared"][kernel]]
        share = sum(agrees(each) for each in values)
        said.append(
            f"Smeared, kernel {float(kernel):g} bins wide: {share} of {len(values)} shifts of the bins are within."
        )
    if text:
        steps = text["by_steps"]
        share = sum(agrees(each) for each in steps.values())
        said.append(f"Gauss after other numbers of steps: {share} of {len(steps)} are within.")
        near = [steps[count] for count in ("127", "128", "129") if count in steps]
        swing = 100 * (max(near) - min(near))
        said.append(
            f"One step more or less moves the Gauss rule by up to {swing:.2f} points, so smaller moves have no meaning."
        )
    return ["Which of them gives the paper's number?", "", *(f"- {each}" for each in said)]


def percent(share: float) -> str:
    """A fraction in per cent."""
    return f"{100 * share:.2f}"
