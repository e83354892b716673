"""Two gloo processes against one: the answers, and the weights that training ends in."""

import os
import socket
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from howsparse import measure, pruning_limit
from howsparse.linalg.remembered import Remembered
from howsparse.parallel import rank
from howsparse.pruning.masks import random_mask
from howsparse.risk.curvature import Hessian
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.evaluate import evaluate
from howsparse.risk.weights import prunable_weights
from howsparse.store import Store
from howsparse.tasks.networks import digits_convnet
from howsparse.training import attach_l1, attach_mask, fit

Batches = list[tuple[Tensor, Tensor]]

needs_gloo = pytest.mark.skipif(sys.platform == "win32", reason="gloo needs a POSIX system")


def case() -> tuple[nn.Module, Batches]:
    """A convnet with BatchNorm, and batches of which the last is of one example: a process has none of it."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = digits_convnet().double().eval()
    inputs = torch.randn(301, 1, 8, 8, generator=generator, dtype=torch.float64)
    targets = torch.randint(10, (301,), generator=generator)
    return model, list(zip(inputs.split(100), targets.split(100), strict=True))


def answers(folder: Path) -> dict[str, object]:
    model, batches = case()
    limit = pruning_limit(model, batches, tolerance=0.05, max_products=40, population=1000)
    ggn = pruning_limit(model, batches, tolerance=0.05, max_products=40, curvature="ggn", memory=0)
    curve = measure(model, batches, tolerance=0.05, precision=0.02).curve
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)).double()
    for parameter in mlp.parameters():
        nn.init.constant_(parameter, 0.1) if parameter.ndim == 1 else nn.init.eye_(parameter)
    sgd = torch.optim.SGD(mlp.parameters(), 0.1, momentum=0.9)
    history = fit(mlp, sgd, lambda epoch: batches, 3)
    risk = EmpiricalRisk(mlp, batches)
    vector = torch.linspace(-1, 1, risk.num_weights, dtype=torch.float64)
    # Each process its own folder, as on another machine: what the first one finds serves both.
    remembered = [Remembered(Hessian(risk), Store(folder / str(rank())), "mlp") @ vector for _ in range(2)]
    default = pruning_limit(model, [(x[:100], y[:100]) for x, y in batches], max_products=32)
    return {
        "limit": [*limit.bracket, float(limit.checked_rise or 0), limit.predicted, limit.errors.data],
        "ggn": [*ggn.bracket, float(ggn.rank_bound or 0)],
        "tolerance": [default.tolerance],
        "losses": [point.loss for point in curve],
        "accuracies": [point.accuracy or 0.0 for point in curve],
        "evaluated": list(evaluate(mlp, batches)),
        "trained": torch.cat([p.detach().flatten() for p in mlp.parameters()]).tolist(),
        "remembered": torch.cat(remembered).tolist(),
        "history": [x for epoch in history for x in (epoch.loss, epoch.accuracy)],
    }


def work(number: int, compute: Callable[[Path], dict[str, object]], folder: str, port: int) -> None:
    warnings.simplefilter("error")  # as pytest does in this process
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=number, world_size=2)
    torch.save(compute(Path(folder)), f"{folder}/{number}.pt")
    while not Path(folder, f"{1 - number}.pt").exists():  # Gloo aborts a process whose peer leaves first
        time.sleep(0.01)
    os._exit(0)  # without the end of Gloo's threads, which now and then aborts too


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def check_two_as_one(compute: Callable[[Path], dict[str, object]], folder: Path) -> None:
    """Both processes give the same bits, and what one process gives to 1e-6."""
    spawn: Any = multiprocessing.spawn  # type: ignore[attr-defined]
    spawn(work, (compute, str(folder), free_port()), nprocs=2)
    first, second = (torch.load(folder / f"{number}.pt", weights_only=True) for number in (0, 1))
    assert first == second
    alone = compute(folder / "alone")
    assert first.keys() == alone.keys()
    for name, values in alone.items():
        assert first[name] == pytest.approx(values, rel=1e-6, abs=1e-9), name


@needs_gloo
def test_two_processes_answer_as_one(tmp_path: Path) -> None:
    check_two_as_one(answers, tmp_path)
    assert len(list((tmp_path / "0").glob("product-*"))) == 1
    assert not (tmp_path / "1").exists()


class TwoHeads(nn.Module):
    """Two layers of which a batch uses one or both, and one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(4, 2) for _ in range(2))
        self.unused = nn.Linear(4, 4)

    def encode(self, x: Tensor, head: Tensor) -> Tensor:
        parts = [layer(x[head == number]) for number, layer in enumerate(self.heads) if (head == number).any()]
        return torch.cat(parts)


