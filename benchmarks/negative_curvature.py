"""Where random subspaces meet the sublevel set of a quadratic model with negative curvature: drawn, and by formula.

    python -m benchmarks.negative_curvature [--draws 20] [--record results/negative_curvature.jsonl]
        [--page docs/negative-curvature.md]

Random nested subspaces are drawn through the pruned point. On each, the model is minimised within a ball around the
trained weights, exactly, by an eigen-decomposition. The transition is the first dimension at which the least loss is
within the tolerance. One core needs about three minutes. Recorded settings are not run again.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from benchmarks.commands import own_command
from benchmarks.negative_curvature_page import page
from howsparse.files import write_whole
from howsparse.geometry import clipped_filter, minimal_density, trust_region_density, trust_region_loss
from howsparse.records import Measurement, append_record, provenance, read_lines

Array = NDArray[np.float64]
Setting = dict[str, Any]

SCALE = 0.01  # mu; R is 1, so the tolerance is half of it
SHARES, STRENGTHS, REACHES, DIRECTIONS = (0.1, 0.2, 0.4), (0.1, 1.0), (1.0, 2.0, 10.0), ("steep", "generic")
STEEP = 15  # a steep displacement lies in so many directions of largest curvature


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--record", type=Path, default=Path("results/negative_curvature.jsonl"))
    parser.add_argument("--page", type=Path, default=Path("docs/negative-curvature.md"))
    options = parser.parse_args()
    done = [line["setting"] for line in read_lines(options.record)]
    for seed, setting in enumerate(settings(options.draws)):
        if setting not in done:
            found = computed(setting) | drawn(setting, np.random.default_rng(seed))
            print(setting, found, file=sys.stderr)
            made = provenance(own_command("benchmarks.negative_curvature"))
            append_record(
                Measurement(kind="negative_curvature", made=made, setting=setting, seed=seed, **found), options.record
            )
    write_whole(options.page, lambda file: file.write_text(page(read_lines(options.record))))


def settings(draws: int) -> Iterator[Setting]:
    """All settings, in the order of the page."""
    for direction, reach in itertools.product(DIRECTIONS, REACHES):
        yield of(300, 0.0, 0.0, direction, reach, draws)
        for share, strength in itertools.product(SHARES, STRENGTHS):
            yield of(300, share, strength, direction, reach, draws)
    for size in (100, 1000):
        yield of(size, 0.1, 0.1, "steep", 10.0, draws)


def of(size: int, share: float, strength: float, direction: str, reach: float, draws: int) -> Setting:
    return {
        "size": size,
        "negative_share": share,
        "strongest_negative": strength,
        "direction": direction,
        "reach": reach,
        "draws": draws,
    }


def spectrum(setting: Setting) -> Array:
    """Positive eigenvalues from 1e-4 to 10, negative ones from -1e-3 to the strongest; both log-spaced."""
    negative = round(setting["negative_share"] * setting["size"])
    positive = np.geomspace(1e-4, 10.0, setting["size"] - negative)
    return np.asarray(np.r_[positive, -np.geomspace(1e-3, setting["strongest_negative"] or 1.0, negative)])


def displacement(setting: Setting, rng: np.random.Generator) -> Array:
    """A displacement of length 1 in the eigenvectors' basis."""
    values = spectrum(setting)
    d: Array = rng.standard_normal(values.size)
    if setting["direction"] == "steep":
        d[values < np.sort(values)[-STEEP]] = 0
    return np.asarray(d / np.linalg.norm(d))


def computed(setting: Setting) -> dict[str, float]:
    """The formulas, in dimensions."""
    values, reach = spectrum(setting), setting["reach"]
    taus = max(0.0, -values.min()) * (1 + 1e-9) + np.r_[0.0, np.geomspace(1e-6, 1e3, 2000)]
    raised = values[:, None] + taus
    candidate = (raised / (raised + SCALE + taus * reach**2)).mean(0).max()
    found = {
        "wall": minimal_density(values, SCALE),
        "unbounded": minimal_density(values, SCALE, factor=clipped_filter),
        "raised_hessian": candidate,
        "trust_region_density": trust_region_density(values, SCALE, reach),
    }
    return {name: float(density * setting["size"]) for name, density in found.items()}


def drawn(setting: Setting, rng: np.random.Generator) -> dict[str, Any]:
    """Mean and deviation of the transition over the draws, and where `trust_region_loss` meets the tolerance."""
    values, seen, expected = spectrum(setting), [], []
    for _ in range(setting["draws"]):
        d = displacement(setting, rng)
        seen.append(transition(values, d, SCALE / 2, setting["reach"], rng))
        expected.append(setting["size"] * loss_transition(values, d, SCALE / 2, setting["reach"]))
    return {
        "drawn": float(np.mean(seen)),
        "deviation": float(np.std(seen, ddof=1)),
        "trust_region_loss": float(np.mean(expected)),
    }


def loss_transition(values: Array, d: Array, tolerance: float, radius: float) -> float:
    """The density at which `trust_region_loss` is the tolerance."""

    def excess(density: float) -> float:
        return min(trust_region_loss(values, d, np.zeros_like(d), density, radius), 1e6) - tolerance

    return float(brentq(excess, 1e-4, 1 - 1e-4))


def transition(values: Array, d: Array, tolerance: float, radius: float, rng: np.random.Generator) -> int:
    """First dimension at which one random chain of nested subspaces through d has a point within the tolerance."""
    directions = np.linalg.qr(rng.standard_normal((d.size, d.size))).Q
    low, high = 0, d.size
    while high - low > 1:
        middle = (low + high) // 2
        met = least_loss(values, d, directions[:, :middle], radius) <= tolerance
        low, high = (low, middle) if met else (middle, high)
    return high


def least_loss(values: Array, d: Array, directions: Array, radius: float) -> float:
    """Least value of the quadratic model on d + span(directions) within the ball: a trust-region problem."""
    nearest = d - directions @ (directions.T @ d)  # of the subspace to the trained weights
    room = radius**2 - float(nearest @ nearest)
    if room < 0:
        return math.inf
    curvatures, vectors = np.linalg.eigh(directions.T @ (values[:, None] * directions))
    slopes = vectors.T @ (directions.T @ (values * nearest))

    def too_far(shift: float) -> float:
        return float(np.sum((slopes / (curvatures + shift)) ** 2)) - room

    shift = 0.0
    if curvatures[0] <= 0 or too_far(0.0) > 0:
        least = max(0.0, -float(curvatures[0]))
        most = least + float(np.linalg.norm(slopes)) / math.sqrt(room) + 1e-12
        shift = brentq(too_far, least + 1e-13 * (1 + least), most, xtol=1e-15)
    step = -slopes / (curvatures + shift)
    return float(nearest @ (values * nearest) / 2 + slopes @ step + step @ (curvatures * step) / 2)


if __name__ == "__main__":
    main()
