"""The page that `benchmarks.negative_curvature` writes."""

import textwrap
from typing import Any

__all__ = ["page"]

Records = list[dict[str, Any]]

INTRODUCTION = """# Negative curvature, simulated

This page compares the formulas for negative curvature with simulated subspaces. It is for readers of [the
theory](theory.md#the-limit), which derives the formulas. Made by `python -m benchmarks.negative_curvature`; the records
are in `results/negative_curvature.jsonl`. The quadratic model $\\tfrac12 x'Hx$ has 300 eigenvalues: positive ones from
$10^{-4}$ to 10, and negative ones from $-10^{-3}$ to a strongest one. $R = 1$ and $\\mu = 0.01$. Random nested
subspaces go through the pruned point, which is at distance $R$ from the trained weights. On each subspace, the model is
minimised exactly, by an eigen-decomposition, within a ball of radius $\\rho$ around the trained weights.

A row of the tables is a setting: the share of *negative eigenvalues*, the *strongest* of them, and the radius of the
*ball*. The other columns are numbers of dimensions at which the least loss comes within the tolerance:

- *drawn*: in the simulation, as the mean with the deviation of a single draw;
- *directed*: by `geometry.trust_region_loss`, which takes the direction of the removed weights into account;
- *steep*: by `geometry.trust_region_density`, for removed weights in directions of large curvature;
- *raised*: by the same formula with the maximum over $\\tau \\ge -\\lambda_{\\min}$ only, which is the bound of the
  convex hull;
- *wall* and *unbounded*: by Eq. 18 with $|\\lambda|$ and with $\\lambda_+$.

What the tables show:
"""


def page(records: Records) -> str:
    """The page in docs."""
    main = [r for r in records if r["setting"]["size"] == 300]
    lines = [INTRODUCTION, *findings(main)]
    for direction, said in (
        ("steep", "Removed weights in the 15 steepest directions"),
        ("generic", "Removed weights in a random direction"),
    ):
        lines += [f"## {said}", "", *table([r for r in main if r["setting"]["direction"] == direction])]
    lines += ["## More dimensions", "", *sizes(records)]
    return "\n".join(lines).rstrip() + "\n"


def findings(main: Records) -> list[str]:
    """What the tables show, in numbers."""
    off = [abs(r["drawn"] - r["trust_region_loss"]) for r in main]
    negative = [r for r in main if r["setting"]["negative_share"] > 0]
    far = [r for r in negative if r["setting"]["reach"] == 10]
    near = [r for r in negative if r["setting"]["reach"] == 1]
    steep = [r for r in main if r["setting"]["direction"] == "steep"]
    generic = [r for r in main if r["setting"]["direction"] == "generic"]
    below = sum(r["drawn"] < r["unbounded"] for r in far)
    above = sum(r["drawn"] > r["wall"] for r in near)
    found = (
        f"*Directed* is within {max(off):.1f} of 300 dimensions of the drawn mean in all {len(main)} settings,"
        f" and within {sum(off) / len(off):.1f} on average.",
        f"In a large ball ($\\rho = 10R$) the transition is below both readings, *wall* and *unbounded*, in {below} of"
        f" {len(far)} settings with negative curvature. In a ball of radius $R$ it is above *wall* in {above} of"
        f" {len(near)}. So the transition need not lie between the two readings.",
        f"*Steep* is within {most_off(steep, 'trust_region_density'):.1f} dimensions of the drawn mean where the"
        f" removed weights lie in steep directions. In a random direction it is up to"
        f" {max(r['trust_region_density'] - r['drawn'] for r in generic):.0f}"
        f" too high, because steep directions are the worst case.",
        f"*Raised* is up to {max(r['drawn'] - r['raised_hessian'] for r in steep):.0f} dimensions too low in steep"
        f" directions, and up to {max(r['raised_hessian'] - r['drawn'] for r in generic):.0f} too high in a random one."
        " The package does not use it.",
    )
    return ["\n".join(textwrap.fill(each, 118, initial_indent="- ", subsequent_indent="  ") for each in found), ""]


def most_off(records: Records, formula: str) -> float:
    return max(abs(float(r["drawn"]) - float(r[formula])) for r in records)


def table(records: Records) -> list[str]:
    lines = [
        "| negative eigenvalues | strongest | ball | drawn | directed | steep | raised | wall | unbounded |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in records:
        s = r["setting"]
        strongest = f"-{s['strongest_negative']:g}" if s["negative_share"] else "-"
        formulas = ("trust_region_loss", "trust_region_density", "raised_hessian", "wall", "unbounded")
        cells = " | ".join(f"{r[name]:.1f}" for name in formulas)
        lines.append(
            f"| {100 * s['negative_share']:.0f} % | {strongest} | {s['reach']:g} R"
            f" | {r['drawn']:.1f} ± {r['deviation']:.1f} | {cells} |"
        )
    return [*lines, ""]


def sizes(records: Records) -> list[str]:
    """The same spectrum with more eigenvalues: how far the formula is from the drawn mean."""
    wanted = {"negative_share": 0.1, "strongest_negative": 0.1, "direction": "steep", "reach": 10.0}
    found = sorted(
        (r for r in records if wanted.items() <= r["setting"].items()), key=lambda r: int(r["setting"]["size"])
    )
    lines = [
        "The formula holds in the limit of many dimensions. This table has 10 % negative eigenvalues, of which the",
        "strongest is -0.1, a ball of radius 10 R, and steep directions. The numbers are densities.",
        "",
        "| dimensions | drawn | directed |",
        "|---|---|---|",
    ]
    for r in found:
        size = r["setting"]["size"]
        lines.append(f"| {size} | {r['drawn'] / size:.4f} | {r['trust_region_loss'] / size:.4f} |")
    return [*lines, ""]
