"""The prediction for FC5 as the paper's authors' code computes it, one of its choices at a time and all together.

    python -m benchmarks.authors --weights FC5.safetensors --data FOLDER_OR_HUB_NAME [--images 4000] [--steps 256]
        [--seeds 3] [--keep FOLDER] [--record results/authors.jsonl]
    python -m benchmarks.authors --page

The choices are those of `howsparse.paper.authors`. Every Lanczos run is recorded as it ends, with its tridiagonal
matrix, and is not computed again; the table is made from these records. With --keep, a stopped run continues from its
products.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.authors_page import page
from benchmarks.commands import own_command
from benchmarks.kept_spectra import kept_spectrum, probed_spectrum
from benchmarks.problems import train_images
from howsparse.files import write_whole
from howsparse.geometry import Magnitudes, absolute_filter
from howsparse.limit.bracket import solve_bracket
from howsparse.limit.tolerance import MINI_BATCH, default_tolerance
from howsparse.linalg import Operator, Rule, Spectrum, gauss
from howsparse.loading import load_weights
from howsparse.paper.authors import AugmentedHessian, crossing, one_probe, smeared, with_added_zeros
from howsparse.problem import Problem
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.risk import EmpiricalRisk, Hessian
from howsparse.store import digest
from howsparse.tasks import load_task
from howsparse.tasks.data import Images, ShuffledBatches

STEPS, ROWS, PASSES = 128, 100, 5
KERNELS = (0.05, 0.14, 1.0)  # widths of the smearing kernel, in distances between bins
OVERHEADS = np.linspace(0.009, 0.011, 20)  # shifts the bins; the authors have 0.01
FINE = 100_000  # grid of sparsities where the authors' grid of 1,000 is not the choice under study
Line = dict[str, Any]


class Book:
    """The records of this benchmark. A part that is recorded is not computed again."""

    def __init__(self, path: Path, about: Line, note: str) -> None:
        self._path, self._about, self._note = path, about, note

    def part(self, part: str, compute: Callable[[], Line]) -> Line:
        """The recorded numbers of one part, or the computed ones."""
        key = self._about | {"part": part}
        for line in read_lines(self._path):
            if key.items() <= line.items():
                return line
        found = key | compute()
        made = provenance(own_command("benchmarks.authors"))
        append_record(Measurement(kind="authors", made=made, note=self._note, **found), self._path)
        print(part, {k: v for k, v in found.items() if not isinstance(v, list)}, file=sys.stderr)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--data", default=None)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, default=None)
    parser.add_argument("--note", default="", help="for the record, for example that the machine was busy")
    parser.add_argument("--record", type=Path, default=Path("results/authors.jsonl"))
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if options.weights is not None:
        book = Book(options.record, {"network": "fc5", "images": options.images}, options.note)
        problem = load_task("fc5-cifar10", options.data)
        model = problem.initial()
        load_weights(model, options.weights)
        measure(problem, model, options, book)
    if options.page:
        text = page(read_lines(options.record))
        write_whole(Path("docs/authors.md"), lambda file: file.write_text(text))
        print(text)


def measure(problem: Problem, model: nn.Module, options: argparse.Namespace, book: Book) -> None:
    """All parts that need products; after each Lanczos run, the answers with each choice."""
    risk = EmpiricalRisk(model, problem.study_batches(options.images))
    flat, hessian, images = risk.flat_weights(), Hessian(risk), train_images(problem)
    magnitudes = Magnitudes(flat.numpy())
    tolerances = book.part("tolerance", lambda: tolerance_numbers(problem, model, images))

    def spectrum(operator: Operator, name: str, compute: Callable[[Operator], Spectrum], **about: object) -> Spectrum:
        inputs = {"matrix": name, "weights": digest(flat), "images": options.images} | about
        return kept_spectrum(options.keep, operator, inputs, compute)

    def text() -> Line:
        def compute(kept: Operator) -> Spectrum:
            return probed_spectrum(kept, flat, seed=0, steps=options.steps, name="whole")

        whole = spectrum(hessian, "whole", compute, seed=0, steps=options.steps)
        answers = answers_of(whole.first(STEPS).gauss(), magnitudes, tolerances, share, seed=0)
        (found,) = whole.tridiagonals
        kept = {"diagonal": found.diagonal.tolist(), "off_diagonal": found.off_diagonal.tolist()}
        return text_numbers(whole, magnitudes, tolerances["tolerance"]) | {"answers": answers} | kept

    share = book.part("rows", lambda: row_numbers(model, problem, options.images, flat))["zero_share"]
    book.part("text", text)
    for seed in range(options.seeds):
        for name in ("augmented", "plain"):

            def run(name: str = name, seed: int = seed) -> Line:
                operator = hessian if name == "plain" else AugmentedHessian(model, images.first(options.images), seed)
                made = spectrum(operator, name, lambda kept: from_probe(kept, flat, seed), seed=seed, steps=STEPS)
                (found,) = made.tridiagonals
                answers = answers_of(gauss(found), magnitudes, tolerances, share, seed)
                return answers | {"diagonal": found.diagonal.tolist(), "off_diagonal": found.off_diagonal.tolist()}

            book.part(f"{name}, seed {seed}", run)


def from_probe(operator: Operator, flat: torch.Tensor, seed: int) -> Spectrum:
    """The spectrum of one probe on all rows, as the authors compute it."""
    return Spectrum((one_probe(operator, flat, seed=seed, steps=STEPS),), flat.numel())


def text_numbers(spectrum: Spectrum, magnitudes: Magnitudes, tolerance: float) -> Line:
    """The paper's text done exactly: the bracket of the limit; and Gauss rules of some of its steps."""
    limit = solve_bracket(spectrum, magnitudes, tolerance, absolute_filter)
    by_steps = {
        str(steps): crossing(spectrum.first(steps).gauss(), magnitudes, tolerance, grid=FINE)
        for steps in (64, 96, 112, 120, 127, 128, 129, 136, 144, 192, 256, 320, 384)
        if steps <= spectrum.num_steps
    }
    radius = magnitudes.radius(1 - limit.middle)
    return {
        "low": limit.low,
        "high": limit.high,
        "steps": spectrum.num_steps,
        "zero_rows": spectrum.num_zero,
        "num_weights": spectrum.size,
        "radius": radius,
        "by_steps": by_steps,
    }


