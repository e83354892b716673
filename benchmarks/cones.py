"""The true cone over the sublevel set beside Eq. 16's proxy: balls and ellipsoids.

    python -m benchmarks.cones [--draws 150] [--record results/cones.jsonl] [--page docs/cones.md]

For each set: its cone's statistical dimension by projecting normal vectors, the dimension at which drawn subspaces
begin to meet the set, and Eq. 16. One core needs about three minutes. Recorded settings are not run again.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.commands import own_command
from howsparse.files import write_whole
from howsparse.geometry import cone_dimension, statistical_dimension
from howsparse.records import Measurement, append_record, provenance, read_lines

Array = NDArray[np.float64]
Setting = dict[str, Any]
Records = list[dict[str, Any]]

SIZE = 300
ALONG = {  # the eigenvectors in which the removed weights lie
    "15 steepest": slice(285, 300),
    "15 middle": slice(142, 157),
    "all": slice(0, 300),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=150)
    parser.add_argument("--record", type=Path, default=Path("results/cones.jsonl"))
    parser.add_argument("--page", type=Path, default=Path("docs/cones.md"))
    options = parser.parse_args()
    done = [line["setting"] for line in read_lines(options.record)]
    for seed, setting in enumerate(settings(options.draws)):
        if setting not in done:
            found = measured(setting, seed)
            print(setting, found, file=sys.stderr)
            made = provenance(own_command("benchmarks.cones"))
            append_record(Measurement(kind="cones", made=made, setting=setting, seed=seed, **found), options.record)
    write_whole(options.page, lambda file: file.write_text(page(read_lines(options.record))))


def settings(draws: int) -> Iterator[Setting]:
    """All settings, in the order of the page."""
    for scale in (0.01, 0.1, 0.3, 0.6, 0.9):
        yield {"set": "ball", "along": "all", "scale": scale, "draws": draws}
    for along in ALONG:
        for scale in (0.001, 0.01, 0.05):
            yield {"set": "ellipsoid", "along": along, "scale": scale, "draws": draws}


def measured(setting: Setting, seed: int) -> dict[str, Any]:
    """The cone's dimension with its standard error, Eq. 16, and D less the first dimension that meets the set."""
    rng, scale = np.random.default_rng(seed), setting["scale"]
    values = np.ones(SIZE) if setting["set"] == "ball" else np.geomspace(1e-4, 1e2, SIZE)
    d = np.zeros(SIZE)
    d[ALONG[setting["along"]]] = rng.standard_normal(SIZE)[ALONG[setting["along"]]]
    d /= np.linalg.norm(d)
    proxy = statistical_dimension(values, scale)
    mean, error = cone_dimension(values, d, scale / 2, draws=20 * setting["draws"], seed=seed)
    first = [first_met(values, d, scale / 2, rng) for _ in range(setting["draws"])]
    return {
        "cone": mean,
        "error": error,
        "proxy": proxy,
        "drawn": SIZE - float(np.mean(first)) + 0.5,
        "deviation": float(np.std(first, ddof=1)),
    }


def first_met(values: Array, d: Array, tolerance: float, rng: np.random.Generator) -> int:
    """First dimension at which one random chain of nested subspaces through d meets the ellipsoid."""
    root = np.sqrt(values)
    directions = np.linalg.qr(root[:, None] * rng.standard_normal((d.size, d.size))).Q
    explained = np.cumsum((directions.T @ (root * d)) ** 2)
    left = ((root * d) @ (root * d) - np.r_[0.0, explained]) / 2
    return int(np.argmax(left <= tolerance))


INTRODUCTION = """# The true cone and Eq. 16

This page compares the paper's Eq. 16 with the exact dimension of the cone that it stands for. It is for readers of [the
theory](theory.md), which says what follows. Made by `python -m benchmarks.cones`; the records are in
`results/cones.jsonl`. The sublevel set is an ellipsoid in 300 dimensions, seen from a point outside it.

- *cone*: the statistical dimension of the cone over the ellipsoid. It is the mean of $\\lVert\\Pi_C(g)\\rVert^2$ over
  normal vectors $g$, with its standard error (`geometry.cone_dimension`).
- *drawn*: 300 less the mean number of dimensions at which random nested subspaces begin to meet the set, plus one half.
  By the conic Crofton formula, this is also the dimension of the cone.
- *Eq. 16*: the paper's approximation (`geometry.statistical_dimension`).
"""


def page(records: Records) -> str:
    """The page in docs."""
    balls = [r for r in records if r["setting"]["set"] == "ball"]
    others = [r for r in records if r["setting"]["set"] == "ellipsoid"]
    off = max(abs(r["cone"] - r["drawn"]) for r in records)
    lines = [
        INTRODUCTION,
        f"In all {len(records)} settings, *cone* and *drawn* differ by at most {off:.1f} dimensions (Theorem 1).",
        "",
        "## Balls of radius r at distance R",
        "",
        "| r²/R² | cone | drawn | 300 r²/R² | Eq. 16 |",
        "|---|---|---|---|---|",
        *(f"| {scale(r):g} | {cone(r)} | {r['drawn']:.1f} | {SIZE * scale(r):.1f} | {r['proxy']:.1f} |" for r in balls),
        "",
        "## Ellipsoids",
        "",
        "The eigenvalues are log-spaced from $10^{-4}$ to 100, and μ is the scale. The removed weights lie in the 15",
        "eigenvectors of the largest eigenvalues, in the 15 eigenvectors of eigenvalues near 0.1, or in all",
        "eigenvectors.",
        "",
        "| eigenvectors | μ | cone | drawn | Eq. 16 |",
        "|---|---|---|---|---|",
        *(
            f"| {r['setting']['along']} | {scale(r):g} | {cone(r)} | {r['drawn']:.1f} | {r['proxy']:.1f} |"
            for r in others
        ),
    ]
    return "\n".join(lines) + "\n"


def scale(record: dict[str, Any]) -> float:
    return float(record["setting"]["scale"])


def cone(record: dict[str, Any]) -> str:
    return f"{record['cone']:.1f} ± {record['error']:.1f}"


if __name__ == "__main__":
    main()
