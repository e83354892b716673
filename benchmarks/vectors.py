"""What the vectors of a Lanczos step cost beside its product: before and after partial reorthogonalisation.

    python -m benchmarks.vectors [--cases fc5 fc5-bfloat16 1e8] [--data FOLDER_OR_HUB_NAME]
        [--record results/growth.jsonl] [--table docs/growth.md]

The Hessian of FC5 over 512 images of CIFAR-10 after one pass of SGD with l1 over 20,000 images, and that of a network
of 1e8 weights at initialisation over 256 random images (bfloat16 basis, 24 steps). Each case and way is a process of
its own with one thread. Seconds are means over the ten steps that end at the step that is named. "Before" is
`benchmarks.full_lanczos`. Cases recorded are not run again.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.full_lanczos import FullLanczos
from benchmarks.growth import FIXED_IMAGES, INPUTS, random_network
from benchmarks.growth_page import write_page
from howsparse.linalg import Lanczos
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.risk.curvature import Hessian
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.tasks import load_task

CASES = {
    "fc5": (torch.float32, (50, 100, 150, 200)),
    "fc5-bfloat16": (torch.bfloat16, (50, 100)),
    "1e8": (torch.bfloat16, (12, 24)),
}
IMAGES, TRAINED_ON, WINDOW = 512, 20_000, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--data", default=None)
    parser.add_argument("--record", type=Path, default=Path("results/growth.jsonl"))
    parser.add_argument("--table", type=Path, default=Path("docs/growth.md"))
    parser.add_argument("--way", choices=("before", "after"), default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(one_case(options.cases[0], options.way, options.data)))
        return
    done = {(r["case"], r["way"]) for r in read_lines(options.record) if r["kind"] == "vectors"}
    for case in options.cases:
        for way in ("before", "after"):
            if (case, way) not in done:
                command = [sys.executable, "-m", "benchmarks.vectors", "--cases", case, "--way", way]
                command += [] if options.data is None else ["--data", options.data]
                answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                print(answer, file=sys.stderr)
                made = provenance("python -m benchmarks.vectors")
                append_record(Measurement(kind="vectors", made=made, **answer), options.record)
    write_page(options.record, options.table)


def one_case(case: str, way: str, data: str | None) -> dict[str, Any]:
    """Seconds of products and of vectors, and basis vectors read, in the steps around some of a Lanczos run."""
    torch.set_num_threads(1)
    risk = EmpiricalRisk(*(wide() if case == "1e8" else trained_fc5(data)))
    operator, like = Hessian(risk), risk.flat_weights()
    storage, at = CASES[case]
    generator = torch.Generator().manual_seed(0)
    gaussian, start = (torch.randn(like.numel(), generator=generator) for _ in range(2))
    in_products = [0.0]

    def product(vector: Tensor) -> Tensor:
        began = time.perf_counter()
        found = operator @ vector
        in_products[0] += time.perf_counter() - began
        return found

    run = (FullLanczos if way == "before" else Lanczos)(product, start, storage, (gaussian, operator @ gaussian))
    marks = [(0.0, 0.0, 0)]
    began = time.perf_counter()
    for _ in range(max(at)):
        run.step()
        marks.append((time.perf_counter() - began, in_products[0], run.reads))
    return {
        "case": case,
        "way": way,
        "num_weights": like.numel(),
        "images": FIXED_IMAGES if case == "1e8" else IMAGES,
        "storage": str(storage).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "seconds": round(marks[-1][0], 3),
        "product_seconds": round(marks[-1][1], 3),
        "reads": run.reads,
        "steps": {step: one_step(marks, step, storage, like.numel()) for step in at},
    }


def one_step(marks: list[tuple[float, float, int]], step: int, storage: torch.dtype, size: int) -> dict[str, float]:
    """Means over the last steps up to one: seconds of product and vectors, and bytes of the basis that were read."""
    total, product, reads = (
        (after - before) / WINDOW for before, after in zip(marks[step - WINDOW], marks[step], strict=True)
    )
    return {
        "product": round(product, 4),
        "vectors": round(total - product, 4),
        "bytes": reads * size * storage.itemsize,
    }


def trained_fc5(data: str | None) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """FC5 after one pass over some images, which is enough for outliers and decay in its spectrum."""
    problem = load_task("fc5-cifar10", data)
    model = problem.initial()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for inputs, targets in problem.study_batches(TRAINED_ON):
        for x, y in zip(inputs.split(128), targets.split(128), strict=True):
            optimizer.zero_grad()
            l1 = sum(p.abs().sum() for p in model.parameters())
            (nn.functional.cross_entropy(model(x), y) + problem.l1 * l1).backward()
            optimizer.step()
    return model, list(problem.study_batches(IMAGES))


def wide() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """The largest network of `benchmarks.growth`."""
    inputs = torch.randn(FIXED_IMAGES, INPUTS, generator=torch.Generator().manual_seed(0))
    return random_network(10**8), [(inputs, torch.arange(FIXED_IMAGES) % 10)]


if __name__ == "__main__":
    main()
