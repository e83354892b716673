"""What one curvature product costs, in gradients of the same batches.

    python -m benchmarks.product --data FOLDER_OR_HUB_NAME [--images 4000] [--record results/product.jsonl]

FC5 at initialisation on CIFAR-10, float32. Gradient and products take turns in one process, so that a slow spell of the
machine falls on all of them; ratios are of medians.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from howsparse.curvature import GGN, EmpiricalRisk, Hessian
from howsparse.experiments.record import append_record, provenance
from howsparse.tasks import load_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=None)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--record", type=Path, default=None)
    options = parser.parse_args()
    task = load_task("fc5-cifar10", options.data)
    risk = EmpiricalRisk(task.network(), list(task.train_batches(1000, options.images)))
    vector = torch.randn(risk.num_weights, generator=torch.Generator().manual_seed(0))
    kept, streamed, ggn = Hessian(risk), Hessian(risk, memory=0), GGN(risk)
    ways: dict[str, Callable[[], object]] = {
        "gradient": risk.gradient,
        "hessian, graphs kept": lambda: kept @ vector,
        "hessian, graph rebuilt each time": lambda: streamed @ vector,
        "ggn, graphs kept": lambda: ggn @ vector,
    }
    seconds = interleaved(ways, options.rounds)
    ratios = {name: round(taken / seconds["gradient"], 3) for name, taken in seconds.items()}
    result: dict[str, object] = {
        "kind": "product",
        "images": options.images,
        "threads": torch.get_num_threads(),
        "product_gradients": ratios,
        "seconds": {name: round(taken, 4) for name, taken in seconds.items()},
    }
    if options.record is not None:
        append_record(result | provenance() | {"command": "python -m benchmarks.product"}, options.record)
    print(json.dumps(result, indent=2))


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