def answers_of(rule: Rule, magnitudes: Magnitudes, tolerances: Line, share: float, seed: int) -> Line:
    """1 - T for one Lanczos run: without any other choice, with each, and with all."""
    tolerance, augmented = tolerances["tolerance"], tolerances["augmented"][seed]

    def at(of: Rule, eps: float = tolerance, **options: Any) -> float:
        return crossing(of, magnitudes, eps, **({"grid": FINE} | options))

    def smears(of: Rule, kernel: float) -> list[Rule]:
        return [smeared(of, kernel=kernel, overhead=overhead) for overhead in OVERHEADS]

    def together(zeros: float) -> dict[str, list[float]]:
        return {
            str(kernel): [
                at(with_added_zeros(each, zeros), augmented, rounded="square", grid=1000)
                for each in smears(rule, kernel)
            ]
            for kernel in KERNELS
        }

    return {
        "seed": seed,
        "gauss": at(rule),
        "grid": at(rule, grid=1000),
        "radius": at(rule, rounded="radius"),
        "square": at(rule, rounded="square"),
        "tolerance": at(rule, augmented),
        "zeros": at(with_added_zeros(rule, share)),
        "smeared": {str(kernel): [at(each) for each in smears(rule, kernel)] for kernel in KERNELS},
        "all": together(share),
        "all_but_zeros": together(0.0),
    }


def tolerance_numbers(problem: Problem, model: nn.Module, images: Images) -> Line:
    """The tolerance of the paper's text, and the authors': over shuffled and augmented batches of 128."""
    model.eval()

    def losses(seed: int) -> list[float]:
        batches = ShuffledBatches(images, MINI_BATCH, augment=True)(seed, 0)
        return [float(nn.functional.cross_entropy(model(inputs), targets)) for inputs, targets in batches]

    with torch.no_grad():
        augmented = [float(np.std(losses(seed))) for seed in range(PASSES)]
    tolerance = default_tolerance(EmpiricalRisk(model, problem.study_batches()))[0]
    return {"tolerance": tolerance, "augmented": augmented}


def row_numbers(model: nn.Module, problem: Problem, images: int, flat: torch.Tensor) -> Line:
    """The share of zero rows as the authors sample it: 100 percentiles of magnitude, norms added up over batches."""
    parts = [EmpiricalRisk(model, [batch]) for batch in problem.study_batches(images)]
    matrices = [(Hessian(part), part.num_examples / images) for part in parts]
    order = flat.abs().argsort(stable=True)
    norms = []
    for row in range(ROWS):
        unit = torch.zeros_like(flat)
        unit[order[int((row + 0.5) / ROWS * len(order))]] = 1
        norms.append(sum(weight * float((matrix @ unit).abs().sum()) for matrix, weight in matrices))
    return {"zero_share": float(np.mean(np.array(norms) < 1e-7)), "norms": norms}


if __name__ == "__main__":
    main()
