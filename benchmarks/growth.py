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

import numpy as np
import torch

import howsparse
from howsparse.files import write_whole
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
    done = {(r["asked"], r["images"]) for r in read_lines(options.record)}
    for size, images in wanted:
        if (size, images) not in done:
            command = [sys.executable, "-m", "benchmarks.growth", "--case", str(size), str(images)]
            answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(answer, file=sys.stderr)
            made = provenance("python -m benchmarks.growth")
            append_record(Measurement(kind="growth", made=made, **answer), options.record)
    write_whole(options.table, lambda file: file.write_text(table(read_lines(options.record))))
    print(options.table.read_text())


def one_case(size: int, images: int) -> dict[str, Any]:
    """The limit of a network of about ``size`` weights: inputs - h - h - 10."""
    hidden = round((math.sqrt((INPUTS + 10) ** 2 + 4 * size) - INPUTS - 10) / 2)
    torch.manual_seed(0)
    model = mlp(INPUTS, hidden, hidden, 10)
    kaiming_normal_(model)
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


def table(records: list[dict[str, Any]]) -> str:
    """The page in docs."""
    by_size = sorted((r for r in records if r["images"] == FIXED_IMAGES), key=lambda r: r["num_weights"])
    by_images = sorted((r for r in records if r["asked"] == FIXED_SIZE), key=lambda r: r["images"])
    lines = [
        "# Growth",
        "",
        "Made by `python -m benchmarks.growth`; the records are in `results/growth.jsonl`. The networks have two",
        f"hidden layers, the images are random, and a limit takes at most {PRODUCTS} products in float32. Each case",
        "runs in its own process; peak memory is that of the whole process, including the model.",
        "",
        "| weights | images | products | seconds | peak memory, GiB |",
        "|---|---|---|---|---|",
    ]
    for r in (*by_size, *(r for r in by_images if r not in by_size)):
        gib = r["peak_bytes"] / 2**30
        lines.append(f"| {r['num_weights']:,} | {r['images']:,} | {r['products']} | {r['seconds']:.1f} | {gib:.2f} |")
    large = [r for r in by_size if r["num_weights"] >= 10**6]
    lines += ["", "Exponents (slope of log against log):", ""]
    lines.append(f"- seconds against weights, from a million up: {slope(large, 'num_weights', 'seconds')}")
    lines.append(f"- peak memory against weights, from a million up: {slope(large, 'num_weights', 'peak_bytes')}")
    lines.append(f"- seconds against images: {slope(by_images, 'images', 'seconds')}")
    lines.append(f"- peak memory against images: {slope(by_images, 'images', 'peak_bytes')}")
    return "\n".join(lines) + "\n"


def slope(records: list[dict[str, Any]], x: str, y: str) -> str:
    if len(records) < 2:
        return "-"
    return f"{np.polyfit(np.log([r[x] for r in records]), np.log([r[y] for r in records]), 1)[0]:.2f}"


if __name__ == "__main__":
    main()
