"""What one curvature product costs, for every way that torch has: its time divided by that of a gradient.

    python -m benchmarks.product --data FOLDER_OR_HUB_NAME [--images 4000] [--record results/product.jsonl]
        [--table docs/product.md]

The page is made of the records in ``--record``, also of those of `benchmarks.convolutions`.

FC5 at initialisation on CIFAR-10, float32. All ways are first checked against the same product in float64. Then they
take turns in one process, so that a slow phase of the machine affects all of them. Ratios are of medians.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, linearize, vmap

from benchmarks.product_page import write_page
from howsparse.matmul import fast_matmul
from howsparse.records import Measurement, append_record, provenance
from howsparse.risk.curvature import GGN, Hessian
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.tasks import load_task

Weights = dict[str, Tensor]
Way = Callable[[], object]
VECTORS = 4  # how many a batched product takes
KEPT, BUILT = "Hessian, graphs kept (howsparse)", "Hessian, graphs built each time"
VMAPPED = f"Hessian, torch.func.linearize, vmap over {VECTORS} vectors, each"
MKL = ", MKL"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=None)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--record", type=Path, default=None)
    parser.add_argument("--table", type=Path, default=None)
    options = parser.parse_args()
    problem = load_task("fc5-cifar10", options.data)
    risk = EmpiricalRisk(problem.initial(), list(problem.study_batches(options.images)))
    vector = torch.randn(risk.num_weights, generator=torch.Generator().manual_seed(0))
    ways = hessian_ways(risk, vector)
    errors = check_agreement(risk, vector, ways)
    ggn = GGN(risk)
    ways |= {"Gauss-Newton, graphs kept (howsparse)": lambda: ggn @ vector, "gradient": risk.gradient}
    turns = {f"{name}{MKL}": with_mkl(ways[name]) for name in (KEPT, BUILT, "gradient")}
    turns |= {name: with_onednn(way) for name, way in ways.items()}
    seconds = interleaved(turns, options.rounds)
    seconds[VMAPPED] /= VECTORS
    ratios = {name: round(taken / seconds["gradient"], 3) for name, taken in seconds.items()}
    found: dict[str, Any] = {
        "images": options.images,
        "threads": torch.get_num_threads(),
        "product_gradients": ratios,
        "errors": errors,
        "seconds": {name: round(taken, 4) for name, taken in seconds.items()},
    }
    record = Measurement(kind="product", made=provenance("python -m benchmarks.product"), **found)
    if options.record is not None:
        append_record(record, options.record)
    if options.table is not None and options.record is not None:
        write_page(options.record, options.table)
    print(json.dumps(record.model_dump(mode="json"), indent=2))


def hessian_ways(risk: EmpiricalRisk, vector: Tensor) -> dict[str, Way]:
    """Every way to the product with ``vector``; the batched one takes it several times over."""
    kept, streamed = Hessian(risk), Hessian(risk, memory=0)
    names, shares = risk.names, [n / risk.num_examples for n in risk.lengths]
    weights = dict(zip(names, (leaf.detach() for leaf in risk.leaves), strict=True))
    batches = list(risk.batches)
    others = {name: p.detach() for name, p in risk.model.named_parameters() if name not in weights}

    def directional(weights: Weights, along: Weights, x: Tensor, y: Tensor) -> Weights:
        def loss(at: Weights) -> Tensor:
            return nn.functional.cross_entropy(functional_call(risk.model, others | at, (x,)), y)

        return jvp(grad(loss), (weights,), (along,))[1]  # type: ignore[no-any-return]

    def slope(x: Tensor, y: Tensor) -> Callable[[Weights], Weights]:
        return grad(lambda at: nn.functional.cross_entropy(functional_call(risk.model, others | at, (x,)), y))

    linear = [linearize(slope(x, y), weights)[1] for x, y in batches]
    compiled = torch.compile(directional)

    def along(v: Tensor) -> Weights:
        return dict(zip(names, risk.unflatten(v), strict=True))

    def total(parts: list[Weights]) -> Tensor:
        return sum((risk.flatten(p.values()) * s for p, s in zip(parts, shares, strict=True)), torch.zeros_like(vector))

    def linearized() -> Tensor:
        return total([product(along(vector)) for product in linear])

    def forward_over_reverse(way: Callable[..., Weights]) -> Tensor:
        return total([way(weights, along(vector), x, y) for x, y in batches])

    several = {name: part.expand(VECTORS, *part.shape).clone() for name, part in along(vector).items()}

    def batched() -> Tensor:
        found = [vmap(product)(several) for product in linear]
        return total([{name: part[0] for name, part in each.items()} for each in found])

    return {
        KEPT: lambda: kept @ vector,
        BUILT: lambda: streamed @ vector,
        "Hessian, torch.func.linearize": linearized,
        VMAPPED: batched,
        "Hessian, torch.func.jvp of grad": lambda: forward_over_reverse(directional),
        "Hessian, torch.func.jvp of grad, compiled": lambda: forward_over_reverse(compiled),
    }


def with_onednn(way: Way) -> Way:
    """The way with the matrix products that howsparse takes."""

    def run() -> object:
        with fast_matmul(torch.device("cpu")):
            return way()

    return run


def with_mkl(way: Way) -> Way:
    """The way with torch's own matrix products, in howsparse too."""

    def run() -> object:
        with mock.patch("howsparse.matmul._onednn_is_exact", return_value=False):
            return way()

    return run


def check_agreement(risk: EmpiricalRisk, vector: Tensor, ways: dict[str, Way]) -> dict[str, float]:
    """Relative difference of every way's product from the one in float64."""
    double = copy.deepcopy(risk.model).double()
    exact = Hessian(EmpiricalRisk(double, [(x.double(), y) for x, y in risk.batches])) @ vector.double()
    found = {name: torch.as_tensor(with_onednn(way)()) for name, way in ways.items()}
    errors = {name: float((product - exact).norm() / exact.norm()) for name, product in found.items()}
    for name, error in errors.items():
        if not error < 1e-3:
            raise SystemExit(f"{name}: differs from the product in float64 by {error:.1e}")
    return errors


def interleaved(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each way, all taking turns, after one call to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if turn:
                taken[name].append(time.perf_counter() - began)
    return {name: float(np.median(each)) for name, each in taken.items()}


if __name__ == "__main__":
    main()
