"""Is the recoverable sparsity what retraining recovers?

    python -m benchmarks.recovery TASK ... [--seeds 0 1 2] [--nets FOLDER --cifar10 FOLDER --fc5 FILE --images N]
    python -m benchmarks.recovery --directional TASK ...
    python -m benchmarks.recovery --page

TASK: digits, digits-convnet, fc5-cifar10 or resnet20. For each network: every prediction, and real retraining of the
kept weights under magnitude masks, on the same data and without l1, with two budgets. Networks that are recorded in
results/recovery.jsonl are not run again. With --directional, only the directional limit and the choices of the trust
region are computed, and recorded by themselves. With --page, docs/recovery.md is written from the records.
"""

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import howsparse
from benchmarks.commands import own_command
from benchmarks.recovery_networks import BUDGETS, Named, Network, named_networks
from benchmarks.recovery_page import page
from howsparse.files import write_whole
from howsparse.limit.adapting import adapting
from howsparse.linalg import Lanczos, Rule, Tridiagonal, gauss, gauss_radau
from howsparse.linalg.trust_region import trust_region_bounds
from howsparse.pruning.masks import largest, magnitude_mask
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.risk import GGN, EmpiricalRisk

FIXED = (0.8, 0.9, 0.95)  # sparsities at which every network is retrained with the whole budget
FEWER = 0.75  # the grid of the variants: each mask keeps this fraction of the weights of the one before
MOST_MASKS = 12
Line = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    for name in ("nets", "cifar10", "fc5"):
        parser.add_argument(f"--{name}", type=Path, default=Path("none"))
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--directional", action="store_true")
    parser.add_argument("--record", type=Path, default=Path("results/recovery.jsonl"))
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    study = directional if options.directional else one_network
    kind = "recovery-directional" if options.directional else "recovery"
    places = options.nets, options.cifar10, options.fc5, options.images
    for named in named_networks(options.tasks, options.seeds, *places):
        key = {"task": named.task, "l1": named.l1, "weight_decay": named.weight_decay, "seed": named.seed}
        lines = read_lines(options.record) if options.record.exists() else []
        if any(line["kind"] == kind and key.items() <= line.items() for line in lines):
            continue
        made, began = provenance(own_command("benchmarks.recovery")), time.process_time()
        found = study(named)
        found["cpu_seconds"] = round(time.process_time() - began, 1)
        append_record(Measurement(kind=kind, made=made, **key, **found), options.record)
    if options.page:
        text = page(read_lines(options.record))
        write_whole(Path("docs/recovery.md"), lambda file: file.write_text(text))


def one_network(named: Named) -> Line:
    """Every prediction for one network, and what retraining reaches."""
    network = named.make()
    limit_products, recovery_products, _ = network.products
    limit = howsparse.pruning_limit(network.model, network.batches, max_products=limit_products)
    tolerance = limit.tolerance
    predicted = howsparse.predict(network.model, network.batches, tolerance=tolerance)
    measured = howsparse.measure(network.model, network.batches, tolerance=tolerance, precision=0.002)
    recovered = howsparse.recoverable(
        network.model, network.batches, tolerance=tolerance, max_products=recovery_products
    )
    loss = measured.dense.loss
    found: Line = {
        "num_weights": limit.num_weights,
        "examples": len(network.y),
        "loss": loss,
        "tolerance": tolerance,
        "limit": limit.bracket,
        "predicted": predicted.sparsity,
        "measured": measured.sparsity,
        "recoverable": recovered.bracket,
        "recoverable_products": recovered.num_products,
        "budgets": BUDGETS,
        "variants": variants(network, tolerance, predicted.sparsity),
    }
    found |= retrained(network, loss + tolerance, measured.sparsity)
    print(named.task, named.l1, named.seed, found["recoverable"], found["reached"], file=sys.stderr, flush=True)
    return found


