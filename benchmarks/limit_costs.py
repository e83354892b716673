"""Seconds of the authors' procedure, of howsparse and of other tools: timed on some examples, then scaled by count."""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

import howsparse
from benchmarks import peers
from benchmarks.limit_networks import Network, note
from benchmarks.product import interleaved, with_onednn
from howsparse.limit.measure import FINE
from howsparse.limit.result import PruningLimit
from howsparse.risk import EmpiricalRisk, Hessian, evaluate, select_weights

STEPS, ROWS, EVALUATIONS = 128, 100, 1000  # the authors'
TOOLS = ("pyhessian", "curvlinops", "hessian_eigenthings")
_ALIKE = 3e-2  # on few images, one unit that rounding puts on the other side of its ReLU changes a product by 1e-2
ONEDNN = ", by oneDNN"  # with the matrix products that howsparse takes; on a CPU torch's own are MKL's


@dataclass(frozen=True)
class ProductCosts:
    """Median seconds of a product over ``examples``, by who takes it; relative difference from howsparse's.

    Attributes:
        refused: why a tool cannot take this network, by its name.
    """

    examples: int
    seconds: dict[str, float]
    difference: dict[str, float]
    refused: dict[str, str]

    def ratios(self, to: str) -> dict[str, float]:
        return {name: taken / self.seconds[to] for name, taken in self.seconds.items()}

    def per_example(self, name: str) -> float:
        return self.seconds[name] / self.examples


def product_costs(network: Network) -> ProductCosts:
    """Gradient and everyone's product, agreeing first and then taking turns."""
    note(f"{network.name}: products on {network.effort.examples} examples")
    batches = network.batches(network.effort.examples)
    risk = EmpiricalRisk(network.model, batches)
    vector = torch.randn(risk.num_weights, generator=torch.Generator().manual_seed(0))
    kept, streamed = Hessian(risk), Hessian(risk, memory=0)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "howsparse": kept.__matmul__,
        "howsparse, graphs rebuilt": streamed.__matmul__,
        "authors": peers.double_backward(peers.subject(network.model, risk.names), batches),
    }
    tools = peers.products(network.model, risk.names, batches)
    refused = {name: why for name, product in tools.items() if product and (why := refusal(product, vector))}
    for name, why in refused.items():
        note(f"{name} does not take {network.name}: {why}")
    ways |= {name: product for name, product in tools.items() if product is not None and name not in refused}
    if kept.num_kept < len(batches):
        note(f"memory holds {kept.num_kept} of {len(batches)} batches' graphs")
    difference = check_agreement(ways, vector)
    turns: dict[str, Callable[[], object]] = {name: partial(way, vector) for name, way in ways.items()}
    if network.effort.by_onednn:
        turns |= {name + ONEDNN: with_onednn(turns[name]) for name in turns if not name.startswith("howsparse")}
    seconds = interleaved({"gradient": risk.gradient, **turns}, network.effort.rounds)
    return ProductCosts(network.effort.examples, seconds, difference, refused)


def refusal(product: Callable[[Tensor], Tensor], vector: Tensor) -> str:
    """Why a tool cannot differentiate the network; empty if it can."""
    try:
        product(vector)
    except NotImplementedError as error:  # torch's, where an operation has no derivative of the kind that the tool uses
        return str(error).splitlines()[0]
    return ""


def check_agreement(ways: dict[str, Callable[[Tensor], Tensor]], vector: Tensor) -> dict[str, float]:
    """Relative difference of everyone's product from howsparse's; speeds of different matrices are not compared."""
    ours = ways["howsparse"](vector)
    difference = {name: float((way(vector) - ours).norm() / ours.norm()) for name, way in ways.items()}
    for name, size in difference.items():
        if not size < _ALIKE:
            raise SystemExit(f"{name}'s product differs from howsparse's by {size:.1e}: not the same matrix")
    return difference


@dataclass(frozen=True)
class Used:
    """What howsparse took as it is used: the limit, and the measured curves of loss and accuracy."""

    examples: int
    limit: float
    measure_train: float
    measure_test: float
    train_evaluations: int
    test_evaluations: int

    @property
    def total(self) -> float:
        return self.limit + self.measure_train + self.measure_test


def time_howsparse(network: Network, examples: int, precision: float, most: int) -> tuple[PruningLimit, Used]:
    """The real thing as the command line has it, on the first training examples and all test examples."""
    note(f"{network.name}: howsparse on {examples} examples")
    train, test = network.batches(examples), network.test_batches()
    began = time.perf_counter()
    limit = howsparse.pruning_limit(
        network.model, train, population=len(network.train), precision=precision, max_products=most
    )
    limited = time.perf_counter()
    on_train = howsparse.measure(network.model, train, tolerance=limit.tolerance, scan=FINE, precision=0.001)
    measured = time.perf_counter()
    on_test = howsparse.measure(network.model, test, tolerance=limit.tolerance, scan=FINE, precision=0.001)
    ended = time.perf_counter()
    evaluations = len(on_train.curve), len(on_test.curve)
    return limit, Used(examples, limited - began, measured - limited, ended - measured, *evaluations)


