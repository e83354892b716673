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
Made by `python -m benchmarks.product` on {result["images"]:,} images, with {result["threads"]} threads on an
{processor} processor; the record is in `results/product.jsonl`. FC5 at initialisation, float32. *Gradients*: the time
of a product divided by the time of a gradient of the same batches. The gradient uses oneDNN's matrix products, which
howsparse takes where they do not round (`howsparse/matmul.py`); torch's default are MKL's, marked "MKL". The error is
relative to the same product in float64. Errors much above 1e-6 come from one unit that, on one image, rounding puts on
the other side of its ReLU.

| way | gradients | relative error |
|---|---|---|
"""
    return text + "".join(f"{row}\n" for row in rows)


INTRODUCTION = """
## Convolutional networks

torch differentiates the gradient of a convolution by convolutions whose kernels are as large as the images. howsparse
takes the same derivatives by the three operations of a gradient (`howsparse/risk/derivatives.py`), makes each
normalisation a part of the convolution before it, and stores images with their channels last. With all graphs stored, a
Hessian product then takes the convolutions of 2 gradients, and a Gauss-Newton product those of 4/3. Where memory holds
only a part of the graphs, the others are built again, without the values that no derivative reads: 8/3 and 5/3.
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
{result["threads"]} threads on an {result["made"]["machine"]["processor"]} processor, whose load was {result["load"][0]}
at the start. *Gradients*: the time divided by that of torch's gradient. *Own gradients*: divided by that of the
gradient with howsparse's derivatives, in the same memory format. *Graph*: megabytes of one image's stored graph. The
difference is relative to the product with torch's derivatives.

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
        f"\nWith a third of the memory, a Hessian product takes {third:.2f} gradients, with all {whole:.2f}. No way"
        f" to\ncompute graphs again can win more than the difference, {1 - whole / third:.0%}."
    )
    if network != "resnet20":
        return text + "\n"
    left, again = 1 / 3, 0.0
    for share in reversed(STAGES):
        again += (1 - min(1.0, left / share)) / len(STAGES)
        left -= min(left, share)
    expected = whole + again * (nothing - whole)
    return (
        f"{text} Groups of layers are not stored, because the\narithmetic allows little. The last layers take the least"
        f" memory for their operations, so a third of it holds the graphs\nof {1 - again:.0%} of the operations, of all"
        " images. The others are built again for each product. At best, that takes\n"
        f"{expected:.2f} gradients, {1 - expected / third:.0%} less than now.\n"
    )


def show(error: float | None) -> str:
    return "" if error is None else f"{error:.0e}"


def megabytes(count: float | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f}"


if __name__ == "__main__":
    main()
