"""Accuracy or perplexity after pruning and each repair, without training.

    python -m benchmarks.repair NETWORK ... --nets FOLDER --cifar10 FOLDER [--rows TEXT] [--sparsities 0.8,0.9]
    python -m benchmarks.repair --page

NETWORK: resnet20, resnet32, llama, or "fc5, without l1" and "fc5, with l1", which two commands train first (STRENGTH 0
and 5e-5):

    howsparse train fc5-cifar10 --data FOLDER --epochs 10 --l1 STRENGTH --output runs/fc5-l1-STRENGTH.safetensors

Each sparsity of each row is recorded as it ends, and is not computed again. With --page, docs/repair.md is written from
the records.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.commands import own_command
from benchmarks.repair_cases import RepairCase, examples, load
from benchmarks.repair_page import page
from howsparse import magnitude_mask
from howsparse.files import write_whole
from howsparse.pruning.repair import Objective, prune_and_repair, repair_batchnorm, repair_globally, repair_path
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.risk.batches import FirstExamples
from howsparse.risk.evaluate import evaluate
from howsparse.risk.weights import prunable_weights

Line = dict[str, Any]
Made = Iterator[tuple[float, nn.Module, float]]  # sparsity, network, seconds of pruning and repair
Row = Callable[[RepairCase, list[Any], list[float]], Made]


def one_by_one(repair: str, order: str = "magnitude", then_statistics: bool = False) -> Row:
    """Each sparsity by itself, from the dense network."""

    def made(case: RepairCase, batches: list[Any], sparsities: list[float]) -> Made:
        for sparsity in sparsities:
            model, began = copy.deepcopy(case.model), time.perf_counter()
            prune_and_repair(model, sparsity, batches, repair=repair, order=order)
            if then_statistics:
                repair_batchnorm(model, batches)
            yield sparsity, model, time.perf_counter() - began

    return made


def whole(objective: Objective) -> Row:
    """The repair of the whole network by itself, with another objective."""

    def made(case: RepairCase, batches: list[Any], sparsities: list[float]) -> Made:
        for sparsity in sparsities:
            model, began = copy.deepcopy(case.model), time.perf_counter()
            repair_globally(model, magnitude_mask(model, sparsity), batches, objective=objective)
            yield sparsity, model, time.perf_counter() - began

    return made


def path(globally: int = 0) -> Row:
    """One path of rounds through all sparsities of the case; then the network as a whole, with so many steps."""

    def made(case: RepairCase, batches: list[Any], sparsities: list[float]) -> Made:
        model, began = copy.deepcopy(case.model), time.perf_counter()
        steps, apart = [each for each in case.path if each <= max(sparsities)], 0.0
        for sparsity, mask in zip(steps, repair_path(model, steps, batches), strict=True):
            now, stopped = copy.deepcopy(model), time.perf_counter()
            if sparsity in sparsities:
                if globally:
                    repair_globally(now, mask, batches, dense=case.model, steps=globally)
                yield sparsity, now, time.perf_counter() - began - apart
            apart += time.perf_counter() - stopped

    return made


IMAGES = {  # with the number of training images
    "no repair": (one_by_one("none"), 0),
    "BatchNorm, 1,000 images": (one_by_one("batchnorm"), 1000),
    "layers, 500 images": (one_by_one("layers"), 500),
    "layers, 1,000 images": (one_by_one("layers"), 1000),
    "layers, then BatchNorm, 1,000 images": (one_by_one("layers", then_statistics=True), 1000),
    "order layerwise, layers, 500 images": (one_by_one("layers", "layerwise"), 500),
    "order erk, layers, 500 images": (one_by_one("layers", "erk"), 500),
    "order wanda, layers, 500 images": (one_by_one("layers", "wanda"), 500),
    "order marginal, layers, 500 images": (one_by_one("layers", "marginal"), 500),
    "global, 500 images": (one_by_one("global"), 500),
    "global by squares, 500 images": (whole("squares"), 500),
    "global by divergence, 500 images": (whole("divergence"), 500),
    "global by labels, 500 images": (whole("labels"), 500),
    "layers, then global, 500 images": (one_by_one("layers+global"), 500),
    "path of rounds, 500 images": (path(), 500),
    "path of rounds, then global, 500 images": (path(globally=2), 500),
    "5 rounds, 500 images": (one_by_one("rounds"), 500),
}
FULLY_CONNECTED = {  # as many features need more images
    "no repair": (one_by_one("none"), 0),
    "order layerwise": (one_by_one("none", "layerwise"), 0),
    "order erk": (one_by_one("none", "erk"), 0),
    "order wanda": (one_by_one("none", "wanda"), 5000),
    "layers, 5,000 images": (one_by_one("layers"), 5000),
    "order layerwise, layers, 5,000 images": (one_by_one("layers", "layerwise"), 5000),
    "order erk, layers, 5,000 images": (one_by_one("layers", "erk"), 5000),
    "order wanda, layers, 5,000 images": (one_by_one("layers", "wanda"), 5000),
    "layers, then global, 5,000 images": (one_by_one("layers+global"), 5000),
    "path of rounds, 5,000 images": (path(), 5000),
    "path of rounds, then global, 5,000 images": (path(globally=2), 5000),
}
TEXT = {
    "no repair": (one_by_one("none"), 0),
    "layers, 128 texts": (one_by_one("layers"), 128),
    "order layerwise, layers, 128 texts": (one_by_one("layers", "layerwise"), 128),
    "order erk, layers, 128 texts": (one_by_one("layers", "erk"), 128),
    "order wanda, layers, 128 texts": (one_by_one("layers", "wanda"), 128),
    "global, 128 texts": (one_by_one("global"), 128),
    "layers, then global, 128 texts": (one_by_one("layers+global"), 128),
    "global by squares, 128 texts": (whole("squares"), 128),
    "global by divergence, 128 texts": (whole("divergence"), 128),
    "global by labels, 128 texts": (whole("labels"), 128),
    "path of rounds, 128 texts": (path(), 128),
    "path of rounds, then global, 128 texts": (path(globally=2), 128),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--nets", type=Path, default=Path("none"))
    parser.add_argument("--cifar10", type=Path, default=Path("none"))
    parser.add_argument("--weights", type=Path, default=Path("runs"))
    parser.add_argument("--rows", default="", help="only rows with this text in their name")
    parser.add_argument("--sparsities", default="", help="only these, with commas")
    parser.add_argument("--record", type=Path, default=Path("results/repair.jsonl"))
    parser.add_argument("--test-images", type=int, default=10_000, help="how many test examples")
    parser.add_argument("--skip", type=int, default=0, help="how many test examples before these are left out")
    parser.add_argument("--note", default="", help="for the record, for example that the machine was busy")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    for network in options.networks:
        case = load(network, options.nets, options.cifar10, options.weights)
        for name, (row, images) in rows_of(case).items():
            if options.rows in name:
                measure_row(network, case, name, row, images, options)
    if options.page:
        write_whole(Path("docs/repair.md"), lambda file: file.write_text(page(read_lines(options.record))))


def rows_of(case: RepairCase) -> dict[str, tuple[Row, int]]:
    """The rows of a case's table."""
    if case.text:
        return TEXT
    return IMAGES if any(isinstance(layer, nn.Conv2d) for layer in case.model.modules()) else FULLY_CONNECTED


