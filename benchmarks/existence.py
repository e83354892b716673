"""Table 1, the distance of the two bounds, by two readings of Eq. 19: which one gives the paper's numbers?

    python -m benchmarks.existence digits [--seeds 2]
    python -m benchmarks.existence fc5 --weights FC5.safetensors --data FOLDER_OR_HUB_NAME [--images 4000]
        [--steps 192] [--more 400] [--probes 5] [--dimensions] [--keep FOLDER]
    python -m benchmarks.existence --page

*block*: U(p) - p at p = T, from the spectrum of the block of removed weights, as the paper's text says. *tail*: the
same sum over the smallest eigenvalues of the whole Hessian. Each is given as a bracket, and as the paper computes
spectra: 128 steps of Lanczos from one probe, Gauss rule. On digits, both are also exact, from dense float64 Hessians.

Every part is recorded as it ends and is not computed again. With --keep, a stopped part continues from its products.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.authors import KERNELS, OVERHEADS
from benchmarks.commands import own_command
from benchmarks.exact import STRENGTHS, dense_hessian
from benchmarks.existence_page import page
from benchmarks.kept_spectra import kept_spectrum, probed_spectrum
from benchmarks.problems import train_dense, train_images
from howsparse.files import write_whole
from howsparse.geometry import (
    Magnitudes,
    absolute_filter,
    curvature_scale,
    existence_density,
    existence_fixed_point,
    fixed_point,
    minimal_density,
)
from howsparse.limit.bracket import existence_bracket, solve_bracket
from howsparse.limit.tolerance import default_tolerance
from howsparse.linalg import Block, Operator, Rule, Spectrum
from howsparse.loading import load_weights
from howsparse.paper.authors import smeared
from howsparse.paper.existence import mass_bounds, tail_bracket, tail_density
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.risk import EmpiricalRisk, Hessian
from howsparse.store import digest
from howsparse.tasks import load_task
from howsparse.tasks.data import Batches

PAPERS_STEPS = 128
LOOKS = (64, 96, 127, 128, 129, 192, 256, 320, 384)
Line = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A network with its Hessian and what Table 1 needs of it.

    Attributes:
        name: for the records.
        operator: the Hessian over the images.
        flat: the weights, ``(n,)``.
        tolerance: allowed loss increase.
        images: number of images in the Hessian.
    """

    name: str
    operator: Operator
    flat: Tensor
    tolerance: float
    images: int

    @property
    def magnitudes(self) -> Magnitudes:
        return Magnitudes(self.flat.numpy())

    def removed(self, density: float) -> Tensor:
        """Boolean, ``(n,)``: the weights that magnitude pruning removes at this density."""
        count = max(1, round((1 - density) * self.flat.numel()))
        return self.flat.abs() <= self.flat.abs().kthvalue(count).values


class Book:
    """The records of this benchmark. A part that is recorded is not computed again."""

    def __init__(self, path: Path, note: str) -> None:
        self._path, self._note = path, note

    def has(self, name: str, part: str) -> bool:
        """Whether this part of a network is recorded."""
        return any((line["network"], line["part"]) == (name, part) for line in read_lines(self._path))

    def part(self, case: Case, part: str, compute: Callable[[], Line]) -> Line:
        """The recorded numbers of one part of a case, or the computed ones."""
        key = {"network": case.name, "images": case.images, "part": part}
        for line in read_lines(self._path):
            if key.items() <= line.items():
                return line
        found = key | compute()
        made = provenance(own_command("benchmarks.existence"))
        append_record(Measurement(kind="existence", made=made, note=self._note, **found), self._path)
        print(case.name, part, {k: v for k, v in found.items() if k not in key}, file=sys.stderr)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=["digits", "fc5", []])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--data", default=None)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=192)
    parser.add_argument("--more", type=int, default=0, help="steps for a second look at all three")
    parser.add_argument("--probes", type=int, default=5)
    parser.add_argument("--dimensions", action="store_true", help="also the block's dimensions at a few densities")
    parser.add_argument("--keep", type=Path, default=None)
    parser.add_argument("--note", default="", help="for the record, for example that the machine was busy")
    parser.add_argument("--record", type=Path, default=Path("results/existence.jsonl"))
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    book = Book(options.record, options.note)
    if "digits" in options.networks:
        for seed in range(options.seeds):
            for l1 in STRENGTHS:
                digits(l1, seed, book)
    if "fc5" in options.networks:
        case = fc5_case(options.weights, options.data, options.images)
        study(case, book, options.steps, options.probes, options.keep, options.more)
        if options.dimensions:
            block_dimensions(case, book, options.keep)
    if options.page:
        text = page(read_lines(options.record))
        write_whole(Path("docs/table-1.md"), lambda file: file.write_text(text))
        print(text)


