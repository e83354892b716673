"""Accuracy after magnitude pruning and each repair, without training.

    python -m benchmarks.repair NETWORK ... --nets FOLDER --cifar10 FOLDER [--record results/repair.jsonl]
    python -m benchmarks.repair --page

NETWORK: resnet20 or resnet32. Each sparsity and repair is recorded as it ends, and is not computed again. With --page,
docs/repair.md is written from the records. Two quiet cores need about 40 minutes for a network.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.commands import own_command
from benchmarks.real_networks_cases import CASES, Sources
from howsparse import magnitude_mask
from howsparse.files import write_whole
from howsparse.pruning.repair import repair_batchnorm, repair_layers, repair_rounds
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.risk.batches import FirstExamples, Joined, Pieces
from howsparse.risk.evaluate import evaluate
from howsparse.risk.weights import prunable_weights

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
PIECE = 125  # images that go through the network together
Line = dict[str, Any]
Prune = Callable[[nn.Module, float, list[Any]], object]


def masked(model: nn.Module, sparsity: float, batches: list[Any]) -> None:
    magnitude_mask(model, sparsity).apply_(model)


def with_statistics(model: nn.Module, sparsity: float, batches: list[Any]) -> None:
    masked(model, sparsity, batches)
    repair_batchnorm(model, batches)


def with_layers(model: nn.Module, sparsity: float, batches: list[Any]) -> None:
    repair_layers(model, magnitude_mask(model, sparsity), batches)


def layers_then_statistics(model: nn.Module, sparsity: float, batches: list[Any]) -> None:
    with_layers(model, sparsity, batches)
    repair_batchnorm(model, batches)


def in_rounds(rounds: int) -> Prune:
    def prune(model: nn.Module, sparsity: float, batches: list[Any]) -> None:
        repair_rounds(model, sparsity, batches, rounds=rounds)

    return prune


REPAIRS: dict[str, tuple[Prune, int]] = {  # with the number of training images
    "no repair": (masked, 0),
    "BatchNorm, 1,000 images": (with_statistics, 1000),
    "layers, 500 images": (with_layers, 500),
    "layers, 1,000 images": (with_layers, 1000),
    "layers, then BatchNorm, 1,000 images": (layers_then_statistics, 1000),
    "5 rounds, 500 images": (in_rounds(5), 500),
    "10 rounds, 500 images": (in_rounds(10), 500),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--nets", type=Path, default=Path("none"))
    parser.add_argument("--cifar10", type=Path, default=Path("none"))
    parser.add_argument("--record", type=Path, default=Path("results/repair.jsonl"))
    parser.add_argument("--test-images", type=int, default=10_000, help="how many, the first ones")
    parser.add_argument("--note", default="", help="for the record, for example that the machine was busy")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    for network in options.networks:
        none = Path("none")
        case = CASES[network](Sources(options.nets, options.cifar10, none, none, none))
        test = [*FirstExamples(Joined((case.choose, case.held_out)), options.test_images)]
        dense = evaluate(case.model, test)[1]
        for repair, (prune, images) in REPAIRS.items():
            batches = [*Pieces(FirstExamples(case.calibration, images), PIECE)]
            for sparsity in SPARSITIES:
                key = {"network": network, "repair": repair, "sparsity": sparsity, "test_images": options.test_images}
                if any(key.items() <= line.items() for line in read_lines(options.record)):
                    continue
                found = key | measured(case.model, prune, sparsity, batches, test)
                found |= {
                    "dense_accuracy": dense,
                    "images": images,
                    "threads": torch.get_num_threads(),
                    "note": options.note,
                }
                made = provenance(own_command("benchmarks.repair"))
                append_record(Measurement(kind="repair", made=made, **found), options.record)
                print(network, repair, sparsity, found["accuracy"], f"{found['seconds']} s", file=sys.stderr)
    if options.page:
        write_whole(Path("docs/repair.md"), lambda file: file.write_text(page(read_lines(options.record))))


def measured(dense: nn.Module, prune: Prune, sparsity: float, batches: list[Any], test: list[Any]) -> Line:
    """Sparsity and accuracy, and the seconds of pruning and repair."""
    model = copy.deepcopy(dense)
    began = time.perf_counter()
    prune(model, sparsity, batches)
    seconds = time.perf_counter() - began
    weights = prunable_weights(model).values()
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    return {"accuracy": evaluate(model, test)[1], "removed": round(zeros, 4), "seconds": round(seconds, 1)}


INTRODUCTION = """# Repair without training

Accuracy on test images after magnitude pruning, and after each repair of `howsparse.pruning.repair`. A repair uses
forward passes over a few plain training images: no labels, no gradient, no epochs.

- *BatchNorm*: the statistics of BatchNorm's inputs are computed anew (`repair_batchnorm`).
- *layers*: layer by layer, the kept weights are refitted to the dense layer's outputs (`repair_layers`).
- *rounds*: magnitude order and the repair of layers in turns, from few removed weights to many (`repair_rounds`).

Made by `python -m benchmarks.repair`; the records with command, commit, machine and notes are in
`results/repair.jsonl`. The networks were trained by others.
"""


def page(records: Iterable[Line]) -> str:
    """The page in docs."""
    lines = list(records)
    parts = [INTRODUCTION]
    for network in dict.fromkeys(line["network"] for line in lines):
        images = max(line["test_images"] for line in lines if line["network"] == network)
        own = [line for line in lines if (line["network"], line["test_images"]) == (network, images)]
        parts.append(table(network, images, own))
    return "\n".join(parts)


def table(network: str, images: int, lines: list[Line]) -> str:
    """Accuracies of a network in percent: a row for each repair, a column for each sparsity."""
    dense = f"{100 * lines[0]['dense_accuracy']:.2f}"
    head = ["repair", *(f"{100 * sparsity:.0f} %" for sparsity in SPARSITIES), "seconds for one sparsity"]
    rows = [head, ["---"] * len(head)]
    for repair in REPAIRS:
        found = {line["sparsity"]: line for line in lines if line["repair"] == repair}
        if found:
            cells = [f"{100 * found[s]['accuracy']:.2f}" if s in found else "" for s in SPARSITIES]
            seconds = sorted(line["seconds"] for line in found.values())
            rows.append([repair, *cells, f"{seconds[0]:.0f} to {seconds[-1]:.0f}"])
    notes = "; ".join(dict.fromkeys(line["note"] for line in lines if line["note"]))
    threads = max(line["threads"] for line in lines)
    text = f"{dense} % before pruning, by {images:,} test images; seconds with {threads} thread{'s' * (threads > 1)}"
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## {network}\n\n{text}{f' ({notes})' if notes else ''}.\n\n{body}\n"


if __name__ == "__main__":
    main()