def measure_row(network: str, case: RepairCase, name: str, row: Row, images: int, options: argparse.Namespace) -> None:
    """Compute what of a row is not recorded yet."""
    asked = [float(each) for each in options.sparsities.split(",") if each] or [*case.sparsities]
    recorded = read_lines(options.record)
    key = {"network": network, "repair": name, "test_images": options.test_images}
    key |= {"skipped": options.skip} if options.skip else {}
    missing = [s for s in asked if not any((key | {"sparsity": s}).items() <= line.items() for line in recorded)]
    if not missing:
        return
    test = [*FirstExamples(case.test, options.skip + options.test_images)]
    test = test[options.skip // 250 :] if options.skip else test
    dense_loss, dense = evaluate(case.model, test)
    for sparsity, model, seconds in row(case, examples(case, images), missing):
        loss, accuracy = evaluate(model, test)
        found: Line = key | {"sparsity": sparsity, "accuracy": accuracy, "loss": loss, "removed": removed(model)}
        found |= {"seconds": round(seconds, 1), "dense_accuracy": dense, "dense_loss": dense_loss, "images": images}
        found |= {"threads": torch.get_num_threads(), "note": options.note}
        append_record(
            Measurement(kind="repair", made=provenance(own_command("benchmarks.repair")), **found), options.record
        )
        print(network, name, sparsity, accuracy, f"loss {loss:.4f}, {seconds:.0f} s", file=sys.stderr)


def removed(model: nn.Module) -> float:
    """The fraction of the prunable weights that is zero."""
    weights = prunable_weights(model).values()
    return round(sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights), 4)


if __name__ == "__main__":
    main()
