"""How often the bracket holds the exact limit: 200 random small networks.

    python -m benchmarks.coverage [--cases 200] [--record results/coverage.jsonl]

Each case draws a ReLU network on a few hundred digits: widths, l1 strength, length of training, tolerance, reading of
curvature, products and probes are all random. Exact: the dense Hessian or Gauss-Newton spectrum in float64.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import howsparse
from benchmarks.exact import dense_hessian
from benchmarks.problems import train_images
from howsparse.geometry import Magnitudes, absolute_filter, clipped_filter, fixed_point, minimal_density
from howsparse.limit.options import Curvature, Negative
from howsparse.records import Measurement, append_record, provenance
from howsparse.risk.curvature import GGN
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.tasks import load_task
from howsparse.tasks.networks import kaiming_normal_, mlp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--record", type=Path, default=None)
    options = parser.parse_args()
    cases = [one_case(seed) for seed in range(options.cases)]
    inside = [case["low"] <= case["exact"] <= case["high"] for case in cases]
    misses = [case for case, held in zip(cases, inside, strict=True) if not held]
    result: dict[str, Any] = {
        "cases": len(cases),
        "inside": sum(inside),
        "share": sum(inside) / len(cases),
        "median_width": float(np.median([case["high"] - case["low"] for case in cases])),
        "median_error_of_middle": float(np.median([abs(case["limit"] - case["exact"]) for case in cases])),
        "misses": misses,
    }
    if options.record is not None:
        made = provenance("python -m benchmarks.coverage")
        append_record(Measurement(kind="coverage", made=made, **result), options.record)
    print(json.dumps(result, indent=2))


def one_case(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    images = train_images(load_task("digits")).first(int(rng.integers(150, 400)))
    inputs, targets = images.normalised(images.pixels), images.labels
    model = trained(inputs, targets, seed, rng)
    curvature: Curvature = "hessian" if rng.random() < 0.75 else "ggn"
    negative: Negative = "unbounded" if curvature == "hessian" and rng.random() < 0.5 else "wall"
    tolerance = float(10 ** rng.uniform(-4, -1))
    probes = int(rng.integers(1, 3))
    limit = howsparse.pruning_limit(
        model,
        list(zip(inputs.split(100), targets.split(100), strict=True)),
        curvature=curvature,
        negative=negative,
        tolerance=tolerance,
        probes=probes,
        max_products=int(rng.integers(40, 160)) * probes,
        seed=seed,
    )
    model.double()
    matrix = dense_hessian(model, inputs, targets) if curvature == "hessian" else dense_ggn(model, inputs, targets)
    eigenvalues = torch.linalg.eigvalsh(matrix).numpy()
    weights = torch.cat([w.detach().flatten() for w in howsparse.prunable_weights(model).values()])
    share = absolute_filter if negative == "wall" else clipped_filter
    exact = 1 - fixed_point(
        lambda scale: minimal_density(eigenvalues, scale, factor=share), Magnitudes(weights.numpy()), tolerance
    )
    low, high = limit.bracket
    return {
        "seed": seed,
        "num_weights": limit.num_weights,
        "curvature": curvature,
        "negative": negative,
        "exact": exact,
        "limit": limit.errors.middle,
        "low": low,
        "high": high,
    }


def trained(inputs: Tensor, targets: Tensor, seed: int, rng: np.random.Generator) -> nn.Module:
    torch.manual_seed(seed)
    model = mlp(64, int(rng.integers(4, 12)), int(rng.integers(4, 12)), 10)
    kaiming_normal_(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    howsparse.attach_l1(optimizer, howsparse.prunable_weights(model).values(), float(10 ** rng.uniform(-5, -2)))
    for _ in range(int(rng.integers(20, 300))):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model


def dense_ggn(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    operator = GGN(EmpiricalRisk(model, [(inputs.double(), targets)]))
    return operator @ torch.eye(operator.shape[0], dtype=torch.float64)


if __name__ == "__main__":
    main()
