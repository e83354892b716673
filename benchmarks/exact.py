"""The bracket, the predicted and the measured threshold against the exact spectrum, on digits.

    python -m benchmarks.exact [--seeds 6] [--record results/exact.jsonl] [--table docs/exact.md]

Trains 64-64-32-10 ReLU networks with four strengths of l1, computes the dense Hessian of each in float64 with
torch.func (not with this package's products), and solves for the exact 1 - T. Recorded runs are not run again.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import howsparse
from benchmarks.problems import train_dense, train_images
from howsparse.files import write_whole
from howsparse.geometry import Magnitudes, fixed_point, minimal_density
from howsparse.limit.measure import FINE
from howsparse.problem import Problem
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.tasks import load_task
from howsparse.tasks.data import Batches

STRENGTHS = (1e-3, 3e-4, 1e-4, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--record", type=Path, default=Path("results/exact.jsonl"))
    parser.add_argument("--table", type=Path, default=Path("docs/exact.md"))
    options = parser.parse_args()
    done = {(r["l1"], r["seed"]) for r in read_lines(options.record)}
    for seed in range(options.seeds):
        for l1 in STRENGTHS:
            if (l1, seed) not in done:
                found = one_case(load_task("digits", l1=l1), seed)
                made = provenance("python -m benchmarks.exact")
                append_record(Measurement(kind="exact", made=made, **found), options.record)
    write_whole(options.table, lambda file: file.write_text(table(read_lines(options.record))))
    print(options.table.read_text())


def one_case(problem: Problem, seed: int) -> dict[str, Any]:
    """Train, compute with 128 products in float32, and compare with the float64 spectrum."""
    model, images = train_dense(problem, seed), train_images(problem)
    batches = Batches(images, 128)
    limit = howsparse.pruning_limit(model, batches, max_products=128, precision=0.0, seed=seed)
    measured = howsparse.measure(model, batches, tolerance=limit.tolerance, scan=FINE, precision=0.001)
    inputs, targets = images.normalised(images.pixels), images.labels
    eigenvalues = torch.linalg.eigvalsh(dense_hessian(model, inputs, targets)).numpy()
    magnitudes = Magnitudes(
        np.concatenate([w.detach().numpy().ravel() for w in howsparse.prunable_weights(model).values()])
    )
    exact = 1 - fixed_point(lambda scale: minimal_density(eigenvalues, scale), magnitudes, limit.tolerance)
    print(f"l1 {problem.l1:g} seed {seed}: {exact:.4f} in {limit.bracket}", file=sys.stderr)
    return {
        "l1": problem.l1,
        "seed": seed,
        "num_weights": limit.num_weights,
        "tolerance": limit.tolerance,
        "exact": exact,
        "limit": limit.errors.middle,
        "limit_low": limit.bracket[0],
        "limit_high": limit.bracket[1],
        "predicted": limit.predicted,
        "measured": measured.sparsity,
        "products": limit.num_products,
        "zero_rows": limit.spectrum.num_zero,
    }


def dense_hessian(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The Hessian of the mean loss in the prunable weights, float64, ``(D, D)``."""
    fixed = {name: p.detach().double() for name, p in model.named_parameters()}
    studied = howsparse.prunable_weights(model)
    sizes, shapes = [w.numel() for w in studied.values()], [w.shape for w in studied.values()]
    at = torch.cat([fixed[name].flatten() for name in studied])

    def loss(flat: Tensor) -> Tensor:
        parts = [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        parameters = fixed | dict(zip(studied, parts, strict=True))
        output = torch.func.functional_call(model, parameters, (inputs.double(),))
        return nn.functional.cross_entropy(output, targets)

    dense: Tensor = torch.func.jacrev(torch.func.grad(loss), chunk_size=128)(at)
    return (dense + dense.T) / 2


def table(records: list[dict[str, float]]) -> str:
    """The page in docs: one row per strength, mean and worst over seeds."""
    rows = [
        "# Against the exact spectrum",
        "",
        "This page compares the limit and its bracket with the exact value, on networks that are small enough to",
        "compute it. It is for readers who want to know how right the limit is. Made by `python -m benchmarks.exact`;",
        "`results/exact.jsonl` has one line for each network. The networks have the sizes 64-64-32-10 and are trained",
        "on digits. howsparse takes at most 128 products in float32; the exact value comes from the eigenvalues of",
        "the dense Hessian in float64. Each row is a strength of the l1 term, with several networks. All numbers",
        "except the counts are fractions of the weights. *Exact 1 - T* is the exact limit, and *error of the limit*",
        "is the distance of the bracket's middle from it. The last columns compare the prediction with the measured",
        "sparsity, and give the largest number of products.",
        "",
        "| l1 | networks | exact 1 - T, mean | exact in bracket | bracket width, mean (widest) |"
        " error of the limit, mean (worst) | predicted - measured, mean (worst) | products, most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for l1 in STRENGTHS:
        cases = [r for r in records if r["l1"] == l1]
        if not cases:
            continue
        inside = sum(r["limit_low"] <= r["exact"] <= r["limit_high"] for r in cases)
        widths = np.array([r["limit_high"] - r["limit_low"] for r in cases])
        errors = np.abs([r["limit"] - r["exact"] for r in cases])
        gaps = np.array([r["predicted"] - r["measured"] for r in cases])
        rows.append(
            f"| {l1:g} | {len(cases)} | {np.mean([r['exact'] for r in cases]):.4f} | {inside} of {len(cases)}"
            f" | {widths.mean():.4f} ({widths.max():.4f}) | {errors.mean():.4f} ({errors.max():.4f})"
            f" | {gaps.mean():+.4f} ({gaps[np.abs(gaps).argmax()]:+.4f}) | {max(r['products'] for r in cases):g} |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
