"""Time and peak memory of a limit against the number of weights and of images.

    python -m benchmarks.growth [--largest 1e8] [--record results/growth.jsonl] [--table docs/growth.md]

ReLU networks with two hidden layers at initialisation, random images, 48 products, float32. Every case is a process of
its own, so that its peak memory is its own. Exponents are slopes of log against log. Cases recorded are not run again.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import howsparse
from benchmarks.growth_page import write_page
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.tasks.networks import kaiming_normal_, mlp

SIZES = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
IMAGES = (256, 1024, 4096, 16384)
FIXED_SIZE, FIXED_IMAGES = 1_000_000, 256
INPUTS, PRODUCTS = 256, 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=float, default=1e8)
    parser.add_argument("--record", type=Path, default=Path("results/growth.jsonl"))
    parser.add_argument("--table", type=Path, default=Path("docs/growth.md"))
    parser.add_argument("--case", type=int, nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(one_case(*options.case)))
        return
    wanted = [(size, FIXED_IMAGES) for size in SIZES if size <= options.largest]
    wanted += [(FIXED_SIZE, images) for images in IMAGES if images != FIXED_IMAGES]
    done = {(r["asked"], r["images"]) for r in read_lines(options.record) if r["kind"] == "growth"}
    for size, images in wanted:
        if (size, images) not in done:
            command = [sys.executable, "-m", "benchmarks.growth", "--case", str(size), str(images)]
            answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(answer, file=sys.stderr)
            made = provenance("python -m benchmarks.growth")
            append_record(Measurement(kind="growth", made=made, **answer), options.record)
    write_page(options.record, options.table)


def random_network(size: int) -> nn.Module:
    """A network of about ``size`` weights at initialisation: inputs - h - h - 10."""
    hidden = round((math.sqrt((INPUTS + 10) ** 2 + 4 * size) - INPUTS - 10) / 2)
    torch.manual_seed(0)
    model = mlp(INPUTS, hidden, hidden, 10)
    kaiming_normal_(model)
    return model


def one_case(size: int, images: int) -> dict[str, Any]:
    """The limit of a network of about ``size`` weights."""
    model = random_network(size)
    targets = torch.arange(images) % 10
    batches = [(x, y) for x, y in zip(torch.randn(images, INPUTS).split(128), targets.split(128), strict=True)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    limit = howsparse.pruning_limit(model, batches, max_products=PRODUCTS, precision=0.0, tolerance=0.1)
    return {
        "asked": size,
        "num_weights": limit.num_weights,
        "images": images,
        "products": limit.num_products,
        "seconds": round(time.perf_counter() - began, 3),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "bytes_before": 1024 * before,
        "limit": limit.errors.middle,
        "bracket": limit.bracket,
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