def mean_encoding(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """A user's loss of dict batches, which calls a method of the model that is not ``forward``."""
    encoded: Tensor = model.encode(batch["x"], batch["head"])  # type: ignore[operator]
    return encoded.square().sum() / len(batch["x"])


def dict_batches(epoch: int) -> list[dict[str, Any]]:
    """The first one's heads alternate, so that each process uses another; the last one has a single example."""
    generator = torch.Generator().manual_seed(epoch)
    x = torch.randn(18, 4, generator=generator, dtype=torch.float64)
    heads = [torch.arange(8) % 2, torch.randint(2, (9,), generator=generator), torch.tensor([1])]
    return [{"x": x, "head": head, "name": "x"} for x, head in zip(x.split([8, 9, 1]), heads, strict=True)]


def state(model: nn.Module) -> list[float]:
    """Parameters and buffers, in one list."""
    return torch.cat([tensor.detach().flatten().double() for tensor in model.state_dict().values()]).tolist()


def trainings(folder: Path) -> dict[str, object]:
    """What trainings end in: with BatchNorm, with hooks on the optimizer, with unused parameters."""
    _, batches = case()
    torch.manual_seed(1)
    convnet, heads = digits_convnet().double(), TwoHeads().double()
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)).double()
    layers = [type(module).__name__ for module in convnet.modules()]
    history = fit(convnet, torch.optim.SGD(convnet.parameters(), 0.05, momentum=0.9), lambda epoch: batches, 2)
    assert [type(module).__name__ for module in convnet.modules()] == layers

    adam = torch.optim.AdamW(mlp.parameters(), 0.01)
    attach_l1(adam, prunable_weights(mlp).values(), 0.01)
    mask = random_mask(mlp, 0.5)
    attach_mask(adam, mlp, mask)
    fit(mlp, adam, lambda epoch: batches, 1)
    assert all((weight[~mask[name]] == 0).all() for name, weight in prunable_weights(mlp).items())

    sgd = torch.optim.SGD(heads.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    unused = heads.unused.weight.detach().clone()
    history += fit(heads, sgd, dict_batches, 3, loss=mean_encoding)
    assert torch.equal(heads.unused.weight, unused)  # no gradient, no weight decay either
    return {
        "convnet": state(convnet),
        "mlp": state(mlp),
        "heads": state(heads),
        "losses": [epoch.loss for epoch in history],
        "accuracies": [epoch.accuracy or 0.0 for epoch in history],
    }


@needs_gloo
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    check_two_as_one(trainings, tmp_path)


def interrupted(folder: Path) -> dict[str, object]:
    """Resuming gives the bits of never having stopped, also in several processes."""
    _, batches = case()

    def train(epochs: int, checkpoint: Path | None) -> list[float]:
        torch.manual_seed(2)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)).double()
        fit(model, torch.optim.SGD(model.parameters(), 0.1, 0.9), lambda epoch: batches, epochs, checkpoint=checkpoint)
        return state(model)

    folder.mkdir(exist_ok=True)
    train(1, folder / "c.pt")
    if distributed.is_initialized():
        distributed.barrier()  # the first process has written the file
    resumed, whole = train(3, folder / "c.pt"), train(3, None)
    assert resumed == whole
    return {"weights": resumed}


@needs_gloo
def test_two_processes_resume_to_the_same_bits(tmp_path: Path) -> None:
    check_two_as_one(interrupted, tmp_path)