def directional(named: Named) -> Line:
    """The directional limit of one network, and the choices of the trust region again."""
    network = named.make()
    predicted = howsparse.predict(network.model, network.batches)
    choices = variants(network, predicted.tolerance, predicted.sparsity)
    found = howsparse.directional_limit(network.model, network.batches, max_products=network.products[2])
    print(named.task, named.l1, named.seed, found.low, found.high, file=sys.stderr, flush=True)
    return {"directional": (found.low, found.high), "directional_products": found.num_products, "variants": choices}


def variants(network: Network, tolerance: float, start: float) -> list[Line]:
    """Bounds on the loss after adapting, in tolerances, for each choice of the trust region, at ever larger sparsities.

    One Lanczos run for each mask gives all choices.
    """
    risk = EmpiricalRisk(network.model, network.batches)
    matrix, weights, gradient = GGN(risk), risk.flat_weights(), risk.gradient()
    lines: list[Line] = []
    density = 1 - start
    while len(lines) < MOST_MASKS and density * FEWER * weights.numel() >= 8:
        density *= FEWER
        local = adapting(matrix, weights, gradient, largest(weights.abs(), round(density * weights.numel())))
        norm = float(local.slope.double().norm())
        run = Lanczos(local.block.__matmul__, local.slope)
        for _ in range(network.steps):
            going = run.step()
            bounds = every_variant(run.tridiagonal, norm, local.radius, tolerance)
            bounds = {
                name: ((local.predicted + low) / tolerance, (local.predicted + high) / tolerance)
                for name, (low, high) in bounds.items()
            }
            if not going or all(high - low < 0.1 or low > 3 for low, high in bounds.values()):
                break
        lines.append({"sparsity": local.sparsity, "predicted": local.predicted / tolerance, **bounds})
        if all(high > 3 for _, high in bounds.values()):
            break
    return lines


def every_variant(
    tridiagonal: Tridiagonal, norm: float, radius: float, tolerance: float
) -> dict[str, tuple[float, float]]:
    """Bounds on what adapting adds to the loss, for balls of radius R and 2 R, and for shifts of mu and mu / 10."""
    bounds = {
        name: trust_region_bounds(tridiagonal, norm, size * radius, positive=True)
        for name, size in (("R", 1.0), ("2R", 2.0))
    }
    scale = 2 * tolerance / radius**2
    for name, shift in (("mu", scale), ("mu/10", scale / 10)):

        def gained(rule: Rule, shift: float = shift) -> float:
            return -(norm**2) * rule.integrate(lambda x: 1 / (np.maximum(x, 0.0) + shift)) / 2

        bounds[name] = gained(gauss_radau(tridiagonal, 0.0)), gained(gauss(tridiagonal))
    return bounds


def retrained(network: Network, allowed: float, start: float) -> Line:
    """The largest sparsity at which retraining comes back to the allowed loss, with each budget, by bisection."""
    tried: dict[float, list[float]] = {}

    def losses(sparsity: float, enough: float = allowed) -> list[float]:
        if sparsity not in tried:
            mask = magnitude_mask(network.model, sparsity)
            tried[sparsity] = network.retrain(network, mask, enough)
        return tried[sparsity]

    predicted: list[Line] = []
    for sparsity in FIXED:
        reached = losses(sparsity, -math.inf)
        local = howsparse.recovered_loss(
            network.model,
            magnitude_mask(network.model, sparsity),
            network.batches,
            max_products=network.fixed_steps,
        )
        predicted.append({"sparsity": sparsity, "now": local.predicted, "low": local.low, "high": local.high})
        predicted[-1]["reached"] = reached
    found: list[float] = []
    for budget in range(len(BUDGETS)):
        low, high = start, 1.0
        for sparsity in FIXED:
            if tried[sparsity][budget] <= allowed:
                low = max(low, sparsity)
            elif sparsity > low:
                high = min(high, sparsity)
        while high - low > max(0.002, min(0.005, (1 - low) / 10)):
            middle = 1 - math.sqrt((1 - low) * ((1 - high) if high < 1 else (1 - low) / 16))
            if losses(middle)[budget] <= allowed:
                low = middle
            else:
                high = middle
        found.append(low)
    return {"reached": found, "fixed": predicted, "retrained": sorted((s, each) for s, each in tried.items())}


if __name__ == "__main__":
    main()
