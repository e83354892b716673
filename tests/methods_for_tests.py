"""A task small enough to run every method on, and its training written by hand."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from howsparse.matmul import fast_matmul
from howsparse.problem import Problem, Training
from howsparse.risk.weights import prunable_weights
from howsparse.tasks import load_task
from howsparse.tasks.data import Batches, ShuffledBatches

WEIGHTS = 6464  # of the 64-64-32-10 network

Kept = dict[str, Tensor]


def small(name: str = "digits", images: int = 300, **recipe: object) -> Problem:
    """300 images, five epochs of three steps."""
    task = load_task(name, None, **{"epochs": 5} | recipe)
    assert isinstance(task.train, ShuffledBatches)
    first = task.train.images.first(images)
    return replace(task, train=replace(task.train, images=first), study=Batches(first, 1000))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(a: nn.Module | dict[str, Tensor], b: nn.Module | dict[str, Tensor]) -> bool:
    """Every weight, bias and statistic to the bit."""
    one, other = (state(x) if isinstance(x, nn.Module) else x for x in (a, b))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def all_kept(model: nn.Module) -> Kept:
    return {name: torch.ones(w.shape, dtype=torch.bool) for name, w in prunable_weights(model).items()}


def largest_kept(model: nn.Module, count: int) -> Kept:
    """The ``count`` largest weights of the network, by sorting all of them."""
    weights = prunable_weights(model)
    places = [(name, i) for name, w in weights.items() for i in range(w.numel())]
    sizes = [abs(value) for w in weights.values() for value in w.detach().flatten().tolist()]
    kept = {name: torch.zeros(w.numel(), dtype=torch.bool) for name, w in weights.items()}
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place])[:count]:
        name, i = places[place]
        kept[name][i] = True
    return {name: flat.view(weights[name].shape) for name, flat in kept.items()}


def always(kept: Kept) -> Callable[[int], Kept]:
    """The same in every epoch."""
    return lambda epoch: kept


def zero(model: nn.Module, kept: Kept) -> None:
    with torch.no_grad():
        for name, w in prunable_weights(model).items():
            w[~kept[name]] = 0.0


def train_by_hand(
    task: Problem,
    model: nn.Module,
    kept: Callable[[int], Kept],
    epochs: Iterable[int],
    l1: float = 0.0,
    rate: Callable[[int], float] = lambda epoch: 1.0,
) -> None:
    """SGD on the task's batches; what ``kept(epoch)`` leaves out is zero before every forward pass."""
    settings = task.fit
    assert isinstance(settings, Training)
    optimizer = torch.optim.SGD(model.parameters(), settings.learning_rate, settings.momentum)
    model.train()
    for epoch in epochs:
        optimizer.param_groups[0]["lr"] = settings.learning_rate * rate(epoch)
        stays = kept(epoch)
        for inputs, targets in task.epoch_batches(0)(epoch):
            zero(model, stays)
            with fast_matmul(torch.device("cpu")):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), targets).backward()
            for w in prunable_weights(model).values():
                assert w.grad is not None
                w.grad += l1 * w.detach().sign()
            optimizer.step()
        zero(model, stays)
