"""The networks of `benchmarks.recovery`, and their real retraining under a mask."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.predictors import REGIMES
from benchmarks.problems import train_dense, train_images
from benchmarks.real_networks_cases import ResNet, cifar10, normalised
from howsparse import Mask
from howsparse.loading import load_weights
from howsparse.tasks import load_task
from howsparse.tasks.data import Batches, Images

__all__ = ["BUDGETS", "Named", "Network", "named_networks"]

BUDGETS = (20, 100)  # iterations of L-BFGS over all examples, or steps of SGD on the larger networks
_SGD_BATCH = 128


@dataclass(frozen=True)
class Network:
    """A trained network, its data, and how it is retrained.

    Attributes:
        model: the network.
        x, y: the examples, on which it was trained and is retrained.
        retrain: the losses after each budget, from the model, the mask, the examples and a loss at which to stop.
        products: products of limit, recoverable and directional limit.
        batch: examples in a batch of the products.
        steps: Lanczos steps for each mask when the choices of the trust region are compared.
        fixed_steps: products for the predicted loss of each mask of the fixed sparsities.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    retrain: Callable[["Network", Mask, float], list[float]]
    products: tuple[int, int, int]
    batch: int
    steps: int = 20
    fixed_steps: int = 24

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.x.split(self.batch), self.y.split(self.batch), strict=True))


@dataclass(frozen=True)
class Named:
    """Which network: the key of its record, and a function that makes it."""

    task: str
    l1: float
    weight_decay: float
    seed: int
    make: Callable[[], Network]


def named_networks(
    tasks: list[str], seeds: list[int], nets: Path, cifar10_folder: Path, fc5: Path, images: int
) -> list[Named]:
    """All networks of some tasks, all regimes of one seed before the next seed."""
    made: list[Named] = []
    for seed in seeds:
        for task in tasks:
            if task in ("digits", "digits-convnet"):
                made += [Named(task, l1, decay, seed, _digits(task, l1, decay, seed)) for l1, decay in REGIMES]
    if "fc5-cifar10" in tasks:
        made.append(Named("fc5-cifar10", 5e-5, 0.0, 0, lambda: _fc5(fc5, cifar10_folder, images)))
    if "resnet20" in tasks:
        made.append(Named("resnet20", 0.0, 1e-4, 0, lambda: _resnet20(nets, cifar10_folder, images)))
    return made


def _digits(task: str, l1: float, decay: float, seed: int) -> Callable[[], Network]:
    def make() -> Network:
        problem = load_task(task, l1=l1, weight_decay=decay)
        model, images = train_dense(problem, seed), train_images(problem)
        small = task == "digits"
        x, y = whole(images)
        products, batch, steps = ((96, 200, 200), len(y), 60) if small else ((48, 80, 96), 128, 20)
        return Network(model.eval(), x, y, _lbfgs, products, batch, steps)

    return make


def _fc5(weights: Path, folder: Path, images: int) -> Network:
    problem = load_task("fc5-cifar10", str(folder))
    model = problem.initial(0)
    load_weights(model, weights)
    found: Images = train_images(problem).first(images)
    return Network(model.eval(), *whole(found), _sgd, (40, 60, 64), 500)


def _resnet20(nets: Path, folder: Path, images: int) -> Network:
    model = ResNet(3)
    load_weights(model, nets / "resnet20-12fca82f.th")
    x, y = normalised(cifar10_images(folder).first(images))
    return Network(model.eval(), x, y, _sgd, (32, 30, 48), 250, steps=8, fixed_steps=10)  # products are dear here


def whole(images: Images) -> tuple[Tensor, Tensor]:
    """All images as the network reads them, and their labels."""
    x, y = next(iter(Batches(images, len(images.labels))))
    return x, y


def cifar10_images(folder: Path) -> Images:
    """The training images with ImageNet's mean and standard deviation, as the pretrained ResNets have them."""
    from benchmarks.real_networks_cases import Sources

    return cifar10(Sources(folder, folder, folder, folder, folder))[0]


def _masked(network: Network, mask: Mask) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """A copy of the network under the mask, and its parameters by name."""
    model = copy.deepcopy(network.model).requires_grad_(True)
    mask.apply_(model)
    return model, dict(model.named_parameters())


def _hold(parameters: dict[str, nn.Parameter], mask: Mask) -> None:
    """Set the gradients of removed weights to zero, so that they stay zero."""
    for name, kept in mask.items():
        gradient = parameters[name].grad
        assert gradient is not None
        gradient.mul_(kept)


def _loss(model: nn.Module, network: Network) -> float:
    model.eval()
    with torch.no_grad():
        parts = [functional.cross_entropy(model(x), y, reduction="sum") for x, y in network.batches]
    return float(sum(parts)) / len(network.y)


def _lbfgs(network: Network, mask: Mask, enough: float) -> list[float]:
    """L-BFGS with a line search over all examples at once; statistics of BatchNorm stay as they are."""
    model, parameters = _masked(network, mask)
    losses: list[float] = []
    optimizer = torch.optim.LBFGS(
        parameters.values(), history_size=20, line_search_fn="strong_wolfe", tolerance_grad=1e-10, tolerance_change=0.0
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(network.x), network.y)
        loss.backward()
        _hold(parameters, mask)
        return loss

    before = 0
    for budget in BUDGETS:
        optimizer.param_groups[0].update(max_iter=budget - before, max_eval=2 * (budget - before))
        if not losses or losses[-1] > enough:
            optimizer.step(closure)
        losses.append(_loss(model, network))
        before = budget
    return losses


def _sgd(network: Network, mask: Mask, enough: float) -> list[float]:
    """SGD with momentum 0.9 and a rate that falls linearly to 0 at the last step of each budget."""
    losses: list[float] = []
    for budget in BUDGETS:
        if losses and losses[-1] <= enough:
            losses.append(losses[-1])
            continue
        model, parameters = _masked(network, mask)
        model.train()
        optimizer = torch.optim.SGD(parameters.values(), lr=0.01, momentum=0.9)
        generator = torch.Generator().manual_seed(0)
        for step in range(budget):
            at = torch.randint(len(network.y), (_SGD_BATCH,), generator=generator)
            optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / budget)
            optimizer.zero_grad()
            functional.cross_entropy(model(network.x[at]), network.y[at]).backward()
            _hold(parameters, mask)
            optimizer.step()
        losses.append(_loss(model, network))
    return losses