def fc5_case(weights: Path, data: str | None, images: int) -> Case:
    """FC5 with trained weights; the tolerance is that of all training images."""
    problem = load_task("fc5-cifar10", data)
    model = problem.initial()
    load_weights(model, weights)
    tolerance = default_tolerance(EmpiricalRisk(model, problem.study_batches()))[0]
    risk = EmpiricalRisk(model, problem.study_batches(images))
    return Case("fc5", Hessian(risk), risk.flat_weights(), tolerance, images)


def study(case: Case, book: Book, steps: int, probes: int, keep: Path | None, more: int = 0) -> Line:
    """The parts that need products: the whole spectrum, the block's, and more probes of the block.

    Args:
        case: the network.
        book: the records.
        steps: of the first probe of the whole Hessian, and of the block.
        probes: number of probes of the block; those after the first take 128 steps.
        keep: folder of the store.
        more: steps for a second look at T, the tail and the block, which stays the block of the first look.
    """

    def spectrum(operator: Operator, name: str, seed: int, count: int) -> Spectrum:
        about = {"matrix": name, "weights": digest(case.flat), "images": case.images, "seed": seed, "steps": count}
        return kept_spectrum(
            keep, operator, about, lambda kept: probed_spectrum(kept, case.flat, seed=seed, steps=count, name=name)
        )

    whole = book.part(case, "whole", lambda: whole_numbers(case, spectrum(case.operator, "whole", 0, steps)))
    if keep is not None:  # else the spectrum would be computed again
        book.part(case, "smeared", lambda: smeared_numbers(case, spectrum(case.operator, "whole", 0, steps)))
    density, scale = whole["density"], whole["scale"]
    if more:
        book.part(case, f"whole, {more} steps", lambda: whole_numbers(case, spectrum(case.operator, "whole", 0, more)))
    block = Block(case.operator, case.removed(density))

    def block_part(seed: int, count: int) -> Line:
        return block_numbers(spectrum(block, f"block at {density}", seed, count), scale, density)

    book.part(case, "block", lambda: block_part(1, steps))
    if more:
        book.part(case, f"block, {more} steps", lambda: block_part(1, more))
    for probe in range(2, probes + 1):
        book.part(case, f"probe {probe}", lambda probe=probe: block_part(probe, PAPERS_STEPS))  # type: ignore[misc]
    return whole


def whole_numbers(case: Case, spectrum: Spectrum) -> Line:
    """T and the tail at the middle of its bracket, as brackets and by the paper's rule."""
    limit = solve_bracket(spectrum, case.magnitudes, case.tolerance, absolute_filter)
    density = 1 - limit.middle
    scale = curvature_scale(case.tolerance, case.magnitudes.radius(density))
    rules = {count: spectrum.first(count).gauss() for count in LOOKS if count <= spectrum.num_steps}
    # The tail belongs to T, which is anywhere in its bracket.
    needed = np.linspace(1 - limit.high, 1 - limit.low, 5)
    scales = [curvature_scale(case.tolerance, case.magnitudes.radius(each)) for each in needed]
    bounds = mass_bounds(spectrum, scale)
    brackets = [
        tail_bracket(spectrum, at, float(each), fixed=True, bounds=bounds)
        for each, at in zip(needed, scales, strict=True)
    ]
    return {
        "num_weights": spectrum.size,
        "zero_rows": spectrum.num_zero,
        "steps": spectrum.num_steps,
        "tolerance": case.tolerance,
        "limit_low": limit.low,
        "limit_high": limit.high,
        "density": density,
        "scale": scale,
        "tail_low": min(low for low, _ in brackets),
        "tail_high": max(high for _, high in brackets),
        "tail_brackets": brackets,  # at five densities, from the lowest end of T's bracket to the highest
        "tail_by_steps": {str(count): tail_density(rule, scale, density) for count, rule in rules.items()},
        "limit_by_steps": {str(count): 1 - gauss_limit(case, rule) for count, rule in rules.items()},
        # T and the tail both by the paper's rule, at the density where this rule puts the limit
        "tail_at_own_limit": {str(count): own_tail(case, rule) for count, rule in rules.items()},
    }


def smeared_numbers(case: Case, spectrum: Spectrum) -> Line:
    """The tail at its own limit where the authors' smearing replaces the Gauss rule; the bins are shifted a little."""
    rule = spectrum.first(PAPERS_STEPS).gauss()
    rules = {kernel: [smeared(rule, kernel=kernel, overhead=shift) for shift in OVERHEADS] for kernel in KERNELS}
    return {"tails": {str(kernel): [own_tail(case, each) for each in of] for kernel, of in rules.items()}}


def gauss_limit(case: Case, rule: Rule) -> float:
    """The density T that one rule gives."""
    return fixed_point(lambda scale: minimal_density(rule.nodes, scale, rule.masses), case.magnitudes, case.tolerance)


