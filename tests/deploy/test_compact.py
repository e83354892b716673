"""Compaction: exact on networks of every kind that it handles, and an unchanged copy of others."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import howsparse
from howsparse.deploy import compact, compacted
from howsparse.tasks.networks import mlp, resnet, vgg16_bn
from networks_for_tests import Joined


def killed(model: nn.Module, share: float, seed: int = 0) -> nn.Module:
    """The network with random rows of weights and random BatchNorm scales at zero, and BatchNorms with statistics."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.weight.data[torch.rand(len(layer.weight), generator=generator) < share] = 0
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            layer.bias.data.normal_(generator=generator)
            layer.weight.data.uniform_(0.5, 1.5, generator=generator)
            layer.weight.data[torch.rand(len(layer.weight), generator=generator) < share] = 0
    return model


@torch.no_grad()
def difference(one: nn.Module, other: nn.Module, inputs: Tensor) -> float:
    """Largest difference of outputs in float64, relative to the largest output."""
    a, b = (model.double().eval()(inputs.double()) for model in (one, other))
    return float((a - b).abs().max() / a.abs().max())


NETWORKS = {
    "residual": lambda: resnet("basic", (1, 2), (8, 12), 5),
    "bottleneck": lambda: resnet("bottleneck", (1, 1), (4, 8), 5),
    "joined": Joined,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_outputs_stay_and_channels_go(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    model = killed(NETWORKS[name](), 0.4, seed).double()
    size = 6 if name == "joined" else 8
    x = torch.randn(3, 3, size, size).double()
    smaller = compact(model, x)
    count = [sum(p.numel() for p in each.parameters()) for each in (model, smaller)]
    assert count[1] < 0.8 * count[0]
    assert difference(model, smaller, x) < 1e-12
    assert difference(model, smaller, 10 * torch.randn(5, 3, size, size)) < 1e-12, "other inputs than the example"


def test_vgg_keeps_what_its_next_layers_need() -> None:
    torch.manual_seed(0)
    stages = list(vgg16_bn().children())[:14]  # two, with their pooling
    model = killed(nn.Sequential(*stages, nn.Flatten(), nn.Linear(128 * 4, 4)), 0.5)
    x = torch.randn(2, 3, 8, 8)
    found = compacted(model, x)
    assert found.reason is None
    assert found.weights_after < 0.5 * found.weights_before
    assert found.difference < 1e-12
    assert difference(model, found.model, x) < 1e-6  # folded weights are float32


@given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    sparsity=st.floats(0, 1),
    activation=st.sampled_from([nn.ReLU, nn.GELU, nn.Sigmoid, nn.Tanh]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_no_dead_unit_is_left_in_a_fully_connected_network(
    widths: list[int], sparsity: float, activation: type[nn.Module], seed: int
) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(*(activation() if isinstance(layer, nn.ReLU) else layer for layer in mlp(4, *widths)))
    howsparse.random_mask(model, min(sparsity, 0.99), seed=seed).apply_(model)
    x = torch.randn(6, 4)
    smaller = compact(model, x)
    layers = [layer for layer in smaller.modules() if isinstance(layer, nn.Linear)]
    for before, after in itertools.pairwise(layers):
        if before.out_features > 1:
            assert (before.weight != 0).any(1).all(), "a unit without inputs"
            assert (after.weight != 0).any(0).all(), "a unit that nobody reads"
    with torch.no_grad():
        assert torch.allclose(model(x), smaller(x), atol=1e-5)


def test_a_unit_without_inputs_moves_into_the_next_bias() -> None:
    first, last = nn.Linear(2, 2), nn.Linear(2, 1)
    first.weight.data[0] = 0
    first.bias.data[0] = 0
    smaller = compact(nn.Sequential(first, nn.Sigmoid(), last), torch.zeros(1, 2))
    bias = dict(smaller.named_parameters())["2.bias"]
    assert bias.item() == pytest.approx((last.bias + 0.5 * last.weight[0, 0]).item())


def test_the_mask_of_torch_becomes_zeros_and_the_network_stays() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).train()
    mask = howsparse.Mask(
        {"0.weight": torch.ones(6, 4, dtype=torch.bool), "2.weight": torch.ones(2, 6, dtype=torch.bool)}
    )
    mask["0.weight"][:2] = False
    howsparse.prune(model, mask)
    smaller = compact(model, torch.zeros(3, 4))
    assert [tuple(p.shape) for p in smaller.parameters()] == [(4,), (4, 4), (2,), (2, 4)]
    assert smaller.training
    assert hasattr(model[0], "weight_orig"), "the network itself is as it was"
    assert {p.dtype for p in smaller.parameters()} == {torch.float32}


class Branches(nn.Module):
    """Its path depends on the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if int(x.sum()) < 10**9 else x


class TwoOutputs(nn.Module):
    """Its hidden units are an output too, so none may go."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.first(x).relu()
        return self.last(hidden), hidden


class Shared(nn.Module):
    """One layer is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(self.layer(x).relu())
        return out


def test_a_network_that_cannot_be_traced_stays_and_says_why() -> None:
    found = compacted(Branches(), torch.randn(2, 4))
    assert found.sentence.startswith("not compacted: the network cannot be traced (ValueError")
    assert "\n" not in found.sentence
    assert found.weights_after == found.weights_before == 20


@pytest.mark.parametrize("network", [TwoOutputs, Shared])
def test_units_that_others_see_stay(network: type[nn.Module]) -> None:
    model = network()
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data[:2] = 0
            layer.weight.data[:, 2] = 0
    found = compacted(model, torch.randn(3, 4))
    assert found.weights_after >= found.weights_before
    assert found.difference < 1e-12


def test_gated_mlp_of_a_language_model() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.LlamaConfig(vocab_size=11, num_hidden_layers=1, **sizes)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    gated = model.model.layers[0].mlp
    gated.gate_proj.weight.data[:2] = 0
    gated.up_proj.weight.data[2:4] = 0
    gated.down_proj.weight.data[:, 4:6] = 0
    example = {"input_ids": torch.randint(0, 11, (2, 5))}
    smaller = compact(model, example)
    assert smaller.model.layers[0].mlp.down_proj.in_features == 6  # type: ignore[union-attr, index]
    with torch.no_grad():
        assert torch.allclose(model(**example).logits, smaller(**example).logits, atol=1e-5)
