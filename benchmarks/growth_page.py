"""The page docs/growth.md, from the records of `benchmarks.growth`, `benchmarks.vectors` and `benchmarks.scaling`."""

from pathlib import Path
from typing import Any

import numpy as np

from howsparse.files import write_whole
from howsparse.records import read_lines

__all__ = ["write_page"]

Records = list[dict[str, Any]]

INTRODUCTION = """# Growth

This page shows how the time and memory of a limit grow with the number of weights, images and processes. It is for
readers with large networks. Made by `python -m benchmarks.growth`, `benchmarks.vectors` and `benchmarks.scaling`; the
records are in `results/growth.jsonl`. The networks have two hidden layers, the images are random, and a limit takes at
most 48 products in float32. Each case runs in its own process. Peak memory is that of the whole process with the
model."""

VECTORS = """## Vectors

A Lanczos step takes a product and some work on vectors. This table has the time of both, by `python -m
benchmarks.vectors`, with one thread. *Before*: every step made its vector orthogonal to the whole basis. *After*: a
step does this only when the measured loss of orthogonality requires it, for two vectors at a time
([theory.md](theory.md), "Rounding"). All numbers are means over the ten steps that end at *step*. *Factor* is the time
of the vectors before, divided by the time after. *Basis read* is how much of the stored basis a step reads. The last
columns are the share of the vectors in the time of a step. A basis in bfloat16 has larger rounding errors and loses its
orthogonality sooner. So little or nothing is gained there after some tens of steps. The machine was busy with other
work."""

SCALING = """## Several processes

One limit is computed by one or two processes of one thread each on one machine, by `python -m benchmarks.scaling`. The
processes share its memory and its caches. Each process has its part of the images, and holds all weights and all
Lanczos vectors. With every product they sum one vector of the length of the weights. *Efficiency, strong* compares runs
with the same number of images in all: the time of one process, divided by the time of several and by their number.
*Weak* compares runs with the same number of images for each process: the time of one process, divided by the time of
several. 1 is perfect."""

# Assumptions of the model below; nothing of this was measured here.
DEVICES, WEIGHTS, STEPS = 64, 10**11, 100
DEVICE_BYTES, MEMORY_BANDWIDTH, LINK_BANDWIDTH, HOST_BANDWIDTH = 80e9, 3e12, 50e9, 50e9
FLOAT, HALF = 4, 2
HELD = 8  # float32 vectors: three newest, product, two signed sums, the Gaussian vector, its product
PASSES = 26  # reads and writes of such vectors in a step, without the basis


def write_page(record: Path, page: Path) -> None:
    """Write the page from all records, and print it."""
    records = read_lines(record)
    kinds = {kind: [r for r in records if r["kind"] == kind] for kind in ("growth", "vectors", "scaling")}
    parts = [growth(kinds["growth"])]
    parts += [vectors(kinds["vectors"])] if kinds["vectors"] else []
    parts += [scaling(kinds["scaling"])] if kinds["scaling"] else []
    parts += [large(kinds["vectors"])] if any(is_model_case(r) for r in kinds["vectors"]) else []
    write_whole(page, lambda file: file.write_text("\n".join(parts)))
    print(page.read_text())


def growth(records: Records) -> str:
    """Time and memory against weights and images."""
    fixed_images, fixed_size = min(r["images"] for r in records), 10**6
    by_size = sorted((r for r in records if r["images"] == fixed_images), key=lambda r: r["num_weights"])
    by_images = sorted((r for r in records if r["asked"] == fixed_size), key=lambda r: r["images"])
    lines = [INTRODUCTION, "", "| weights | images | products | seconds | peak memory, GiB |", "|---|---|---|---|---|"]
    for r in (*by_size, *(r for r in by_images if r not in by_size)):
        gib = r["peak_bytes"] / 2**30
        lines.append(f"| {r['num_weights']:,} | {r['images']:,} | {r['products']} | {r['seconds']:.1f} | {gib:.2f} |")
    wide = [r for r in by_size if r["num_weights"] >= 10**6]
    lines += ["", "Exponents (slope of log against log):", ""]
    lines.append(f"- seconds against weights, from a million up: {slope(wide, 'num_weights', 'seconds')}")
    lines.append(f"- peak memory against weights, from a million up: {slope(wide, 'num_weights', 'peak_bytes')}")
    lines.append(f"- seconds against images: {slope(by_images, 'images', 'seconds')}")
    lines.append(f"- peak memory against images: {slope(by_images, 'images', 'peak_bytes')}")
    return "\n".join(lines) + "\n"


def slope(records: Records, x: str, y: str) -> str:
    if len(records) < 2:
        return "-"
    return f"{np.polyfit(np.log([r[x] for r in records]), np.log([r[y] for r in records]), 1)[0]:.2f}"


def vectors(records: Records) -> str:
    """Vector work of a step before and after."""
    lines = [VECTORS, "", "| case | weights | basis | step | product, s | vectors before, s | after, s | factor |"]
    lines[-1] += " basis read before, GB | after, GB | share of a step before | after |"
    lines += ["|---" * 12 + "|"]
    found = {(r["case"], r["way"]): r for r in records}
    for after in (r for r in records if r["way"] == "after" and (r["case"], "before") in found):
        before = found[after["case"], "before"]
        for step, new in after["steps"].items():
            old = before["steps"][step]
            share = [each["vectors"] / (each["vectors"] + each["product"]) for each in (old, new)]
            lines.append(
                f"| {after['case']} | {after['num_weights']:,} | {after['storage']} | {step} | {new['product']:.2f}"
                f" | {old['vectors']:.2f} | {new['vectors']:.2f} | {old['vectors'] / new['vectors']:.1f}"
                f" | {old['bytes'] / 1e9:.1f} | {new['bytes'] / 1e9:.1f} | {share[0]:.0%} | {share[1]:.0%} |"
            )
    return "\n".join(lines) + "\n"


