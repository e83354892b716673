"""How right the cost of a limit is that is said before it starts: time and memory, estimated and taken.

    python -m benchmarks.cost --data FOLDER_OR_HUB_NAME --nets FOLDER [--record results/cost.jsonl]
        [--table docs/cost.md]

Five networks: an MLP on digits, FC5, ResNet20, ResNet18 and a Llama of 260,000 weights; ResNet20 and the Llama are in
the folder of --nets. Each case is a process of its own: it estimates, and then computes the limit. Memory is the
largest resident set above that before the estimate. Time is the processor's, on one thread, so that other processes do
not count. The estimate is of the largest numbers of products; it is compared at the numbers that the limit took, which
depend on the spectrum and which nobody knows before. It needs Linux. Cases recorded are not run again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import howsparse
from benchmarks.commands import own_command
from benchmarks.limit_networks import Effort, convnet, llama
from benchmarks.problems import train_images
from benchmarks.real_networks_cases import CASES, Sources
from howsparse.files import write_whole
from howsparse.limit.cost import limit_cost
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.risk.batches import batch_length
from howsparse.tasks.data import Batches, load_images
from howsparse.tasks.recipe import load_recipe
from howsparse.tasks.task import task_problem

WITHIN = 0.25


@dataclass(frozen=True)
class Case:
    """A network, its batches, and the largest number of products."""

    model: nn.Module
    batches: list[Any]
    max_products: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--data", default=None, help="CIFAR-10: a hub name or a folder in the hub's schema")
    parser.add_argument("--nets", type=Path, default=Path("nets"))
    parser.add_argument("--record", type=Path, default=Path("results/cost.jsonl"))
    parser.add_argument("--table", type=Path, default=Path("docs/cost.md"))
    parser.add_argument("--case", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        torch.set_num_threads(1)
        print(json.dumps(one_case(NETWORKS[options.case](options.data, options.nets))))
        return
    done = {line["network"] for line in read_lines(options.record)} if options.record.exists() else set()
    for network in options.networks:
        if network not in done:
            command = [sys.executable, "-m", "benchmarks.cost", "--case", network, "--nets", str(options.nets)]
            command += [] if options.data is None else ["--data", options.data]
            alone = os.environ | {"OMP_NUM_THREADS": "1"}
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=alone).stdout
            found = json.loads(answer.splitlines()[-1])
            print(network, found, file=sys.stderr)
            made = provenance(own_command("benchmarks.cost"))
            append_record(Measurement(kind="cost", made=made, network=network, **found), options.record)
    write_whole(options.table, lambda file: file.write_text(page(list(read_lines(options.record)))))
    print(options.table.read_text())


def one_case(case: Case) -> dict[str, Any]:
    """Estimate, compute the limit, and compare."""
    options = howsparse.LimitOptions(max_products=case.max_products, precision=1e-6)
    before = resident("VmRSS")
    began = time.process_time()
    cost = limit_cost(case.model, case.batches, options=options, clock=time.process_time)
    estimated = time.process_time() - began
    forget_peak()
    steps: dict[str, int] = {}
    planned: dict[str, int] = {}

    def watch(stage: str, done: int, total: int) -> None:
        steps[stage], planned[stage] = done, total

    began = time.process_time()
    limit = howsparse.pruning_limit(case.model, case.batches, options=options, progress=watch)
    seconds, peak = time.process_time() - began, resident("VmHWM") - before
    # What the same estimate says of the products and the Lanczos steps that were taken.
    vectors = cost.vectors * steps["bracket"] // planned["bracket"]
    taken = replace(cost, products=limit.num_products, vectors=vectors)
    return {
        "num_weights": limit.num_weights,
        "examples": sum(batch_length(batch) for batch in case.batches),
        "products_at_most": cost.products,
        "products": limit.num_products,
        "steps": steps,
        "stopped": limit.stopped,
        "seconds": seconds,
        "seconds_estimated": taken.seconds,
        "seconds_at_most": cost.seconds,
        "seconds_of_estimate": estimated,
        "bytes": peak,
        "bytes_estimated": taken.bytes,
        "bytes_at_most": cost.bytes,
        "mostly": taken.most,
    }


def resident(field: str) -> int:
    """Bytes of this process's memory: VmRSS now, VmHWM at most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}; this benchmark needs Linux")