def own_tail(case: Case, rule: Rule) -> float:
    """The tail of one rule at its own limit."""
    density = gauss_limit(case, rule)
    return tail_density(rule, curvature_scale(case.tolerance, case.magnitudes.radius(density)), density)


def block_numbers(spectrum: Spectrum, scale: float, density: float) -> Line:
    """U(p) - p of the block of removed weights, as a bracket and by the paper's rule."""
    low, high = existence_bracket(spectrum, scale, density, absolute_filter)
    rule = spectrum.first(PAPERS_STEPS).gauss()
    needed = rule.integrate(lambda x: absolute_filter(x, scale))
    probe = spectrum.probe_interval(needed, needed, 0.99)
    return {
        "zero_rows": spectrum.num_zero,
        "steps": spectrum.num_steps,
        "existence_low": 1 - high - density,
        "existence_high": 1 - low - density,
        "trivial": low <= 1 - 2 * density,
        "by_gauss": existence_density(rule.nodes, scale, density, rule.masses) - density,
        "probe_low": (1 - density) * probe[0],
        "probe_high": (1 - density) * probe[1],
    }


def block_dimensions(case: Case, book: Book, keep: Path | None, steps: int = 24) -> None:
    """Whether U(p) - p is above one dimension at a few densities: the block's effective dimension, as a bracket."""
    for density in (0.2, 0.1, 0.05):
        scale = curvature_scale(case.tolerance, case.magnitudes.radius(density))
        block = Block(case.operator, case.removed(density))

        def compute(block: Block = block, density: float = density, scale: float = scale) -> Line:
            about = {"matrix": f"block at {density}", "weights": digest(case.flat), "images": case.images}
            spectrum = kept_spectrum(
                keep,
                block,
                about | {"steps": steps, "seed": 1},
                lambda kept: probed_spectrum(kept, case.flat, seed=1, steps=steps, name=f"block at {density}"),
            )
            rules = spectrum.lowest(), spectrum.highest(lambda x: absolute_filter(x, scale))
            low, high = (block.shape[0] * rule.integrate(lambda x: absolute_filter(x, scale)) for rule in rules)
            return {"density": density, "dimensions_low": low, "dimensions_high": high, "zero_rows": spectrum.num_zero}

        book.part(case, f"dimensions at {density}", compute)


def digits(l1: float, seed: int, book: Book) -> None:
    """A digits network: the products' answers beside the exact ones."""
    name = f"digits, l1 {l1:g}, seed {seed}"
    if book.has(name, "exact"):
        return
    problem = load_task("digits", l1=l1)
    model, images = train_dense(problem, seed), train_images(problem)
    risk = EmpiricalRisk(model, Batches(images, 128))
    tolerance = default_tolerance(risk)[0]
    case = Case(name, Hessian(risk), risk.flat_weights(), tolerance, len(images))
    whole = study(case, book, steps=PAPERS_STEPS, probes=5, keep=None)
    solve = seed == 0 and l1 == max(STRENGTHS)  # some thirty dense spectra, the smaller the more rows are zero
    book.part(case, "exact", lambda: exact_numbers(case, model, images, whole["density"], whole["scale"], solve))


def exact_numbers(case: Case, model: nn.Module, images: Any, density: float, scale: float, solve: bool) -> Line:
    """The same from the dense Hessian in float64, and U's fixed point with and without a dimension to spare."""
    hessian = dense_hessian(model, images.normalised(images.pixels), images.labels)
    eigenvalues = spectrum_of(hessian)
    count, order = len(hessian), case.flat.abs().argsort(stable=True)

    def existence_at(kept: float) -> float:
        removed = order[: count - round(count * kept)]
        at = curvature_scale(case.tolerance, case.magnitudes.radius(kept))
        return existence_density(spectrum_of(hessian[removed][:, removed]), at, kept) if len(removed) else 1.0

    rule = Rule(eigenvalues, np.full(count, 1 / count))
    removed = case.removed(density)
    block = spectrum_of(hessian[removed][:, removed])
    found = {
        "limit": 1 - gauss_limit(case, rule),
        "existence": existence_density(block, scale, density) - density,
        "tail": tail_density(rule, scale, density),
        "zero_rows": int((hessian == 0).all(1).sum()),
    }
    if solve:
        found["fixed_point_one_dimension"] = 1 - existence_fixed_point(existence_at, count)
        found["fixed_point"] = 1 - existence_fixed_point(existence_at, count, dimensions=0.0)
    return found


def spectrum_of(matrix: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """All eigenvalues. Rows that are exactly zero are left out of the work; their eigenvalues are exactly zero."""
    alive = (matrix != 0).any(1)
    found = torch.linalg.eigvalsh(matrix[alive][:, alive]).numpy()
    return np.concatenate([found, np.zeros(len(matrix) - len(found))])


if __name__ == "__main__":
    main()
