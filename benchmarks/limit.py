"""What the pruning limit costs, and how exact it is, beside the authors' procedure and other tools.

    python -m benchmarks.limit --data FOLDER_OR_HUB_NAME --weights FC5.safetensors [--images 8000] [--json]
    python -m benchmarks.limit --quick

Two networks: the paper's FC5 on CIFAR-10, trained with l1, and a ResNet18 with BatchNorm at initialisation.

The authors' procedure takes 128 Lanczos steps from one Rademacher probe over the whole training set, rebuilds the graph
at each, samples 100 Hessian rows and evaluates 1,000 sparsities on the test set. (They leave the rows out for fully
connected networks; both counts are given.) Its answer moves by one or two points of sparsity from step to step, so
howsparse is asked for a bracket of that width, --precision.
That takes hours: a few products and evaluations are timed, on some of the images, and scaled by count. howsparse's own
time on FC5 is of the real thing, everything on ResNet18 is scaled. Gradient and products take turns in one process on
the same batches, and are compared with each other first.

--quick takes a small network on digits for FC5, a narrow one on random images for ResNet18, and fewer steps; it needs
no download, and its ratios say little.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import howsparse
from benchmarks import peers
from benchmarks.product import interleaved, with_onednn
from howsparse.experiments.train import train_task
from howsparse.files import write_whole
from howsparse.geometry import Magnitudes, absolute_filter, fixed_point, minimal_density
from howsparse.limit.bracket import solve_bracket
from howsparse.limit.compute import PruningLimit
from howsparse.linalg.lanczos import Lanczos
from howsparse.linalg.quadrature import Tridiagonal, gauss
from howsparse.linalg.spectrum import grow_spectrum
from howsparse.loading import load_weights
from howsparse.records import append_record, provenance
from howsparse.risk.curvature import Hessian
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.evaluate import evaluate
from howsparse.risk.weights import select_weights
from howsparse.tasks import load_task
from howsparse.tasks.data import Batches, Images
from howsparse.tasks.networks import kaiming_normal_, resnet

STEPS, ROWS, EVALUATIONS = 128, 100, 1000  # the authors'
TOOLS = ("pyhessian", "curvlinops", "hessian_eigenthings")
ONEDNN = ", by oneDNN"  # with the matrix products that howsparse takes; on a CPU torch's own are MKL's


@dataclass(frozen=True)
class Effort:
    """How much is timed before it is scaled.

    Attributes:
        images: training images of the products' comparison; whole batches.
        batch: examples in a batch, for every tool.
        rounds: turns that every tool takes.
        test_images: test images of one timed evaluation.
        overhead_steps: Lanczos steps at which vector work is timed.
    """

    images: int
    batch: int
    rounds: int
    test_images: int
    overhead_steps: int = 32


@dataclass(frozen=True)
class Network:
    """A network under study, its images, and where its weights come from.

    Attributes:
        ours: howsparse's way at all training images: memory holds the graphs of a fully connected network's, but of a
            few hundred at most of a convnet's, where all count as built again each time.
    """

    name: str
    weights: str
    ours: Literal["howsparse", "howsparse, graphs rebuilt"]
    model: nn.Module
    train: Images
    test: Images
    effort: Effort

    def batches(self, images: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """The first training images in memory, so that no tool waits for them."""
        return list(Batches(self.train if images is None else self.train.first(images), self.effort.batch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=None, help="CIFAR-10: a hub name or a folder in the hub's schema")
    parser.add_argument("--weights", type=Path, default=None, help="of a trained FC5; else 2 epochs on 5,000 images")
    parser.add_argument("--images", type=int, default=8000, help="training images that howsparse uses")
    parser.add_argument(
        "--precision", type=float, default=0.02, help="width of the bracket to stop at: the authors' scatter"
    )
    parser.add_argument("--reference-steps", type=int, default=320)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--record", type=Path, default=None)
    parser.add_argument("--table", type=Path, default=None, help="write the page in docs")
    options = parser.parse_args()
    if options.quick:
        fc, other = quick_networks()
        images, steps = 512, 200
    else:
        fc, other = full_networks(options.data, options.weights)
        images, steps = options.images, options.reference_steps
    result = compare(fc, other, images, steps, options.precision) | {"quick": options.quick}
    result |= provenance() | {"command": shlex.join(["python", "-m", "benchmarks.limit", *sys.argv[1:]])}
    if options.record is not None:
        append_record(result, options.record)
    if options.table is not None:
        write_whole(options.table, lambda file: file.write_text(page(result)))
    if options.json:
        print(json.dumps(result, allow_nan=False))
    else:
        Console().print(table(result), *remarks(result), sep="\n", highlight=False)


def quick_networks() -> tuple[Network, Network]:
    """Stand-ins that take seconds: digits, and a narrow convnet on random images."""
    task = load_task("digits").with_recipe(epochs=40)
    fc_effort = Effort(images=1280, batch=128, rounds=5, test_images=360)
    model = train_task(task).model
    fc = Network("digits MLP", "40 epochs of l1 1e-3", "howsparse", model, task.train, task.test, fc_effort)
    noise = random_images(256)
    effort = Effort(images=16, batch=8, rounds=3, test_images=16)
    narrow = convnet(noise, (4, 8, 16, 32))
    return fc, Network("narrow ResNet18", "initialisation", "howsparse, graphs rebuilt", narrow, noise, noise, effort)


def full_networks(data: str | None, weights: Path | None) -> tuple[Network, Network]:
    task = load_task("fc5-cifar10", data)
    if weights is None:
        note("no --weights: training FC5 for 2 epochs on 5,000 images")
        short = replace(task, train=task.train.first(5000)).with_recipe(epochs=2)
        model, origin = train_task(short).model, "2 epochs of l1 5e-5 on 5,000 images"
    else:
        model, origin = task.network(), str(weights.name)
        load_weights(model, weights)
    fc = Network("FC5", origin, "howsparse", model, task.train, task.test, Effort(4000, 1000, 7, len(task.test)))
    effort = Effort(images=64, batch=32, rounds=3, test_images=256)
    resnet = convnet(task.train)
    other = Network("ResNet18", "initialisation", "howsparse, graphs rebuilt", resnet, task.train, task.test, effort)
    return fc, other


def compare(fc: Network, other: Network, images: int, reference_steps: int, precision: float) -> dict[str, object]:
    """The whole benchmark; ``images`` are what howsparse uses on ``fc``."""
    products = {network.name: product_costs(network) for network in (fc, other)}
    limit, used = time_howsparse(fc, images, precision)
    costs = fc_costs(fc, products[fc.name], limit, used)
    error = errors(fc, images, limit, reference_steps)
    ours = products[fc.name].ratios("howsparse")
    networks = {
        fc.name: details(fc, products[fc.name]) | costs,
        other.name: details(other, products[other.name]) | scaled_costs(other, products[other.name], limit, used),
    }
    as_used, equal = used.total, costs["howsparse_seconds_equal_images"]
    authors, with_rows = costs["authors_seconds"], costs["authors_seconds_with_rows"]
    return {
        "kind": "limit",
        "speedup_authors": with_rows / as_used,
        "speedup_authors_equal_images": with_rows / equal,
        "speedup_authors_without_rows": authors / as_used,
        "speedup_authors_without_rows_equal_images": authors / equal,
        "precision": precision,
        "images": {"authors": len(fc.train), "howsparse": images},
        "product_gradients": products[fc.name].ratios("gradient")["howsparse"],
        "product_speedup": {tool: ours.get(tool) for tool in TOOLS},
        "product_speedup_by_onednn": {tool: ours.get(tool + ONEDNN) for tool in TOOLS},
        "speedup_authors_by_onednn": costs["authors_seconds_with_rows_by_onednn"] / as_used,
        "error": error,
        "networks": networks,
        "peers": {tool: peers.version(tool) if tool in ours else f"missing: {peers.INSTALL[tool]}" for tool in TOOLS},
        "threads": torch.get_num_threads(),
    }


@dataclass(frozen=True)
class ProductCosts:
    """Median seconds of a product over ``images``, by who takes it; relative difference from howsparse's."""

    images: int
    seconds: dict[str, float]
    difference: dict[str, float]

    def ratios(self, to: str) -> dict[str, float]:
        return {name: taken / self.seconds[to] for name, taken in self.seconds.items()}

    def per_image(self, name: str) -> float:
        return self.seconds[name] / self.images