def forget_peak() -> None:
    """Begin anew with VmHWM."""
    Path("/proc/self/clear_refs").write_text("5")


def digits(data: str | None, nets: Path) -> Case:
    problem = howsparse.load_task("digits")
    return Case(problem.initial(), list(Batches(train_images(problem), 128)), 400)


def fc5(data: str | None, nets: Path) -> Case:
    recipe = load_recipe("fc5-cifar10")
    train, test = load_images(recipe.data, data, first=500)
    return Case(task_problem(recipe, train, test).initial(), list(Batches(train, 125)), 64)


def resnet20(data: str | None, nets: Path) -> Case:
    nothing = Path("none")
    case = CASES["resnet20"](
        Sources(nets, Path(data or load_recipe("fc5-cifar10").data.source), nothing, nothing, nothing)
    )
    x, y = case.calibration[0]
    return Case(case.model, list(zip(x[:64].split(16), y[:64].split(16), strict=True)), 64)


def resnet18(data: str | None, nets: Path) -> Case:
    train, _ = load_images(load_recipe("fc5-cifar10").data, data, first=256)
    return Case(convnet(train), list(Batches(train.first(16), 4)), 32)


def llama_260k(data: str | None, nets: Path) -> Case:
    (network,) = llama(nets, Effort(32, 8, 1, 1), train=32, used=32)
    return Case(network.model, network.batches(), 48)


NETWORKS: dict[str, Callable[[str | None, Path], Case]] = {
    "digits MLP": digits,
    "FC5": fc5,
    "ResNet20": resnet20,
    "ResNet18": resnet18,
    "Llama 260K": llama_260k,
}


def page(lines: list[dict[str, Any]]) -> str:
    """The page in docs."""
    last = lines[-1]["made"]
    text = f"""# The cost of a limit, said in advance

Before `howsparse limit` computes the first product, it says how much time and memory the limit takes at most.
`howsparse.limit_cost(model, batches, options=...)` says the same. If the limit does not fit into the free memory, the
command refuses it and names a batch size that fits. The memory limits of containers and batch jobs (control groups) are
respected. This page is for readers who want to know how right these estimates are.

Made by `{last["command"]}` on this processor: {last["machine"]["processor"]}; the records are in `results/cost.jsonl`.
Each network runs in its own process. Time is processor time on one thread, so other processes do not count. Memory is
the largest resident set, less its size before the estimate.

The number of products depends on the spectrum, which is not known in advance. So the estimate that is said in advance
is for the largest number of products: it stands in brackets, as *at most*. To check the estimate, it is also computed
for the number of products that the limit took. *Estimated* is this number divided by what was used, so 1.00 is exact.

| network | weights | examples | products (at most) | seconds (at most) | estimated | MiB (at most) | estimated |
|---|---|---|---|---|---|---|---|
"""
    rows = [
        f"| {r['network']} | {r['num_weights']:,} | {r['examples']} | {r['products']} ({r['products_at_most']})"
        f" | {r['seconds']:.1f} ({r['seconds_at_most']:.1f}) | {ratio(r, 'seconds'):.2f}"
        f" | {r['bytes'] / 2**20:.0f} ({r['bytes_at_most'] / 2**20:.0f}) | {ratio(r, 'bytes'):.2f} |"
        for r in lines
    ]
    right = sum(abs(ratio(r, what) - 1) <= WITHIN for r in lines for what in ("seconds", "bytes"))
    took = max(r["seconds_of_estimate"] / r["seconds"] for r in lines)
    end = f"{right} of {2 * len(lines)} estimates are within {WITHIN:.0%}."
    end += f" Estimating takes at most {took:.0%} of the limit's time."
    return text + "\n".join(rows) + f"\n\n{end}\n"


def ratio(line: dict[str, Any], what: str) -> float:
    return float(line[f"{what}_estimated"] / line[what])


if __name__ == "__main__":
    main()
