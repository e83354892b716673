"""Layer densities against their rules' own characterisation, and random masks that follow them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from howsparse.errors import InputError
from howsparse.methods import load_method
from howsparse.methods.smart_ratio import smart_ratio_densities
from howsparse.pruning.orders.erk import erdos_renyi_densities
from howsparse.pruning.random_layers import random_layer_mask
from howsparse.risk.weights import prunable_weights
from methods_for_tests import small

property_test = settings(deadline=None, max_examples=100)

width = st.integers(1, 12)
linear = st.builds(nn.Linear, width, width)
conv = st.builds(nn.Conv2d, width, width, st.sampled_from([1, 3]))
sparsity = st.one_of(st.floats(0, 0.999), st.sampled_from([0.0, 0.01, 0.5, 0.9]))
layers = st.lists(st.one_of(linear, conv), min_size=1, max_size=5)


def sizes(model: nn.Module) -> dict[str, int]:
    return {name: w.numel() for name, w in prunable_weights(model).items()}


@given(layers, sparsity)
@property_test
def test_erdos_renyi_is_one_scale_capped_at_one(modules: list[nn.Module], target: float) -> None:
    model = nn.Sequential(*modules)
    densities, count = erdos_renyi_densities(model, target), sizes(model)
    assert densities.keys() == count.keys()
    assert all(0 < density <= 1 for density in densities.values())
    kept = sum(densities[name] * count[name] for name in count)
    assert kept == pytest.approx((1 - target) * sum(count.values()))
    raw = {name: sum(w.shape) / w.numel() for name, w in prunable_weights(model).items()}
    scales = [densities[name] / raw[name] for name in count if densities[name] < 1]
    assert scales == pytest.approx([scales[0]] * len(scales)) if scales else target == pytest.approx(0, abs=1e-9)
    # a layer is full only where the scale of the others would ask for more than all of it
    assert all(scales[0] * raw[name] >= 1 - 1e-9 for name in count if scales and densities[name] == 1)


def test_erdos_renyi_counts_every_dimension_of_a_kernel() -> None:
    # Kernel: 4 + 8 + 3 + 3 = 18 of 288 weights, layer: 8 + 10 = 18 of 80. The same number of weights each.
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Linear(10, 8))
    assert erdos_renyi_densities(model, 0.9) == pytest.approx({"0.weight": 18.4 / 288, "1.weight": 18.4 / 80})
    # At half of the weights, 184, each would keep 92: more than the layer has.
    assert erdos_renyi_densities(model, 0.5) == pytest.approx({"0.weight": 104 / 288, "1.weight": 1.0})
    assert erdos_renyi_densities(model, 0.0) == {"0.weight": 1.0, "1.weight": 1.0}

    for fan_in, fan_out in ((12, 7), (7, 12), (64, 10)):  # where rounding makes (n / s) * s more than n, too
        assert erdos_renyi_densities(nn.Linear(fan_in, fan_out), 0.0) == pytest.approx({"weight": 1.0})


def test_the_method_follows_the_densities() -> None:
    # 64-64-32-10: 128, 96 and 42 for 266 shares of 646.4 weights, and 4096, 2048, 320 weights
    mask = load_method("random:layers=erk")(small(epochs=1), 0.9).mask
    assert [int(kept.sum()) for kept in mask.values()] == [311, 233, 102]  # 311.05, 233.29, 102.06
    uniform = load_method("random")(small(epochs=1), 0.9).mask
    assert list(uniform.layer_densities().values()) == pytest.approx([0.1] * 3, abs=0.04)
    assert [int(kept.sum()) for kept in uniform.values()] != [410, 205, 32]  # by chance, not by layer


def convnet() -> nn.Module:
    """144, 4608 and 9216 weights in kernels, 1280 in the layer: 15248."""
    return small("digits-convnet").network()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        # 1524.8 to keep, 384 of them in the layer; 1140.8 to share among 12 * 144 + 6 * 4608 + 2 * 9216 = 47808
        (0.9, [12 * 1140.8 / 47808, 6 * 1140.8 / 47808, 2 * 1140.8 / 47808, 0.3]),
        # 10673.6 to keep, 384 in the layer; shares 2.58, 1.29 and 0.43: both excesses move on to the third kernel
        (0.3, [1.0, 1.0, (10289.6 - 144 - 4608) / 9216, 0.3]),
        # 15095.52 to keep: all kernels full, what is left goes to the layer
        (0.01, [1.0, 1.0, 1.0, 1127.52 / 1280]),
        (0.0, [1.0, 1.0, 1.0, 1.0]),
        # 152.48 to keep, fewer than the layer's 384: all are scaled alike
        (0.99, [share * 152.48 / 48192 for share in (12, 6, 2, 0.3)]),
    ],
)
def test_smart_ratio(target: float, expected: list[float]) -> None:
    assert list(smart_ratio_densities(convnet(), target).values()) == pytest.approx(expected)


@given(st.lists(conv, min_size=1, max_size=4), st.lists(linear, max_size=2), sparsity)
@property_test
def test_smart_ratio_keeps_what_is_asked_for(convs: list[nn.Module], linears: list[nn.Module], target: float) -> None:
    model = nn.Sequential(*convs, *linears)
    densities, count = smart_ratio_densities(model, target), sizes(model)
    assert list(densities) == list(count)
    assert all(0 <= density <= 1 for density in densities.values())
    kept = sum(densities[name] * count[name] for name in count)
    assert kept == pytest.approx((1 - target) * sum(count.values()))
    kernels = list(densities.values())[: len(convs)]
    if max(densities.values()) < 1:  # nothing spilled
        depth = len(convs)
        rule = [(depth - i + 1) ** 2 + (depth - i + 1) for i in range(1, depth + 1)]
        assert kernels == pytest.approx([share * kernels[-1] / 2 for share in rule])
        assert all(d <= 0.3 + 1e-12 for d in list(densities.values())[depth:])
    mask = random_layer_mask(model, densities)
    assert abs(mask.num_kept - (1 - target) * mask.num_weights) <= 0.5 + 1e-6


def test_smart_ratio_needs_convolutions() -> None:
    with pytest.raises(InputError, match="for networks with convolutions, and this one has none"):
        smart_ratio_densities(nn.Sequential(nn.Linear(3, 3)), 0.5)


@given(layers, st.integers(0, 2**20), st.data())
@property_test
def test_random_layer_mask_is_exact_to_one_weight(modules: list[nn.Module], seed: int, data: st.DataObject) -> None:
    model = nn.Sequential(*modules)
    count = sizes(model)
    named = data.draw(st.lists(st.sampled_from(list(count)), min_size=1, unique=True))
    densities = {name: data.draw(st.floats(0, 1)) for name in named}
    mask = random_layer_mask(model, densities, seed)
    wanted = {name: densities[name] * count[name] for name in named}
    assert mask.keys() == densities.keys()
    assert all(mask[name].shape == prunable_weights(model)[name].shape for name in named)
    assert all(abs(int(mask[name].sum()) - wanted[name]) < 1 + 1e-6 for name in named)
    assert abs(mask.num_kept - sum(wanted.values())) <= 0.5 + 1e-6
    again, other = random_layer_mask(model, densities, seed), random_layer_mask(model, densities, seed + 1)
    assert all(torch.equal(mask[name], again[name]) for name in named)
    assert mask.num_kept == other.num_kept


def test_random_layer_mask_keeps_every_weight_of_a_layer_equally_often() -> None:
    model, draws = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 5)), 2000
    counts = torch.zeros(2, 20)
    for seed in range(draws):
        mask = random_layer_mask(model, {"0.weight": 0.2, "1.weight": 0.6}, seed)
        counts += torch.stack([kept.flatten() for kept in mask.values()])
    for row, density in zip(counts, (0.2, 0.6), strict=True):
        assert row.sum() == draws * density * 20
        assert ((row - draws * density).abs() < 5 * (draws * density * (1 - density)) ** 0.5).all()
        assert row.unique().numel() > 5  # not the same mask for every seed


@pytest.mark.parametrize("density", [-0.1, 1.1, float("nan")])
def test_random_layer_mask_takes_densities(density: float) -> None:
    with pytest.raises(InputError, match=r"of '0\.weight' is outside \[0, 1\]"):
        random_layer_mask(nn.Sequential(nn.Linear(2, 2)), {"0.weight": density})
    with pytest.raises(InputError, match=r"'9\.weight' is not a prunable weight"):
        random_layer_mask(nn.Sequential(nn.Linear(2, 2)), {"9.weight": 0.5})
