"""What the paper's big tasks cost on the device at hand: training, curvature products, and the whole run.

    python -m benchmarks.big_tasks TASK... --data FOLDER_OR_HUB_NAME [--batches 40] [--images 512] [--rounds 3]
        [--record results/big_tasks.jsonl] [--table docs/big-tasks.md]

Training is howsparse's loop beside a plain one: the same network and batches in float32, and the l1 term as a part of
the loss. Products are those of howsparse beside the other tools that are installed (`make bench-install`), in
gradients. All take turns, so that a slow phase of the machine affects all of them. From these times, the command says
how long `howsparse run TASK` would take. It takes about a minute for each task on a GPU and some minutes on a CPU, so
it is also the rehearsal for a GPU.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.big_tasks_page import IMAGES, KIND, PRODUCTS, write_page
from benchmarks.commands import own_command
from howsparse.problem import Problem, Training
from howsparse.records import Measurement, append_record, provenance
from howsparse.risk import GGN, EmpiricalRisk, Hessian
from howsparse.tasks import load_task
from howsparse.training import attach_l1, fit

_STUDY_BATCH = 128  # images in a batch of the timed products


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--data", required=True, help="the tasks' data: a hub name or a folder in the hub's schema")
    parser.add_argument("--batches", type=int, default=40, help="training batches in each turn")
    parser.add_argument("--images", type=int, default=512, help="images of the timed products")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", type=Path, default=Path("results/big_tasks.jsonl"))
    parser.add_argument("--table", type=Path, default=None)
    options = parser.parse_args()
    for task in options.tasks:
        problem = load_task(task, options.data)
        found = cost_of(problem, options.batches, options.images, options.rounds)
        made = provenance(own_command("benchmarks.big_tasks"))
        record = Measurement(kind=KIND, made=made, task=task, threads=torch.get_num_threads(), **found)
        append_record(record, options.record)
        print(json.dumps(record.model_dump(mode="json"), indent=2))
    if options.table is not None:
        write_page(options.record, options.table)


def cost_of(problem: Problem, batches: int, images: int, rounds: int) -> dict[str, Any]:
    """Measure training and products of a task, and work out the times of its run."""
    training = images_per_second(problem, batches, rounds)
    seconds = product_seconds(problem, images, rounds)
    step = seconds["Hessian, howsparse"] / images
    return {
        "images": images,
        "images_per_second": {name: round(rate, 1) for name, rate in training.items()},
        "product_gradients": {name: round(taken / seconds["gradient"], 2) for name, taken in seconds.items()},
        "hours": {
            "training": round(problem.epochs * problem.num_examples / training["howsparse"] / 3600, 2),
            "limit": round(PRODUCTS * min(IMAGES, problem.num_examples) * step / 3600, 2),
        },
    }


def images_per_second(problem: Problem, batches: int, rounds: int) -> dict[str, float]:
    """Training speed of howsparse's loop and of a plain one, which take turns on the same batches."""
    some = list(itertools.islice(iter(problem.epoch_batches(0)(0)), batches))
    count = sum(len(targets) for _, targets in some)
    ways = {"howsparse": own_loop(problem, some), "plain loop": plain_loop(problem, some)}
    return {name: count / taken for name, taken in timed(ways, rounds).items()}


def own_loop(problem: Problem, batches: list[Any]) -> Callable[[], object]:
    """One pass of howsparse's training; on a GPU the network is compiled and computes in bfloat16."""
    assert isinstance(problem.fit, Training)
    model = problem.initial()
    optimizer = problem.fit.optimizer(model)
    attach_l1(optimizer, problem.fit.penalised(model), problem.l1)
    return lambda: fit(model, optimizer, lambda epoch: batches, 1, loss=problem.loss)


def plain_loop(problem: Problem, batches: list[Any]) -> Callable[[], object]:
    """One pass of the loop that a script would have."""
    assert isinstance(problem.fit, Training)
    model = problem.initial().train()
    optimizer, weights = problem.fit.optimizer(model), problem.fit.penalised(model)

    def one_pass() -> None:
        for inputs, targets in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            (loss + problem.l1 * sum(weight.abs().sum() for weight in weights)).backward()
            optimizer.step()

    return one_pass


def product_seconds(problem: Problem, images: int, rounds: int) -> dict[str, float]:
    """Time of a gradient and of every product over the first ``images`` training images."""
    model = problem.initial().eval()
    inputs, targets = (torch.cat(parts) for parts in zip(*problem.study_batches(images), strict=True))
    pairs = list(zip(inputs.split(_STUDY_BATCH), targets.split(_STUDY_BATCH), strict=True))
    risk = EmpiricalRisk(model, pairs)
    vector = torch.randn(risk.num_weights, generator=torch.Generator().manual_seed(0)).to(inputs.device)
    hessian, ggn = Hessian(risk), GGN(risk)
    ways: dict[str, Callable[[], object]] = {
        "gradient": risk.gradient,
        "Hessian, howsparse": lambda: hessian @ vector,
        "Gauss-Newton, howsparse": lambda: ggn @ vector,
    }
    tools = peers.products(model, risk.names, pairs)
    ways |= {f"Hessian, {tool}": applied(way, vector) for tool, way in tools.items() if way is not None}
    return timed(ways, rounds)


def applied(way: Callable[[Tensor], Tensor], vector: Tensor) -> Callable[[], Tensor]:
    return lambda: way(vector)


def timed(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each way after a first call, which may compile; all take turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in itertools.chain.from_iterable([ways.items()] * (rounds + 1)):
        synchronise()
        began = time.perf_counter()
        way()
        synchronise()
        taken[name].append(time.perf_counter() - began)
    return {name: median(each[1:]) for name, each in taken.items()}


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