def scaling(records: Records) -> str:
    """Strong and weak scaling of one limit."""
    lines = [SCALING, "", "| network | weights | images | processes | products | seconds | efficiency |"]
    lines[-1] += " sum of a vector, s |"
    lines += ["|---" * 8 + "|"]
    alone = {(r["network"], r["images"]): r["seconds"] for r in records if r["processes"] == 1}
    for r in sorted(records, key=lambda r: (r["num_weights"], r["processes"], r["images"])):
        count, said = r["processes"], "-"
        if count > 1:
            strong = alone[r["network"], r["images"]] / r["seconds"] / count
            weak = alone[r["network"], r["images"] // count] / r["seconds"]
            said = f"strong {strong:.2f}, weak {weak:.2f}"
        lines.append(
            f"| {r['network']} | {r['num_weights']:,} | {r['images']:,} | {count} | {r['products']}"
            f" | {r['seconds']:.1f} | {said} | {r['sum_seconds']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def is_model_case(record: dict[str, Any]) -> bool:
    """Whether the record has the share of the basis that a step reads, which the model takes."""
    return bool(record["way"] == "after" and record["case"] == "fc5-bfloat16")


def large(records: Records) -> str:
    """The model of a limit of many weights on many devices."""
    measured = next(r for r in records if is_model_case(r))
    steps = max(map(int, measured["steps"]))
    share = measured["reads"] / steps**2
    usable, per_weight = 0.9 * DEVICE_BYTES, FLOAT * (1 + HELD) + HALF * STEPS
    own, whole = WEIGHTS / DEVICES, FLOAT * WEIGHTS
    sent = (DEVICES - 1) / DEVICES * whole  # by each device, to gather or to scatter one vector
    reads, passes = share * STEPS * HALF * own, PASSES * FLOAT * own
    held, basis = FLOAT * (1 + HELD) * own, HALF * STEPS * own
    step = 3 * sent / LINK_BANDWIDTH + reads / HOST_BANDWIDTH + passes / MEMORY_BANDWIDTH
    times = per_weight * WEIGHTS / usable
    return f"""## {DEVICES} devices and {WEIGHTS:.0e} weights, on paper

This section is an estimate, and nothing of it was run. It asks what a limit of a very large network would need. One
number is measured: on FC5, Lanczos with a basis in bfloat16 read {share:.2f} k² basis vectors in k = {steps} steps (a
full orthogonalisation reads k²). These numbers are assumed: {gb(DEVICE_BYTES)} of memory for each device, of which nine
tenths can be used, {MEMORY_BANDWIDTH / 1e12:.0f} TB/s to this memory, {gb(LINK_BANDWIDTH)}/s to other devices and
{gb(HOST_BANDWIDTH)}/s to the host, {STEPS} steps, float32 vectors and a bfloat16 basis. The arithmetic of the product
and the graphs of its images are left out.

**As it is now**, every process holds all weights, {HELD} vectors and the basis:

| | for each device |
|---|---|
| weights | {gb(whole)} |
| {HELD} vectors | {gb(HELD * whole)} |
| basis | {gb(HALF * WEIGHTS * STEPS)} |
| sent in a step, to sum a product (ring) | {gb(2 * sent)}, {2 * sent / LINK_BANDWIDTH:.0f} s |

That is {times:,.0f} times more than a device can hold. A device can hold {usable / per_weight:.1e} weights in this way.

**What would have to be divided among the devices**: weights, vectors and basis, so that a device has {own:.1e} numbers
of each vector, and the graphs of a product. Lanczos itself stays as it is: its inner products become sums of a few
numbers over all devices, at most {2 * STEPS} in a step that restores orthogonality.

| | for each device |
|---|---|
| weights and {HELD} vectors | {gb(held)} |
| basis | {gb(basis)} |
| sent in a step, to gather weights and direction and to scatter the sum | {gb(3 * sent)},\
 {3 * sent / LINK_BANDWIDTH:.0f} s |
| basis read in a step, on average, from the device's memory | {gb(reads)}, {reads / MEMORY_BANDWIDTH:.2f} s |
| the same from the host's memory | {gb(reads)}, {reads / HOST_BANDWIDTH:.1f} s |
| {PASSES} reads and writes of vectors in a step | {gb(passes)}, {passes / MEMORY_BANDWIDTH:.2f} s |

Beside weights and vectors, a device has room for {max(0, (usable - held) / (HALF * own)):.0f} basis vectors. So
{DEVICES} such devices cannot keep the basis of {STEPS} steps. This takes {times:,.0f} devices, or {gb(basis)} of the
host's memory for each device. With the host's memory, a step takes {step:.0f} s and the arithmetic of the product, and
{STEPS} steps take {STEPS * step / 60:.0f} minutes, most of it for sending vectors between devices. howsparse cannot
divide a network in this way.
"""


def gb(number: float) -> str:
    return f"{number / 1e9:,.0f} GB"
