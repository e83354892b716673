"""How the limit moves with the number of images the curvature is taken over, on FC5.

    python -m benchmarks.drift --weights runs/fc5-seed0.safetensors --data FOLDER_OR_HUB_NAME
        [--record results/drift.jsonl] [--table docs/drift.md]

Probe, tolerance and Lanczos steps are the same for every number of images, so that only the data differ. The sampling
error of `howsparse.limit.levels.data_drift` is modelled on these numbers.
"""

import argparse
import math
from pathlib import Path
from typing import Any

from howsparse.files import write_whole
from howsparse.geometry import Magnitudes, absolute_filter
from howsparse.limit.bracket import solve_bracket
from howsparse.limit.tolerance import default_tolerance
from howsparse.linalg.spectrum import grow_spectrum
from howsparse.loading import load_weights
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.risk.curvature import GGN, Hessian
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.tasks import load_task

IMAGES, STEPS = (2000, 4000, 8000), (20, 60)
CURVATURES: dict[str, type[Hessian] | type[GGN]] = {"hessian": Hessian, "ggn": GGN}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", default=None)
    parser.add_argument("--record", type=Path, default=Path("results/drift.jsonl"))
    parser.add_argument("--table", type=Path, default=Path("docs/drift.md"))
    options = parser.parse_args()
    problem = load_task("fc5-cifar10", options.data)
    model = problem.initial()
    load_weights(model, options.weights)
    tolerance = default_tolerance(EmpiricalRisk(model, problem.study_batches()))[0]
    for curvature, make in CURVATURES.items():
        for images in IMAGES:
            operator = make(EmpiricalRisk(model, problem.study_batches(images)))
            middles = middle_by_steps(operator, tolerance)
            found: dict[str, Any] = {"curvature": curvature, "images": images, "tolerance": tolerance}
            made = provenance("python -m benchmarks.drift")
            append_record(Measurement(kind="drift", made=made, middle=middles, **found), options.record)
    write_whole(options.table, lambda file: file.write_text(table(read_lines(options.record))))
    print(options.table.read_text())


def middle_by_steps(operator: Hessian | GGN, tolerance: float) -> dict[int, float]:
    """Middle of the limit's bracket after each of a few numbers of steps."""
    flat, found = operator.risk.flat_weights(), {}
    magnitudes = Magnitudes(flat.numpy())
    for spectrum in grow_spectrum(operator, flat):
        if spectrum.num_steps in STEPS:
            bracket = solve_bracket(spectrum, magnitudes, tolerance, absolute_filter)
            found[spectrum.num_steps] = (bracket.low + bracket.high) / 2
        if spectrum.num_steps == max(STEPS):
            break
    return found


def table(records: list[dict[str, Any]]) -> str:
    """The page in docs: the limit by images, and how far each doubling moves it."""
    lines = [
        "# Drift with the data",
        "",
        "This page shows how the limit changes with the number of images over which the curvature is computed. It is",
        "for readers who compute a limit from a part of their data. Made by `python -m benchmarks.drift`; the records",
        "are in `results/drift.jsonl`. The numbers are the middle of the limit's bracket for FC5 on CIFAR-10, as",
        "fractions of the weights. Probe, tolerance and the number of Lanczos steps are the same for every number of",
        "images. *Curvature* is the Hessian or the Gauss-Newton matrix (ggn). The last column shows by how much the",
        "limit moves when the number of images doubles.",
        "",
        "| curvature | steps | " + " | ".join(f"{n:,} images" for n in IMAGES) + " | moved by each doubling |",
        "|---" * (len(IMAGES) + 3) + "|",
    ]
    for curvature in CURVATURES:
        for steps in STEPS:
            found = {r["images"]: r["middle"][str(steps)] for r in records if r["curvature"] == curvature}
            values = [found[n] for n in IMAGES]
            moves = [
                f"{(b - a) / math.log2(n / m):+.4f}"
                for a, b, m, n in zip(values, values[1:], IMAGES, IMAGES[1:], strict=False)
            ]
            cells = " | ".join(f"{value:.4f}" for value in values)
            lines.append(f"| {curvature} | {steps} | {cells} | {', '.join(moves)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
