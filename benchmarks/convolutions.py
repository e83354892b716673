"""What a curvature product of a convolutional network costs, in gradients: every way, other tools, and less memory.

    python -m benchmarks.convolutions resnet20 --nets FOLDER --cifar10 FOLDER [--images 256] [--batch 64] [--rounds 7]
        [--record results/product.jsonl] [--table docs/product.md]

ResNet20 has the weights of a file in ``--nets``; ResNet18, for CIFAR, is at initialisation. All ways are first checked
against the same product with torch's derivatives. Then they take turns in one process, so that a slow phase of the
machine affects all of them. Ratios are of medians. Tools that are not installed are left out
(`make bench-install`).
"""

import argparse
import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, linearize

from benchmarks import peers
from benchmarks.commands import own_command
from benchmarks.limit_networks import convnet
from benchmarks.product import interleaved, with_onednn
from benchmarks.product_page import KIND, write_page
from benchmarks.real_networks_cases import ResNet, Sources, cifar10, normalised, pairs
from howsparse.loading import load_weights
from howsparse.records import Measurement, append_record, provenance
from howsparse.risk import GGN, EmpiricalRisk, Hessian, cross_entropy
from howsparse.risk.convolutions import Convolutions

Way = Callable[[], Tensor]
Batches = list[tuple[Tensor, Tensor]]
PARTS = {"all": 1.0, "a third": 1 / 3, "a tenth": 0.1}  # of the memory that all graphs need
LAST = ", channels last"
_ALIKE = 1e-2  # relative; of few images, one unit that rounding puts on the other side of its ReLU changes 2e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("resnet20", "resnet18"))
    parser.add_argument("--nets", type=Path, required=True)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--record", type=Path, default=None)
    parser.add_argument("--table", type=Path, default=None)
    options = parser.parse_args()
    load = [round(value, 1) for value in os.getloadavg()]
    model, batches = subject(options)
    ways, stored = all_ways(model, batches)
    differences = check_agreement(ways)
    seconds = interleaved({name: with_onednn(way) for name, way in ways.items()}, options.rounds)
    found: dict[str, Any] = {
        "network": options.network,
        "images": options.images,
        "batch": options.batch,
        "threads": torch.get_num_threads(),
        "load": load,
        "graph_bytes": stored,
        "gradients": {name: round(taken / seconds["gradient"], 3) for name, taken in seconds.items()},
        "differences": differences,
        "seconds": {name: round(taken, 4) for name, taken in seconds.items()},
        "tools": {peer: peers.version(peer) for peer in peers.INSTALL},
    }
    record = Measurement(kind=KIND, made=provenance(own_command("benchmarks.convolutions")), **found)
    if options.record is not None:
        append_record(record, options.record)
    if options.table is not None and options.record is not None:
        write_page(options.record, options.table)
    print(json.dumps(record.model_dump(mode="json"), indent=2))


def subject(options: argparse.Namespace) -> tuple[nn.Module, Batches]:
    """The network in evaluation mode, and batches of CIFAR-10's first training images."""
    nowhere = Path()
    images, _ = cifar10(Sources(options.nets, options.cifar10, nowhere, nowhere, nowhere))
    if options.network == "resnet20":
        model: nn.Module = ResNet(3)
        load_weights(model, options.nets / "resnet20-12fca82f.th")
    else:
        model = convnet(images)
    return model.eval(), pairs(*normalised(images.first(options.images)), options.batch)


def all_ways(model: nn.Module, batches: Batches) -> tuple[dict[str, Way], dict[str, int]]:
    """Every way to a gradient, a Hessian product or a Gauss-Newton product; bytes of an example's graph for some."""
    risk = EmpiricalRisk(model, batches)
    last = EmpiricalRisk(*channels_last(model, batches))
    vector = torch.randn(risk.num_weights, generator=torch.Generator().manual_seed(0))
    made: dict[str, Hessian | GGN] = {}
    for name, kind in (("Hessian", Hessian), ("Gauss-Newton", GGN)):
        whole = kind(risk)
        made[f"{name}, howsparse"] = whole
        for part, share in list(PARTS.items())[1:]:
            memory = int(share * whole.graph_bytes() * risk.num_examples)
            made[f"{name}, howsparse, {part} of the memory"] = kind(risk, memory)
        made[f"{name}, howsparse, no memory"] = kind(risk, 0)
        made[f"{name}, howsparse, channels first"] = with_derivatives(kind(risk), Convolutions())
        made[f"{name}, torch's derivatives, graphs kept"] = with_derivatives(kind(risk), None)
        made[f"{name}, torch's derivatives, graphs built each time"] = with_derivatives(kind(risk, 0), None)
        made[f"{name}, torch's derivatives, graphs kept{LAST}"] = with_derivatives(kind(last), None)
    stored = {name: round(matrix.graph_bytes()) for name, matrix in made.items() if "memory" not in name}
    ways: dict[str, Way] = {
        "gradient": risk.gradient,
        f"gradient{LAST}": last.gradient,
        "gradient, howsparse's derivatives": lambda: own_gradient(risk),
    }
    ways |= {name: product(matrix, vector) for name, matrix in made.items()}
    ways["Gauss-Newton, forward mode"] = lambda: forward_mode(risk, vector)
    ways["Gauss-Newton, torch.func.linearize"] = linearized(risk, vector)
    tools = peers.products(model, risk.names, batches)
    ways |= {f"Hessian, {tool}": applied(way, vector) for tool, way in tools.items() if way is not None}
    return ways, stored


