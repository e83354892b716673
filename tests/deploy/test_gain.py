"""What pruning brought: the forms of a network on this machine, told as they were timed."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from howsparse import InputError, cross_entropy
from howsparse.deploy.gain import Form, Gain, gain, inputs_of
from howsparse.deploy.timing import Latency

pytestmark = pytest.mark.usefixtures("one_thread")


def form(name: str, one: float, many: float) -> Form:
    return Form(name, 4000, Latency(one, one, one, 9, 1), Latency(many, many, many, 9, 32))


def test_the_fastest_form_is_told_with_ratios() -> None:
    forms = form("dense", 0.004, 0.1), form("compacted", 0.002, 0.05), form("compacted and sparse", 0.0005, 0.05)
    found = Gain(forms, 15_500_000, 360_000, (), threads=2)
    assert found.lines() == [
        "on disk: 15.50 MB -> 0.36 MB by --deploy; in memory: 4.0 kB -> 4.0 kB",
        "compacted and sparse, 2 threads: batch 1: 4 ms -> 0.5 ms (8.0 times faster);"
        " batch 32: 320 -> 640 examples/s (2.0 times faster)",
    ]
    summary = found.summary()
    assert (summary["latency_before"], summary["latency_after"]) == (0.004, 0.0005)
    assert (summary["throughput_before"], summary["throughput_after"]) == (320, 640)


def test_no_gain_is_said() -> None:
    """A form that is three per cent faster at one example and slower at many is no gain."""
    found = Gain((form("dense", 0.004, 0.1), form("sparse", 0.00388, 0.2)), 1000, 500, ("not compacted: x",), threads=1)
    assert found.after is found.before
    assert found.lines() == [
        "on disk: 1.0 kB -> 0.5 kB by --deploy",
        "a mask alone makes nothing faster here: not compacted: x;"
        " sparse takes 0.97 of the time of dense at batch 1 and 2.00 at batch 32",
    ]
    assert found.summary()["form"] == "dense"


def test_dead_units_are_a_gain() -> None:
    torch.manual_seed(0)
    first = nn.Linear(512, 1024)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(1024, 10))
    with torch.no_grad():
        first.weight[8:] = 0
        first.bias[8:] = 0
    found = gain(model, torch.randn(2, 512), file_before=9, file_after=1, batch=16)
    assert first.weight.shape == (1024, 512)
    assert model.training
    assert found.before.num_bytes == 4 * (512 * 1024 + 1024 + 10240 + 10)
    assert found.after.num_bytes <= 4 * (512 * 8 + 8 + 80 + 10)
    assert found.after.name.startswith("compacted")
    assert found.before.many.batch == found.after.many.batch == 16


def test_what_cannot_be_compacted_is_said() -> None:
    class Branching(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if float(x.sum()) < 10 else x

    found = gain(Branching(4, 4), torch.ones(2, 4), file_before=9, file_after=1, batch=2)
    assert [each.name for each in found.forms] == ["dense"]
    assert found.notes[0].startswith("not compacted: ")
    assert "a mask alone makes nothing faster here: not compacted: " in found.lines()[1]


class Words(nn.Module):
    def forward(self, ids: Tensor, *, mask: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        raise AssertionError


BATCHES: list[tuple[Any, Any, Any]] = [
    ((1.0, 2.0), lambda model, batch: model(batch[0], mask=batch[1]), {"ids": 1.0, "mask": 2.0}),
    ({"ids": 1, "mask": 2, "labels": 3}, cross_entropy, {"ids": 1, "mask": 2}),
    (5, lambda model, batch: model(batch, 6) + 1, (5, 6)),
]


@pytest.mark.parametrize(("batch", "loss", "expected"), BATCHES)
def test_inputs_are_what_the_loss_gives(batch: Any, loss: Any, expected: Any) -> None:
    """The network is not run, and has no hook afterwards."""
    model = Words()
    assert inputs_of(model, loss, batch) == expected
    assert not model._forward_pre_hooks


def test_a_loss_that_calls_no_network_is_refused() -> None:
    with pytest.raises(InputError, match="the loss does not call the network"):
        inputs_of(nn.Linear(2, 2), lambda model, batch: torch.zeros(()), 1)