def product_costs(network: Network) -> ProductCosts:
    """Gradient and everyone's product, agreeing first and then taking turns."""
    note(f"{network.name}: products on {network.effort.images} images")
    batches = network.batches(network.effort.images)
    risk = EmpiricalRisk(network.model, batches)
    vector = torch.randn(risk.num_weights, generator=torch.Generator().manual_seed(0))
    kept, streamed = Hessian(risk), Hessian(risk, memory=0)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "howsparse": kept.__matmul__,
        "howsparse, graphs rebuilt": streamed.__matmul__,
        "authors": peers.double_backward(peers.subject(network.model, risk.names), batches),
    }
    tools = peers.products(network.model, risk.names, batches)
    ways |= {name: product for name, product in tools.items() if product is not None}
    if kept.num_kept < len(batches):
        note(f"memory holds {kept.num_kept} of {len(batches)} batches' graphs")
    difference = check_agreement(ways, vector)
    turns: dict[str, Callable[[], object]] = {name: partial(way, vector) for name, way in ways.items()}
    turns |= {name + ONEDNN: with_onednn(turns[name]) for name in turns if not name.startswith("howsparse")}
    seconds = interleaved({"gradient": risk.gradient, **turns}, network.effort.rounds)
    return ProductCosts(network.effort.images, seconds, difference)


