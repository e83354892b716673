"""Masks of whole channels: compaction saves exactly the multiplications that the mask says."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import howsparse
from howsparse import InputError, Order, channel_mask, compact
from howsparse.tasks.networks import resnet
from networks_for_tests import Joined


class Padded(nn.Module):
    """A shortcut that adds channels of zeros, as in CIFAR's ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.outer = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 8), (8, 16), (16, 16)))
        self.last = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = functional.pad(x, (0, 0, 0, 0, 4, 4)) + self.outer(self.inner(x).relu())
        out: Tensor = self.last(x.mean((2, 3)))
        return out


NETWORKS = {
    "residual": lambda: resnet("basic", (1, 2), (8, 12), 5),
    "bottleneck": lambda: resnet("bottleneck", (1, 1), (4, 8), 5),
    "joined": Joined,
    "padded": Padded,
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETWORKS[name]().double(), torch.randn(3, 3, 6, 6).double()


def multiplications(model: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        copy.deepcopy(model).eval()(x)
    return int(counted.get_total_flops()) // 2


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("multiple", [1, 2])
def test_compaction_saves_what_was_asked_for(name: str, multiple: int) -> None:
    model, x = made(name)
    dense = multiplications(model, x)
    mask = channel_mask(model, x, 0.3, multiple=multiple)
    mask.apply_(model)
    smaller = compact(model, x)
    assert 0.4 * dense < multiplications(smaller, x) <= 0.7 * dense
    with torch.no_grad():
        assert torch.allclose(smaller.eval()(x), model.eval()(x), atol=1e-12)
    kept = {name: len(layer.weight) for name, layer in smaller.named_modules() if isinstance(layer, nn.Conv2d)}
    assert all(count % multiple == 0 for count in kept.values())


def test_channels_go_by_their_worth_for_each_multiplication() -> None:
    """Channels of the last group cost 4 + 2 multiplications, those of the first 10 + 4."""
    model, x = nn.Sequential(nn.Linear(10, 4), nn.Linear(4, 4), nn.Linear(4, 2)), torch.zeros(1, 10)
    scores = {"0.weight": torch.zeros(4, 10), "1.weight": torch.zeros(4, 4), "2.weight": torch.zeros(2, 4)}
    scores["0.weight"][:, 0] = torch.tensor([1.4, 14.0, 2.8, 140.0])  # 0.1, 1, 0.2 and 10 for each multiplication
    scores["2.weight"][0] = torch.tensor([60.0, 0.9, 6.1, 0.3])  # 10, 0.15, 1.02 and 0.05
    order = Order("by hand", scores)
    gone = []
    for saved in (0.01, 0.1, 0.3, 0.4, 0.6):  # of 64 multiplications; each step is one channel more
        mask = channel_mask(model, x, saved, order, multiple=1)
        rows = [(~mask[f"{i}.weight"].any(1)).nonzero().flatten().tolist() for i in (0, 1)]
        assert [(~mask[f"{i}.weight"].any(0)).nonzero().flatten().tolist() for i in (1, 2)] == rows
        gone.append(tuple(rows))
    assert gone == [([], [3]), ([0], [3]), ([0], [1, 3]), ([0, 2], [1, 3]), ([0, 1, 2], [1, 3])]


def test_the_padded_stream_stays() -> None:
    model, x = made("padded")
    mask = channel_mask(model, x, 0.5, multiple=1)
    assert mask["first.weight"].all()
    assert mask["last.weight"].all()
    assert 0 < int(mask["inner.weight"].flatten(1).any(1).sum()) < 16


def test_frozen_and_unnamed_weights_stay() -> None:
    model, x = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4))), torch.zeros(1, 8)
    model[0].weight.requires_grad_(False)
    mask = channel_mask(model, x, 0.2, multiple=4)
    assert sorted(mask) == ["1.weight", "2.weight", "3.weight"]
    assert mask["1.weight"].any(0).all()
    only = channel_mask(model, x, 0.2, multiple=4, names=["1.weight", "2.weight"])
    assert [int(only[name].sum()) for name in sorted(only)] == [32, 32]


def test_weights_that_were_removed_go_first_and_the_model_stays() -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), torch.zeros(1, 8)
    first = channel_mask(model, x, 0.3, multiple=1)
    howsparse.prune(model, first)
    before = copy.deepcopy(model.state_dict())
    for order in (None, howsparse.rank(model, "magnitude")):
        second = channel_mask(model, x, 0.5, order, multiple=1)
        assert not any((second[name] & ~first[name]).any() for name in first)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].weight_orig.requires_grad


def test_wrong_input_is_refused() -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), torch.zeros(1, 8)
    for saved in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="fraction of the multiplications"):
            channel_mask(model, x, saved)
    with pytest.raises(InputError, match="multiple is 0"):
        channel_mask(model, x, 0.5, multiple=0)
    with pytest.raises(InputError, match="can save at most 0 of its multiplications"):
        channel_mask(model, x, 0.5)
    with pytest.raises(InputError, match="negative scores"):
        channel_mask(model, x, 0.5, howsparse.rank(model, "erk"), multiple=1)
    for example in (torch.zeros(1, 5), [(x, torch.zeros(1))]):
        with pytest.raises(InputError, match=r"^the network does not take the example .*without labels$"):
            channel_mask(model, example, 0.5, multiple=1)


class WithoutGradients(nn.Module):
    """It works without gradients only, and tracing needs them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("no gradients here\nsecond line")
        out: Tensor = self.layer(x)
        return out


def test_a_network_that_cannot_be_traced_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^the network cannot be traced \(.*\), so its channels are not known; .*$"):
        channel_mask(WithoutGradients(), torch.zeros(1, 8), 0.5)
