"""What the pruning limit costs, and how exact it is, beside the authors' procedure and other tools.

    python -m benchmarks.limit --data FOLDER_OR_HUB_NAME [--weights FC5.safetensors] [--nets FOLDER] [--images 8000]
    python -m benchmarks.limit --quick --data FOLDER_OR_HUB_NAME [--nets FOLDER]

Three networks: the paper's FC5 on CIFAR-10, trained with l1; a ResNet18 with BatchNorm at initialisation; and, with
--nets, a Llama of 260,000 weights in the folder stories260K there, on text that it sampled itself. `make bench-install`
installs the other tools.

The authors' procedure takes 128 Lanczos steps from one Rademacher probe over the whole training set and builds the
graph again at each step. It samples 100 Hessian rows and evaluates 1,000 sparsities on the test set. (The authors
compute no rows for fully connected networks; both counts are given.) Its answer moves by one or two points of sparsity
from step to step, so howsparse computes a bracket of that width (--precision).

The authors' procedure takes hours. So a few products and evaluations are timed on some of the examples, and their times
are scaled by count. howsparse's own times on FC5 and the Llama are measured; all times on ResNet18 are scaled. Gradient
and products take turns in one process on the same batches; before that, the products are compared with each other.

--quick uses the same networks on the first 500 images of CIFAR-10 and 128 sequences, and at most 96 products. It takes
less than three minutes on two cores. It does not compute the error of the limit, which needs long runs.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from benchmarks import peers
from benchmarks.commands import own_command
from benchmarks.limit_costs import (
    STEPS,
    TOOLS,
    Used,
    details,
    measured_costs,
    product_costs,
    scaled_costs,
    time_howsparse,
)
from benchmarks.limit_networks import Network, full_networks, note, quick_networks
from benchmarks.limit_page import page, remarks, table
from howsparse.files import write_whole
from howsparse.geometry import Magnitudes, absolute_filter, fixed_point, minimal_density
from howsparse.limit.bracket import solve_bracket
from howsparse.limit.options import LimitOptions
from howsparse.limit.result import PruningLimit
from howsparse.linalg.lanczos import Lanczos
from howsparse.linalg.quadrature import Tridiagonal, gauss
from howsparse.linalg.spectrum import grow_spectrum
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.risk import EmpiricalRisk, Hessian

_QUICK_PRODUCTS = 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=None, help="CIFAR-10: a hub name or a folder in the hub's schema")
    parser.add_argument("--weights", type=Path, default=None, help="of a trained FC5; else 2 epochs on 5,000 images")
    parser.add_argument("--nets", type=Path, default=None, help="folder with the Llama's folder stories260K")
    parser.add_argument("--images", type=int, default=8000, help="training images that howsparse uses")
    parser.add_argument(
        "--precision", type=float, default=0.02, help="width of the bracket to stop at: the authors' scatter"
    )
    parser.add_argument("--reference-steps", type=int, default=320, help="of the error of the limit; 0: no error")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--record", type=Path, default=None)
    parser.add_argument("--table", type=Path, default=None, help="write the page in docs")
    options = parser.parse_args()
    if options.quick:
        networks, most = quick_networks(options.data, options.nets), _QUICK_PRODUCTS
    else:
        networks = full_networks(options.data, options.weights, options.nets, options.images)
        most = LimitOptions().max_products
    steps = None if options.quick else options.reference_steps or None
    found = compare(networks, options.precision, most, steps)
    found |= {"quick": options.quick}
    record = Measurement(kind="limit_benchmark", made=provenance(own_command("benchmarks.limit")), **found)
    result = record.model_dump(mode="json")
    if options.record is not None:
        append_record(record, options.record)
    if options.table is not None:
        kept = list(read_lines(options.record)) if options.record else [result]
        write_whole(options.table, lambda file: file.write_text(page(kept)))
    if options.json:
        print(json.dumps(result, allow_nan=False))
    else:
        Console().print(table(result), *remarks(result), sep="\n", highlight=False)


def compare(networks: list[Network], precision: float, most: int, reference_steps: int | None) -> dict[str, Any]:
    """The whole benchmark; the first network is FC5. Without ``reference_steps``, no error is computed."""
    fc, columns = networks[0], dict[str, dict[str, Any]]()
    runs: dict[str, tuple[PruningLimit, Used]] = {}
    for network in networks:
        products = product_costs(network)
        if network.used is None:
            costs = scaled_costs(network, products, *runs[fc.name])
        else:
            runs[network.name] = time_howsparse(network, network.used, precision, most)
            costs = measured_costs(network, products, *runs[network.name])
        columns[network.name] = details(network, products) | costs
    limit, used = runs[fc.name]
    timed = columns[fc.name]["product_speedup"]
    tools = {tool: peers.version(tool) if tool in timed else f"missing: {peers.INSTALL}" for tool in TOOLS}
    return {
        "precision": precision,
        "max_products": most,
        "error": None if reference_steps is None else errors(fc, used.examples, limit, reference_steps),
        "networks": columns,
        "peers": tools,
        "threads": torch.get_num_threads(),
    }


def errors(network: Network, examples: int, limit: PruningLimit, reference_steps: int) -> dict[str, object]:
    """Distance of both answers from a long run's on the same examples, each with a probe of its own."""
    note(f"{network.name}: authors' Lanczos run of {STEPS} steps, then the reference's {reference_steps}")
    risk = EmpiricalRisk(network.model, network.batches(examples))
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
        "howsparse": abs(limit.errors.middle - middle),
        "reference_half_width": bracket.width / 2,
        "authors_worst_from_96_steps": max(abs(value - middle) for value in by_steps.values()),
        "howsparse_half_width": limit.errors.quadrature + limit.errors.probe,
        "howsparse_half_width_for_all_examples": limit.errors.width / 2,
        "limit": {"authors": by_steps[STEPS], "howsparse": limit.errors.middle, "reference": middle},
        "authors_by_steps": by_steps,
        "reference_steps": spectrum.num_steps,
        "examples": examples,
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


if __name__ == "__main__":
    main()
