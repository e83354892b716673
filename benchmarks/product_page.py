"""The page docs/product.md, made of the records of `benchmarks.product` and `benchmarks.convolutions`.

python -m benchmarks.product_page [--record results/product.jsonl] [--table docs/product.md]
"""

import argparse
from pathlib import Path
from typing import Any

from howsparse.files import write_whole
from howsparse.records import Measurement, read_records

__all__ = ["KIND", "write_page"]

KIND = "convolutional product"
NAMES = {"resnet20": "ResNet20", "resnet18": "ResNet18"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, default=Path("results/product.jsonl"))
    parser.add_argument("--table", type=Path, default=Path("docs/product.md"))
    options = parser.parse_args()
    write_page(options.record, options.table)


def write_page(records: Path, table: Path) -> None:
    """Write the page from the last record of each network in a file."""
    fc5 = [r.model_dump(mode="json") for r in read_records(Measurement, ("product",), records)]
    others = [r.model_dump(mode="json") for r in read_records(Measurement, (KIND,), records)]
    last = {result["network"]: result for result in others}
    text = "# What a product costs\n" + "".join(fully_connected(result) for result in fc5[-1:])
    if last:
        text += INTRODUCTION + "".join(convolutional(last[name]) for name in NAMES if name in last)
    write_whole(table, lambda file: file.write_text(text))


def fully_connected(result: dict[str, Any]) -> str:
    """The section on FC5."""
    ratios, errors = result["product_gradients"], result["errors"]
    processor = result["made"]["machine"]["processor"]
    rows = [f"| {name} | {ratio:.2f} | {show(errors.get(name))} |" for name, ratio in ratios.items()]
    text = f"""
A curvature product multiplies the Hessian or the Gauss-Newton matrix by a vector. This page compares ways to compute
it, in howsparse, in torch and in other tools. It is for readers who choose a tool for curvature.

Made by `python -m benchmarks.product` on {result["images"]:,} images, with {result["threads"]} threads on this
processor: {processor}; the record is in `results/product.jsonl`. The network is FC5 at initialisation, in float32.
*Gradients* is the time of a product, divided by the time of a gradient of the same batches. The gradient uses the
matrix products of oneDNN, which howsparse uses if they do not round (`howsparse/matmul.py`). Rows with "MKL" use
torch's default. The *relative error* compares with the same product in float64. Errors much above 1e-6 come from a
single unit: on one image, rounding puts its input on the other side of the ReLU.

| way | gradients | relative error |
|---|---|---|
"""
    return text + "".join(f"{row}\n" for row in rows)


INTRODUCTION = """
## Convolutional networks

torch differentiates the gradient of a convolution by convolutions whose kernels are as large as the images. howsparse
computes the same derivatives by the three operations of a gradient (`howsparse/risk/derivatives.py`), merges each
normalisation into the convolution before it, and stores images with their channels last. If all graphs are stored, a
Hessian product then needs as many convolutions as 2 gradients, and a Gauss-Newton product as many as 4/3 of a gradient.
If memory holds only a part of the graphs, the others are built again, without values that no derivative needs. The
numbers are then 8/3 and 5/3 for these graphs.
"""


def convolutional(result: dict[str, Any]) -> str:
    """The section on a convolutional network."""
    own = result["gradients"]["gradient, howsparse's derivatives"]
    stored, differences = result["graph_bytes"], result["differences"]
    rows = [
        f"| {name} | {ratio:.2f} | {ratio / own:.2f} | {megabytes(stored.get(name))} | {show(differences[name])} |"
        for name, ratio in result["gradients"].items()
    ]
    text = f"""
### {NAMES[result["network"]]}

Made by `{result["made"]["command"]}`: {result["images"]} images in batches of {result["batch"]}, with
{result["threads"]} threads on this processor: {result["made"]["machine"]["processor"]}. Its load at the start was
{result["load"][0]}. *Gradients* is the time divided by that of torch's gradient. *Own gradients* is the time divided by
that of the gradient with howsparse's derivatives, in the same memory format. *Graph* is the size of one image's stored
graph, in megabytes. *Difference* is the relative difference from the product with torch's derivatives.

| way | gradients | own gradients | graph | difference |
|---|---|---|---|---|
"""
    return text + "".join(f"{row}\n" for row in rows) + less_memory(result["network"], result["gradients"])


# Of ResNet20's three stages, which take equal numbers of operations: shares of the graphs' memory.
STAGES = (4 / 7, 2 / 7, 1 / 7)


def less_memory(network: str, gradients: dict[str, float]) -> str:
    """What recomputation by groups of layers could win, from the measured times."""
    whole, third, nothing = (
        gradients[f"Hessian, howsparse{part}"] for part in ("", ", a third of the memory", ", no memory")
    )
    text = (
        f"\nA Hessian product takes {third:.2f} gradients with a third of the memory, and {whole:.2f} with all of it."
        f" So a better way to\nbuild graphs again can save at most {1 - whole / third:.0%}."
    )
    if network != "resnet20":
        return text + "\n"
    left, again = 1 / 3, 0.0
    for share in reversed(STAGES):
        again += (1 - min(1.0, left / share)) / len(STAGES)
        left -= min(left, share)
    expected = whole + again * (nothing - whole)
    return (
        f"{text} One such way is to store the graphs of some layers for all\nimages. The last layers take the least"
        f" memory for their operations, so a third of the memory holds {1 - again:.0%} of the\noperations. The others"
        f" are built again for each product. At best, this takes {expected:.2f} gradients, which is"
        f" {1 - expected / third:.0%} less than\nnow. This is so little that howsparse does not do it.\n"
    )


def show(error: float | None) -> str:
    return "" if error is None else f"{error:.0e}"


def megabytes(count: float | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f}"


if __name__ == "__main__":
    main()