def authors_costs(network: Network, products: ProductCosts) -> dict[str, float]:
    """The authors' procedure, scaled by count; Lanczos' vector work is left out, in their favour."""
    step = products.per_example("authors") * len(network.train)
    evaluation = evaluation_cost(network)
    lanczos, rows, curve = STEPS * step, ROWS * step, EVALUATIONS * evaluation
    by_onednn = products.seconds.get("authors" + ONEDNN, float("nan")) / products.seconds["authors"]
    faster = {"authors_seconds_with_rows_by_onednn": (lanczos + rows) * by_onednn + curve}
    return (faster if network.effort.by_onednn else {}) | {
        "authors_seconds": lanczos + curve,
        "authors_seconds_with_rows": lanczos + rows + curve,
        "authors_seconds_lanczos": lanczos,
        "authors_seconds_rows": rows,
        "authors_seconds_evaluations": curve,
    }


def evaluation_cost(network: Network) -> float:
    """Seconds to prune at one sparsity and evaluate on all test examples; the magnitudes are sorted beforehand."""
    pruned = copy.deepcopy(network.model).eval()
    weights = list(select_weights(network.model, None).values())
    targets = list(select_weights(pruned, None).values())
    threshold = float(torch.cat([w.detach().abs().flatten() for w in weights]).median())
    batches = network.test_batches(network.effort.test_examples)

    @torch.no_grad()
    def prune() -> None:
        for weight, target in zip(weights, targets, strict=True):
            torch.mul(weight, weight.abs() > threshold, out=target)

    seconds = interleaved({"prune": prune, "evaluate": lambda: evaluate(pruned, batches)}, rounds=3)
    return seconds["prune"] + seconds["evaluate"] * len(network.test) / network.effort.test_examples


def measured_costs(network: Network, products: ProductCosts, limit: PruningLimit, used: Used) -> dict[str, float]:
    """Authors' and howsparse's seconds where howsparse really ran: as used, and at the authors' examples."""
    first, every = time_product(network)
    share = len(network.train) / used.examples
    more = limit.num_products * (every - products.per_example("howsparse") * used.examples) + (first - every)
    passes = (
        2 * products.per_example("gradient") * (len(network.train) - used.examples)
    )  # the gradient and the tolerance
    equal = used.limit + more + passes + used.measure_train * share + used.measure_test
    return authors_costs(network, products) | {
        "howsparse_examples": used.examples,
        "howsparse_seconds": used.total,
        "howsparse_seconds_limit": used.limit,
        "howsparse_seconds_measure_train": used.measure_train,
        "howsparse_seconds_measure_test": used.measure_test,
        "howsparse_seconds_equal_examples": equal,
        "howsparse_seconds_product_equal_examples": every,
        "howsparse_products": limit.num_products,
        "howsparse_evaluations": used.train_evaluations + used.test_evaluations,
    }


def time_product(network: Network) -> tuple[float, float]:
    """Seconds of howsparse's first and second product over all training examples; the first builds the graphs."""
    note(f"{network.name}: two products on all {len(network.train)} examples")
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
    """Authors' and howsparse's seconds at all examples by count alone: howsparse's counts are FC5's."""
    count = len(network.train)
    forward = evaluation_cost(network) / len(network.test)
    evaluations = used.train_evaluations * count + used.test_evaluations * len(network.test)
    product = products.per_example(network.ours) * count
    equal = limit.num_products * product + 2 * products.per_example("gradient") * count + forward * evaluations
    return authors_costs(network, products) | {"howsparse_seconds_equal_examples": equal}


def details(network: Network, products: ProductCosts) -> dict[str, object]:
    """What the ratios of one network come from."""
    return {
        "weights": network.weights,
        "num_weights": sum(w.numel() for w in select_weights(network.model, None).values()),
        "train_examples": len(network.train),
        "timed": asdict(network.effort),
        "product_seconds": products.seconds,
        "product_gradients": products.ratios("gradient"),
        "product_speedup": products.ratios("howsparse"),
        "product_difference": products.difference,
        "refused": products.refused,
        "density_seconds": density_seconds(network, products),
    }


def density_seconds(network: Network, products: ProductCosts) -> dict[str, float | None]:
    """A spectral density with the authors' 128 steps and all their examples: products by count, and vector work."""
    note(f"{network.name}: vector work of a density")
    size = sum(w.numel() for w in select_weights(network.model, None).values())
    diagonal = torch.randn(size, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, float | None] = {}
    for name, density in peers.densities(diagonal).items():
        if density is None or name in products.refused:
            seconds[name] = None
        else:
            product = products.per_example(network.ours if name == "howsparse" else name) * len(network.train)
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