def check_agreement(ways: dict[str, Callable[[Tensor], Tensor]], vector: Tensor) -> dict[str, float]:
    """Relative difference of everyone's product from howsparse's; speeds of different matrices are not compared."""
    ours = ways["howsparse"](vector)
    difference = {name: float((way(vector) - ours).norm() / ours.norm()) for name, way in ways.items()}
    for name, size in difference.items():
        if not size < 1e-3:
            raise SystemExit(f"{name}'s product differs from howsparse's by {size:.1e}: not the same matrix")
    return difference


@dataclass(frozen=True)
class Used:
    """What howsparse took as it is used: the limit, and the measured curves of loss and accuracy."""

    images: int
    limit: float
    measure_train: float
    measure_test: float
    train_evaluations: int
    test_evaluations: int

    @property
    def total(self) -> float:
        return self.limit + self.measure_train + self.measure_test


def time_howsparse(network: Network, images: int, precision: float) -> tuple[PruningLimit, Used]:
    """The real thing as the command line has it, on the first training images and all test images."""
    note(f"{network.name}: howsparse on {images} images")
    train, test = network.batches(images), Batches(network.test, network.effort.batch)
    began = time.perf_counter()
    limit = howsparse.pruning_limit(network.model, train, population=len(network.train), precision=precision)
    limited = time.perf_counter()
    on_train = howsparse.measure(network.model, train, tolerance=limit.tolerance)
    measured = time.perf_counter()
    on_test = howsparse.measure(network.model, test, tolerance=limit.tolerance)
    ended = time.perf_counter()
    evaluations = len(on_train.curve), len(on_test.curve)
    return limit, Used(images, limited - began, measured - limited, ended - measured, *evaluations)


def authors_costs(network: Network, products: ProductCosts) -> dict[str, float]:
    """The authors' procedure, scaled by count; Lanczos' vector work is left out, in their favour."""
    step = products.per_image("authors") * len(network.train)
    evaluation = evaluation_cost(network)
    lanczos, rows, curve = STEPS * step, ROWS * step, EVALUATIONS * evaluation
    by_onednn = products.per_image("authors" + ONEDNN) / products.per_image("authors")
    return {
        "authors_seconds": lanczos + curve,
        "authors_seconds_with_rows": lanczos + rows + curve,
        "authors_seconds_with_rows_by_onednn": (lanczos + rows) * by_onednn + curve,
        "authors_seconds_lanczos": lanczos,
        "authors_seconds_rows": rows,
        "authors_seconds_evaluations": curve,
    }


