"""Two gloo processes against one."""

import socket
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn

from howsparse import measure, pruning_limit
from howsparse.linalg.remembered import Remembered
from howsparse.parallel import rank
from howsparse.risk.curvature import Hessian
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.evaluate import evaluate
from howsparse.tasks.networks import digits_convnet
from howsparse.training import fit

Batches = list[tuple[torch.Tensor, torch.Tensor]]


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
    remembered = [Remembered(Hessian(risk), folder / str(rank()), "mlp") @ vector for _ in range(2)]
    default = pruning_limit(model, [(x[:100], y[:100]) for x, y in batches], max_products=32)
    return {
        "limit": [*limit.bracket, limit.upper_bound, limit.certified, limit.errors.data],
        "ggn": [*ggn.bracket, float(ggn.rank_bound or 0)],
        "tolerance": [default.tolerance],
        "losses": [point.loss for point in curve],
        "accuracies": [point.accuracy or 0.0 for point in curve],
        "evaluated": list(evaluate(mlp, batches)),
        "trained": torch.cat([p.detach().flatten() for p in mlp.parameters()]).tolist(),
        "remembered": torch.cat(remembered).tolist(),
        "history": [x for epoch in history for x in (epoch.loss, epoch.accuracy)],
    }


def work(number: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=number, world_size=2)
    torch.save(answers(Path(folder)), f"{folder}/{number}.pt")
    distributed.barrier()  # gloo aborts a process whose peer leaves first
    distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.skipif(sys.platform == "win32", reason="gloo needs a POSIX system")
def test_two_processes_answer_as_one(tmp_path: Path) -> None:
    multiprocessing.spawn(work, (str(tmp_path), free_port()), nprocs=2)  # type: ignore[attr-defined,no-untyped-call]
    first, second = (torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in (0, 1))
    assert first == second
    assert len(list((tmp_path / "0").iterdir())) == 1
    assert not (tmp_path / "1").exists()
    alone = answers(tmp_path / "alone")
    for name, values in alone.items():
        assert first[name] == pytest.approx(values, rel=1e-6, abs=1e-9), name
