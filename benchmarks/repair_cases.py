"""The networks of `benchmarks.repair`, with the data that repair them and the data that judge them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.real_networks_cases import CASES, Sources
from howsparse import load_task
from howsparse.loading import load_weights
from howsparse.risk.batches import FirstExamples, Joined, Pieces

__all__ = ["NETWORKS", "RepairCase", "load"]

PIECE = 125  # images that go through a network together


@dataclass(frozen=True)
class RepairCase:
    """A network and its data.

    Attributes:
        model: the dense network.
        calibration: training examples; the repairs get the first ones.
        test: examples of no training.
        sparsities: to prune to, in growing order.
        path: sparsities of the path of rounds.
        text: whether it is a language model, which is judged by its perplexity.
    """

    model: nn.Module
    calibration: list[Any]
    test: list[Any]
    sparsities: tuple[float, ...]
    path: tuple[float, ...]
    text: bool = False


def resnet(name: str) -> Callable[[Path, Path, Path], RepairCase]:
    def make(nets: Path, cifar10: Path, weights: Path) -> RepairCase:
        none = Path("none")
        case = CASES[name](Sources(nets, cifar10, none, none, none))
        test = [*Joined((case.choose, case.held_out))]
        levels = (0.5, 0.6, 0.7, 0.8, 0.9)
        return RepairCase(case.model, case.calibration, test, levels, (0.5, 0.6, 0.7, 0.8, 0.85, 0.9))

    return make


def llama(nets: Path, cifar10: Path, weights: Path) -> RepairCase:
    none = Path("none")
    case = CASES["stories260K"](Sources(nets, none, none, none, none))
    levels = (0.3, 0.5, 0.7)
    return RepairCase(case.model, case.calibration, case.held_out, levels, (0.3, 0.4, 0.5, 0.6, 0.7), text=True)


def fc5(file: str) -> Callable[[Path, Path, Path], RepairCase]:
    def make(nets: Path, cifar10: Path, weights: Path) -> RepairCase:
        problem = load_task("fc5-cifar10", str(cifar10))
        model = problem.network()
        load_weights(model, weights / file)
        calibration = [*Pieces(problem.study_batches(5000), 500)]
        levels = (0.8, 0.9, 0.95, 0.98)
        return RepairCase(model.eval(), calibration, [*problem.test], levels, levels)

    return make


NETWORKS: dict[str, Callable[[Path, Path, Path], RepairCase]] = {
    "resnet20": resnet("resnet20"),
    "resnet32": resnet("resnet32"),
    "llama": llama,
    "fc5, without l1": fc5("fc5-l1-0.safetensors"),
    "fc5, with l1": fc5("fc5-l1-5e-5.safetensors"),
}


def load(name: str, nets: Path, cifar10: Path, weights: Path) -> RepairCase:
    """A network by its name in `NETWORKS`.

    Args:
        name: the name.
        nets: folder of the pretrained networks.
        cifar10: folder of CIFAR-10.
        weights: folder of the two FC5.
    """
    return NETWORKS[name](nets, cifar10, weights)


def examples(case: RepairCase, count: int) -> list[Any]:
    """The first calibration examples, in batches that fit a forward pass in step."""
    first = FirstExamples(case.calibration, count)
    return [*first] if case.text else [*Pieces(first, PIECE)]