def evaluation_cost(network: Network) -> float:
    """Seconds to prune at one sparsity and evaluate on all test images; the magnitudes are sorted beforehand."""
    pruned = peers.subject(network.model, [])
    weights = list(select_weights(network.model, None).values())
    targets = list(select_weights(pruned, None).values())
    threshold = float(torch.cat([w.detach().abs().flatten() for w in weights]).median())
    batches = list(Batches(network.test.first(network.effort.test_images), network.effort.batch))

    @torch.no_grad()
    def prune() -> None:
        for weight, target in zip(weights, targets, strict=True):
            torch.mul(weight, weight.abs() > threshold, out=target)

    seconds = interleaved({"prune": prune, "evaluate": lambda: evaluate(pruned, batches)}, rounds=3)
    return seconds["prune"] + seconds["evaluate"] * len(network.test) / network.effort.test_images


def fc_costs(network: Network, products: ProductCosts, limit: PruningLimit, used: Used) -> dict[str, float]:
    """Authors' and howsparse's seconds where howsparse really ran: as used, and at the authors' images."""
    first, every = time_product(network)
    share = len(network.train) / used.images
    more = limit.num_products * (every - products.per_image("howsparse") * used.images) + (first - every)
    passes = 2 * products.per_image("gradient") * (len(network.train) - used.images)  # the gradient and the tolerance
    equal = used.limit + more + passes + used.measure_train * share + used.measure_test
    return authors_costs(network, products) | {
        "howsparse_seconds": used.total,
        "howsparse_seconds_limit": used.limit,
        "howsparse_seconds_measure_train": used.measure_train,
        "howsparse_seconds_measure_test": used.measure_test,
        "howsparse_seconds_equal_images": equal,
        "howsparse_seconds_product_equal_images": every,
        "howsparse_products": limit.num_products,
        "howsparse_evaluations": used.train_evaluations + used.test_evaluations,
    }


def time_product(network: Network) -> tuple[float, float]:
    """Seconds of howsparse's first and second product over all training images; the first builds the graphs."""
    note(f"{network.name}: two products on all {len(network.train)} images")
    batches = network.batches()
    risk = EmpiricalRisk(network.model, batches)
    operator, vector = Hessian(risk), risk.flat_weights()
    began = time.perf_counter()
    operator @ vector
    between = time.perf_counter()
    operator @ vector
    ended = time.perf_counter()
    note(f"memory holds the graphs of {operator.num_kept} of {len(batches)} batches")
    return between - began, ended - between


def scaled_costs(network: Network, products: ProductCosts, limit: PruningLimit, used: Used) -> dict[str, float]:
    """Authors' and howsparse's seconds at all images by count alone: howsparse's counts are those it needed on FC5."""
    count = len(network.train)
    forward = evaluation_cost(network) / len(network.test)
    evaluations = used.train_evaluations * count + used.test_evaluations * len(network.test)
    product = products.per_image(network.ours) * count
    equal = limit.num_products * product + 2 * products.per_image("gradient") * count + forward * evaluations
    return authors_costs(network, products) | {"howsparse_seconds_equal_images": equal}


def details(network: Network, products: ProductCosts) -> dict[str, object]:
    """What the ratios of one network come from."""
    return {
        "weights": network.weights,
        "num_weights": sum(w.numel() for w in select_weights(network.model, None).values()),
        "train_images": len(network.train),
        "timed": asdict(network.effort),
        "product_seconds": products.seconds,
        "product_gradients": products.ratios("gradient"),
        "product_speedup": products.ratios("howsparse"),
        "product_difference": products.difference,
        "density_seconds": density_seconds(network, products),
    }


