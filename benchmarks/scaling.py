"""One limit over several processes: the same images for all together (strong), and as many for each (weak).

    python -m benchmarks.scaling [--processes 1 2] [--record results/growth.jsonl] [--table docs/growth.md]

A network of a million weights and FC5, both at initialisation, random images, 32 products, float32, one thread a
process. `torchrun` starts the processes. Cases recorded are not run again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import howsparse
from benchmarks.growth import random_network
from benchmarks.growth_page import write_page
from howsparse.parallel import is_first, join, sum_, world_size
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.tasks.networks import fc5, kaiming_normal_

NETWORKS = ("million", "fc5")
EACH, BATCH, PRODUCTS, SUMS = 1024, 128, 32, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--record", type=Path, default=Path("results/growth.jsonl"))
    parser.add_argument("--table", type=Path, default=Path("docs/growth.md"))
    parser.add_argument("--case", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        answer = one_case(options.case[0], int(options.case[1]))
        if is_first():
            print(json.dumps(answer))
        return
    lines = [r for r in read_lines(options.record) if r["kind"] == "scaling"]
    done = {(r["network"], r["images"], r["processes"]) for r in lines}
    for network, images, processes in cases(options.processes):
        if (network, images, processes) not in done:
            answer = started(network, images, processes)
            print(answer, file=sys.stderr)
            made = provenance("python -m benchmarks.scaling")
            append_record(Measurement(kind="scaling", made=made, **answer), options.record)
    write_page(options.record, options.table)


def cases(processes: list[int]) -> list[tuple[str, int, int]]:
    """Network, images and processes: several processes with as many images each as one has, which also has them all."""
    counts = sorted(set(processes))
    alone = [(EACH * count, 1) for count in counts]
    together = [(EACH * count, count) for count in counts if count > 1]
    return [(network, images, count) for network in NETWORKS for images, count in (*alone, *together)]


def started(network: str, images: int, processes: int) -> dict[str, Any]:
    """What one case in processes of its own answers."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *launcher, "-m", "benchmarks.scaling", "--case", network, str(images)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one_case(network: str, images: int) -> dict[str, Any]:
    """The limit of one network, and the time in which one of its vectors is summed over the processes."""
    join()
    torch.set_num_threads(1)
    model, shape = build(network)
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(images, *shape, generator=generator), torch.arange(images) % 10
    batches = list(zip(inputs.split(BATCH), targets.split(BATCH), strict=True))
    began = time.perf_counter()
    limit = howsparse.pruning_limit(model, batches, max_products=PRODUCTS, precision=0.0, tolerance=0.1)
    seconds = time.perf_counter() - began
    return {
        "network": network,
        "num_weights": limit.num_weights,
        "images": images,
        "processes": world_size(),
        "products": limit.num_products,
        "seconds": round(seconds, 3),
        "sum_seconds": round(seconds_of_sum(limit.num_weights), 4),
        "limit": limit.errors.middle,
    }


def build(network: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network at initialisation, and the shape of its inputs."""
    if network == "million":
        return random_network(10**6), (256,)
    torch.manual_seed(0)
    model = fc5()
    kaiming_normal_(model)
    return model, (3, 32, 32)


def seconds_of_sum(size: int) -> float:
    """Median time of one sum of a float32 vector over all processes."""
    vector, taken = torch.zeros(size), []
    for _ in range(SUMS):
        began = time.perf_counter()
        sum_(vector)
        taken.append(time.perf_counter() - began)
    return sorted(taken)[SUMS // 2]


if __name__ == "__main__":
    main()
