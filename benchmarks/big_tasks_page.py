"""The page docs/big-tasks.md, made of the records of `benchmarks.big_tasks`.

python -m benchmarks.big_tasks_page [--record results/big_tasks.jsonl] [--table docs/big-tasks.md]
"""

import argparse
from pathlib import Path
from typing import Any

from howsparse.files import write_whole
from howsparse.records import Measurement, read_records

__all__ = ["IMAGES", "KIND", "PRODUCTS", "write_page"]

KIND = "big task"
IMAGES, PRODUCTS = 10_000, 100  # of the limit in the commands
_RUN = f"howsparse run {{task}} --data {{data}} --images {IMAGES} --max-products {PRODUCTS} --record results/runs.jsonl"
_COMPARE = (
    "howsparse compare vgg16-cifar10 --data cifar10 --methods dense,random,rare_gems,lottery_ticket --sparsities 0.99"
    " --seeds 1 --record results/runs.jsonl"
)

INTRODUCTION = f"""# The paper's big tasks

Six of the paper's tasks train convolutional networks for 200 epochs, which needs a GPU. This page is for readers who
want to run them. It has the commands, and how long they take on the devices that were measured.

## The commands

Each line trains, computes the limit from {PRODUCTS} curvature products in float32 on {IMAGES:,} training images,
measures, prunes, and appends one record, which names the device. Training on a GPU computes in bfloat16. The folder
`runs` stores the checkpoint every half minute, the trained weights and the limit. After any interruption, the same
command continues, also on another machine that has the folder.

```
{_RUN.format(task="vgg16-cifar10", data="cifar10")}
{_RUN.format(task="alexnet-cifar10", data="cifar10")}
{_RUN.format(task="resnet18-cifar100", data="cifar100")}
{_RUN.format(task="resnet50-cifar100", data="cifar100")}
{_RUN.format(task="resnet18-tinyimagenet", data="tinyimagenet")}
{_RUN.format(task="resnet50-tinyimagenet", data="tinyimagenet")}
```

On a machine with a time limit, put `timeout -s INT SECONDS` before the command. The training then stops in time, and
what was done is kept.

On a machine without internet, give the data as files. A folder in the schema of the Hugging Face hub may hold any
number of parquet files for a split (`train-00000-of-00005.parquet` and so on), so the files can be copied one at a
time. `python -m benchmarks.standin TASK FOLDER --data D --images 50000` writes such a folder from any data set of the
hub.

The first of these commands makes the other columns of Table 3, at the sparsity that the command above printed. The
second one uses the settings of the authors' code:

```
{_COMPARE}
{_RUN.format(task="vgg16-cifar10@authors", data="cifar10")}
```

## How long they take

Made by `python -m benchmarks.big_tasks TASK... --data D --table docs/big-tasks.md`; the records are in
`results/big_tasks.jsonl`. *Images a second* is the speed of training with howsparse, and then of a *plain loop* in
float32. *Gauss-Newton* and *Hessian* are the time of a product, divided by the time of a gradient. *Hours* are the time
that the command above would take for its training and for the products of its *limit*. Measuring the pruned networks
takes further time.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, default=Path("results/big_tasks.jsonl"))
    parser.add_argument("--table", type=Path, default=Path("docs/big-tasks.md"))
    options = parser.parse_args()
    write_page(options.record, options.table)


def write_page(records: Path, table: Path) -> None:
    """Write the page from the last record of each task on each device."""
    found = [record.model_dump(mode="json") for record in read_records(Measurement, (KIND,), records)]
    last = {(device(result), result["task"]): result for result in found}
    text = INTRODUCTION + section(list(last.values()))
    write_whole(table, lambda file: file.write_text(text))


def section(results: list[dict[str, Any]]) -> str:
    """The table of all tasks and devices."""
    tools = sorted({name for result in results for name in result["product_gradients"]} - {"gradient"})
    heads = ["device", "task", "images a second", "plain loop", *tools, "hours: training", "limit"]
    lines = [heads, ["---"] * len(heads), *(row(result, tools) for result in results)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def row(result: dict[str, Any], tools: list[str]) -> list[str]:
    """The cells of a task on a device."""
    speed, products = result["images_per_second"], result["product_gradients"]
    return [
        device(result),
        result["task"],
        f"{speed['howsparse']:,.0f}",
        f"{speed['plain loop']:,.0f}",
        *(f"{products[name]:.2f}" if name in products else "-" for name in tools),
        f"{result['hours']['training']:.1f}",
        f"{result['hours']['limit']:.1f}",
    ]


def device(result: dict[str, Any]) -> str:
    """The GPU, or the processor with its number of threads."""
    machine = result["made"]["machine"]
    return str(machine["accelerator"] or f"{machine['processor']}, {result['threads']} threads")


if __name__ == "__main__":
    main()
