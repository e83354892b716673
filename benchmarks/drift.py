"""How the limit moves with the number of images the curvature is taken over, on FC5.

    python -m benchmarks.drift --weights runs/fc5-seed0.safetensors --data FOLDER_OR_HUB_NAME
        [--record results/drift.jsonl] [--table docs/drift.md]

Same probes, same tolerance and same Lanczos steps for every number of images, so that only the data
differ. This is what the sampling error of `howsparse.limit.bracket` is modelled on.
"""

import argparse
import math
from pathlib import Path
from typing import Any

from howsparse.files import write_whole
from howsparse.geometry import Magnitudes, absolute_filter
from howsparse.limit.bracket import solve_bracket
from howsparse.limit.compute import default_tolerance
from howsparse.linalg.spectrum import grow_spectrum
from howsparse.loading import load_weights
from howsparse.records import append_record, provenance, read_records
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
    task = load_task("fc5-cifar10", options.data)
    model = task.network()
    load_weights(model, options.weights)
    tolerance = default_tolerance(EmpiricalRisk(model, task.train_batches(1000)))[0]
    for curvature, make in CURVATURES.items():
        for images in IMAGES:
            operator = make(EmpiricalRisk(model, task.train_batches(1000, images)))
            middles = middle_by_steps(operator, tolerance)
            record = {"kind": "drift", "curvature": curvature, "images": images, "tolerance": tolerance}
            append_record(
                record | {"middle": middles} | provenance() | {"command": "python -m benchmarks.drift"}, options.record
            )
    write_whole(options.table, lambda file: file.write_text(table(read_records(options.record))))
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
        "Made by `python -m benchmarks.drift`; records in `results/drift.jsonl`. FC5 on CIFAR-10, middle of the",
        "limit's bracket; same probe, tolerance and steps for every number of images.",
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
