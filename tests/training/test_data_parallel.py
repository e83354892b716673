"""Shares of a batch against the whole batch, and SyncBatchNorm layers that come and go; see also test_parallel.py."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from howsparse import parallel
from howsparse.risk.losses import cross_entropy
from howsparse.training import data_parallel
from howsparse.training.data_parallel import Share, needs_whole_batches, own_share, synchronised, synchronised_norms
from howsparse.training.forward import TrainingLoss

Processes = Callable[[int, int], None]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    """Pretend to be one of several processes."""

    def pretend(rank: int, world: int) -> None:
        for module in (parallel, data_parallel):
            monkeypatch.setattr(module, "rank", lambda: rank)
            monkeypatch.setattr(module, "world_size", lambda: world)

    return pretend


def shares(processes: Processes, batch: Any, world: int, whole: bool = False) -> list[Share]:
    found = []
    for rank in range(world):
        processes(rank, world)
        found.append(own_share(batch, whole))
    return found


@pytest.mark.parametrize("world", [1, 2, 3, 7, 8])
def test_the_mean_of_scaled_losses_is_the_loss_of_the_batch(processes: Processes, world: int) -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0], dtype=torch.float64)  # 8 processes: too few examples
    found = shares(processes, {"x": values, "name": "v"}, world)
    losses = [share.batch["x"].mean() * share.scale for share in found]
    assert sum(losses) / world == pytest.approx(127 / 7, rel=1e-14)
    assert sum(share.count for share in found) == 7
    assert [share.whole for share in found] == [world in (1, 8)] * world
    if world == 3:
        assert [share.batch["x"].tolist() for share in found] == [[1, 8, 64], [2, 16], [4, 32]]


@pytest.mark.parametrize("world", [2, 3])  # of three processes, one has no label that counts
def test_labels_that_do_not_count_have_no_share(processes: Processes, world: int) -> None:
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = logits, torch.tensor([0, -100, 2, 1, -100, 1, 0])
    losses, count = [], 0
    for rank in range(world):
        processes(rank, world)
        share = own_share(batch, weigh=cross_entropy.counted)
        losses.append(float(cross_entropy(nn.Identity(), share.batch) * share.scale))
        count += int(share.count)
    assert sum(losses) / world == pytest.approx(float(cross_entropy(nn.Identity(), batch)), rel=1e-14)
    assert count == 5


@pytest.mark.parametrize(
    ("batch", "whole"),
    [
        ((torch.ones(4, 2), torch.ones(4)), True),
        ((torch.ones(4, 2), torch.tensor(0.5)), False),
        ([torch.ones(1)], False),
    ],
)
def test_every_process_has_a_batch_that_is_not_split(processes: Processes, batch: Any, whole: bool) -> None:
    found = shares(processes, batch, 2, whole)
    assert all(share.batch is batch and share.scale == 1.0 and share.whole for share in found)
    assert [share.count for share in found] == [len(batch[0]), 0]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4)))


def test_on_a_cpu_batch_norm_needs_whole_batches(processes: Processes) -> None:
    normed, plain = TrainingLoss(network(), cross_entropy), TrainingLoss(nn.Linear(3, 4), cross_entropy)
    assert not needs_whole_batches(normed)
    processes(0, 2)
    assert needs_whole_batches(normed)
    assert not needs_whole_batches(plain)
    assert synchronised_norms(normed) == []


def test_layers_come_back_after_an_exception(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(0, 2)
    monkeypatch.setattr(data_parallel, "_on_gpu", lambda module: True)  # the layers can be made on a CPU, not run
    model = network().train()
    before, state = list(model.modules()), model.state_dict(keep_vars=True)
    norms = synchronised_norms(TrainingLoss(model, cross_entropy))
    assert list(model.modules()) == before
    model[1].eval()  # as a model does that keeps a layer's statistics

    def types() -> list[str]:
        return [type(module).__name__ for module in model.modules() if "Norm" in type(module).__name__]

    share = own_share((torch.ones(4, 3), torch.zeros(4)))
    with pytest.raises(KeyboardInterrupt), synchronised(norms, share):  # noqa: PT012
        assert types() == ["SyncBatchNorm"] * 2
        assert (model[1].training, model[2].training) == (False, True)
        inside: dict[str, Tensor] = model.state_dict(keep_vars=True)
        assert list(inside) == list(state)
        assert all(inside[name] is tensor for name, tensor in state.items())
        raise KeyboardInterrupt
    assert list(model.modules()) == before
    with synchronised(norms, Share(None, 1.0, 4, whole=True)):
        assert types() == ["BatchNorm1d"] * 2