def density_seconds(network: Network, products: ProductCosts) -> dict[str, float | None]:
    """A spectral density with the authors' 128 steps and all their images: products by count, and vector work."""
    note(f"{network.name}: vector work of a density")
    size = sum(w.numel() for w in select_weights(network.model, None).values())
    diagonal = torch.randn(size, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, float | None] = {}
    for name, density in peers.densities(diagonal).items():
        if density is None:
            seconds[name] = None
        else:
            product = products.per_image(network.ours if name == "howsparse" else name) * len(network.train)
            seconds[name] = STEPS * product + vector_work(density, network.effort.overhead_steps)
    return seconds


def vector_work(density: Callable[[int], object], steps: int) -> float:
    """Seconds of 128 steps whose products are free: so much a step, and so much for each pair of vectors."""
    seconds = interleaved({"half": lambda: density(steps // 2), "whole": lambda: density(steps)}, rounds=1)
    half, whole = seconds["half"], seconds["whole"]
    pair = max(0.0, (whole - 2 * half) / (pairs(steps) - 2 * pairs(steps // 2)))
    step = max(0.0, (whole - pair * pairs(steps)) / steps)
    return step * STEPS + pair * pairs(STEPS)


def pairs(steps: int) -> int:
    return steps * (steps - 1) // 2


def errors(network: Network, images: int, limit: PruningLimit, reference_steps: int) -> dict[str, object]:
    """Distance of both answers from a long run's on the same images, each with a probe of its own."""
    note(f"{network.name}: authors' Lanczos run of {STEPS} steps, then the reference's {reference_steps}")
    risk = EmpiricalRisk(network.model, network.batches(images))
    operator, flat = Hessian(risk), risk.flat_weights()
    run = authors_run(operator, flat)
    by_steps = {steps: gauss_sparsity(run.first(steps), limit.magnitudes, limit.tolerance) for steps in range(96, 129)}
    for spectrum in grow_spectrum(operator, flat, probes=reference_probes(flat), seed=2):
        if spectrum.num_steps >= reference_steps:
            break
    bracket = solve_bracket(spectrum, limit.magnitudes, limit.tolerance, absolute_filter)
    middle = (bracket.low + bracket.high) / 2
    return {
        "authors": abs(by_steps[STEPS] - middle),
        "howsparse": abs(limit.sparsity - middle),
        "reference_half_width": bracket.width / 2,
        "authors_worst_from_96_steps": max(abs(value - middle) for value in by_steps.values()),
        "howsparse_half_width": limit.errors.quadrature + limit.errors.probe,
        "howsparse_half_width_for_all_images": limit.errors.width / 2,
        "limit": {"authors": by_steps[STEPS], "howsparse": limit.sparsity, "reference": middle},
        "authors_by_steps": by_steps,
        "reference_steps": spectrum.num_steps,
        "images": images,
    }


def reference_probes(flat: Tensor) -> int:
    """One probe settles a large network; a small one's probes differ by more than its bracket is wide."""
    return 1 if flat.numel() > 100_000 else 4


def authors_run(operator: Hessian, flat: Tensor) -> Tridiagonal:
    """The authors' Lanczos: one Rademacher probe over all weights, those of dead units too."""
    signs = torch.randint(0, 2, flat.shape, generator=torch.Generator().manual_seed(1))
    run = Lanczos(operator.__matmul__, (2 * signs - 1).to(flat))
    for _ in range(STEPS):
        run.step()
    return run.tridiagonal


def gauss_sparsity(tridiagonal: Tridiagonal, magnitudes: Magnitudes, tolerance: float) -> float:
    """1 - T at its fixed point by plain Gauss quadrature."""
    rule = gauss(tridiagonal)
    return 1 - fixed_point(lambda scale: minimal_density(rule.nodes, scale, rule.masses), magnitudes, tolerance)


def convnet(images: Images, widths: tuple[int, ...] = (64, 128, 256, 512), classes: int = 10) -> nn.Module:
    """ResNet18 as the tasks have it, at initialisation; BatchNorm's statistics are the images'."""
    torch.manual_seed(0)
    model = resnet("basic", (2, 2, 2, 2), widths, classes)
    kaiming_normal_(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # one batch sets the statistics
    with torch.no_grad():
        model(images.normalised(images.pixels[:256]))
    return model.eval()


def random_images(count: int) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return Images(pixels, labels, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def table(result: dict[str, Any]) -> Table:
    """Everything as ratios, one column a network."""
    networks: dict[str, dict[str, Any]] = result["networks"]
    shown = Table(title="Costs as ratios", title_justify="left")
    shown.add_column("", no_wrap=True)
    for name in networks:
        shown.add_column(name, justify="right")
    columns = [ratios(about) for about in networks.values()]
    for label in columns[0]:
        values = [column[label] for column in columns]
        shown.add_row(label, *("-" if value is None else f"{value:.2f}" for value in values))
    return shown


def page(result: dict[str, Any]) -> str:
    """The page in docs: the table and the remarks, in Markdown."""
    networks: dict[str, dict[str, Any]] = result["networks"]
    columns = [ratios(about) for about in networks.values()]
    lines = [
        "# What a limit costs",
        "",
        f"Made by `{result['command']}`; record in `results/limit_benchmark.jsonl`. One process, {result['threads']}",
        f"threads of an {result['machine']['processor']}; all numbers are ratios of times.",
        "",
        "| | " + " | ".join(networks) + " |",
        "|---" * (len(networks) + 1) + "|",
    ]
    for label in columns[0]:
        cells = ["-" if column[label] is None else f"{column[label]:.2f}" for column in columns]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {remark}" for remark in remarks(result)), ""])


def ratios(about: dict[str, Any]) -> dict[str, float | None]:
    """One network's column."""
    gradients, speedup = about["product_gradients"], about["product_speedup"]
    ways = ("howsparse", "howsparse, graphs rebuilt", "authors", *TOOLS)
    column = {f"product in gradients: {way}": gradients.get(way) for way in ways}
    others = [way + by for way in ("authors", *TOOLS) for by in ("", ONEDNN)]
    column |= {f"product / howsparse's: {way}": speedup.get(way) for way in others}
    for tool in ("pyhessian", "hessian_eigenthings"):
        column[f"density of {STEPS} steps / howsparse's: {tool}"] = density_ratio(about, tool)
    for rows, words in (("", "authors' procedure"), ("_with_rows", f"authors' procedure with {ROWS} rows")):
        for key, images in (("howsparse_seconds", "as used"), ("howsparse_seconds_equal_images", "equal images")):
            ours = about.get(key)
            column[f"{words} / howsparse, {images}"] = None if ours is None else about[f"authors_seconds{rows}"] / ours
    return column


def density_ratio(about: dict[str, Any], name: str) -> float | None:
    seconds = about["density_seconds"]
    return None if seconds[name] is None else float(seconds[name] / seconds["howsparse"])


def remarks(result: dict[str, Any]) -> list[str]:
    """The errors, and what was timed and what scaled."""
    error, images = result["error"], result["images"]
    weights = [f"{name}: {about['weights']}" for name, about in result["networks"].items()]
    lines = [
        f"Weights: {'; '.join(weights)}.",
        f"Error of 1 - T on {error['images']} images: authors' {STEPS} steps of Gauss {error['authors']:.4f} (worst at"
        f" 96 to {STEPS} steps {error['authors_worst_from_96_steps']:.4f}), howsparse {error['howsparse']:.4f} (its"
        f" half-width {error['howsparse_half_width']:.4f}; {error['howsparse_half_width_for_all_images']:.4f} with what"
        f" sampled images add); the reference is known to {error['reference_half_width']:.4f}.",
        f"Authors' procedure: {images['authors']} images, scaled from products and evaluations timed on some of them;"
        " their Lanczos' vector work is left out. For fully connected networks they take no rows: see without.",
        f"howsparse as used: {images['howsparse']} images, timed whole. Equal images: scaled by the number of products,"
        " one on all images timed. On the second network all is scaled, and no graph counts as kept.",
    ]
    return lines + [f"{tool}: {version}" for tool, version in result["peers"].items() if "missing" in version]


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