def product(matrix: Hessian | GGN, vector: Tensor) -> Way:
    return lambda: torch.as_tensor(matrix @ vector)


def applied(way: Callable[[Tensor], Tensor], vector: Tensor) -> Way:
    return lambda: way(vector)


def with_derivatives(matrix: Hessian | GGN, convolutions: Convolutions | None) -> Hessian | GGN:
    """The matrix with these derivatives; None is torch's."""
    matrix._convolutions = convolutions
    return matrix


def channels_last(model: nn.Module, batches: Batches) -> tuple[nn.Module, Batches]:
    """A copy of the network and the images with channels last."""
    own: nn.Module = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return own, [(x.contiguous(memory_format=torch.channels_last), y) for x, y in batches]


def own_gradient(risk: EmpiricalRisk) -> Tensor:
    """The gradient in the memory format of howsparse's products."""
    total = torch.zeros(risk.num_weights)
    with risk.standing_in() as call:
        for batch, share in risk.on_device():
            with Convolutions(channels_last=True):
                loss = call(risk.loss, batch)
            total.add_(risk.flatten(torch.autograd.grad(loss, risk.leaves)), alpha=share)
    return total


def forward_mode(risk: EmpiricalRisk, vector: Tensor) -> Tensor:
    """One forward pass with tangents, and one pass back through the graph of the output that it leaves."""
    total, names = torch.zeros_like(vector), risk.names
    fixed = {name: p.detach() for name, p in risk.model.named_parameters()}
    for batch, share in risk.on_device():
        with forward_ad.dual_level():
            parts = zip(names, risk.leaves, risk.unflatten(vector), strict=True)
            weights = {name: forward_ad.make_dual(leaf, part) for name, leaf, part in parts}
            output = functional_call(risk.model, fixed | weights, (batch[0],))
            value, tangent = forward_ad.unpack_dual(output)
        curved = loss_curvature(value, batch[1], tangent)
        total.add_(risk.flatten(torch.autograd.grad(value, risk.leaves, curved)), alpha=share)
    return total


def linearized(risk: EmpiricalRisk, vector: Tensor) -> Way:
    """Kept: the linear map of the output's tangent by `torch.func.linearize`, and the graph of the output."""
    fixed = {name: p.detach() for name, p in risk.model.named_parameters()}
    weights = {name: leaf.detach() for name, leaf in zip(risk.names, risk.leaves, strict=True)}
    kept = []
    for batch, share in risk.on_device():
        at = batch[0]
        tangent = linearize(lambda w, at=at: functional_call(risk.model, fixed | w, (at,)), weights)[1]
        leaves = dict(zip(risk.names, risk.leaves, strict=True))
        kept.append((functional_call(risk.model, fixed | leaves, (at,)), batch[1], tangent, share))

    def run() -> Tensor:
        total, along = torch.zeros_like(vector), dict(zip(risk.names, risk.unflatten(vector), strict=True))
        for output, targets, tangent, share in kept:
            curved = loss_curvature(output, targets, tangent(along))
            parts = torch.autograd.grad(output, risk.leaves, curved, retain_graph=True)
            total.add_(risk.flatten(parts), alpha=share)
        return total

    return run


def loss_curvature(output: Tensor, targets: Tensor, tangent: Tensor) -> Tensor:
    """Product of the loss's Hessian by the output with a tangent of the output."""
    at = output.detach().requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy.of_output(at, (at, targets)), at, create_graph=True)
    return torch.autograd.grad(slope, at, tangent.detach())[0]


def check_agreement(ways: dict[str, Way]) -> dict[str, float]:
    """Relative difference of every product from the one with torch's derivatives; different matrices are not timed."""
    found = {}
    for name, way in ways.items():
        kind = name.split(",")[0]
        reference = "gradient" if kind == "gradient" else f"{kind}, torch's derivatives, graphs kept"
        expected = with_onednn(ways[reference])()
        assert isinstance(expected, Tensor)
        difference = torch.as_tensor(with_onednn(way)()) - expected
        found[name] = float(difference.norm() / expected.norm())
        if not found[name] < _ALIKE:
            raise SystemExit(f"{name}: differs from torch's by {found[name]:.1e}")
    return found


if __name__ == "__main__":
    main()
