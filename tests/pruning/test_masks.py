"""Masks against a plain sort, and pruning against torch's own tools."""

import copy
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from howsparse.errors import InputError
from howsparse.pruning.masks import Mask, layerwise_mask, magnitude_mask, random_mask
from howsparse.pruning.orders import rank
from howsparse.pruning.prune import prune
from howsparse.risk.weights import prunable_weights, torch_masks

property_test = settings(deadline=None, max_examples=60)


class Tied(nn.Module):
    """Embedding and decoder share one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.decoder = nn.Linear(3, 5)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.embedding(tokens))
        return out


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.attention(inputs, inputs, inputs)[0]
        return out


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.lstm(inputs)[0]
        return out


def stack(*sizes: tuple[int, int], few_values: bool = False) -> nn.Sequential:
    """Linear layers with norms between them; with ``few_values`` most magnitudes are tied."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in sizes:
        layers += [nn.Linear(fan_in, fan_out), nn.LayerNorm(fan_out)]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-2, 3, parameter.shape) if few_values else torch.randn(parameter.shape))
    return model


def largest_first(weights: list[float]) -> list[int]:
    """Positions by falling magnitude; Python's sort keeps the order of equal ones."""
    return sorted(range(len(weights)), key=lambda i: -abs(weights[i]))


sizes = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4)


def of_order(model: nn.Module, sparsity: float, weights: list[str] | None = None) -> Mask:
    order = rank(model, "magnitude", names=weights)
    order.mask(0.5)
    return order.mask(sparsity)


@pytest.mark.parametrize("make", [magnitude_mask, of_order])
@given(shapes=sizes, seed=st.integers(0, 2**20), few_values=st.booleans(), data=st.data())
@property_test
def test_magnitude_mask_is_a_stable_sort_exact_to_one_weight(
    make: Callable[..., Mask], shapes: list[tuple[int, int]], seed: int, few_values: bool, data: st.DataObject
) -> None:
    torch.manual_seed(seed)
    model = stack(*shapes, few_values=few_values)
    before = copy.deepcopy(model.state_dict())
    flat = torch.cat([w.detach().flatten() for w in prunable_weights(model).values()]).tolist()
    removed = data.draw(st.integers(0, len(flat) - 1))

    mask = make(model, removed / len(flat))

    kept = torch.cat([m.flatten() for m in mask.values()]).nonzero().flatten().tolist()
    assert kept == sorted(largest_first(flat)[: len(flat) - removed])
    assert mask.num_kept == len(flat) - removed
    assert Fraction(mask.sparsity).limit_denominator(1000) == Fraction(removed, len(flat))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@given(sizes, st.integers(0, 2**20), st.booleans(), st.integers(0, 99))
@property_test
def test_layerwise_mask_sorts_every_layer_for_itself(
    shapes: list[tuple[int, int]], seed: int, few_values: bool, percent: int
) -> None:
    torch.manual_seed(seed)
    model = stack(*shapes, few_values=few_values)
    mask = layerwise_mask(model, percent / 100)
    assert list(mask) == list(prunable_weights(model))
    for name, weight in prunable_weights(model).items():
        count = int(mask[name].sum())
        wanted = Fraction(100 - percent, 100) * weight.numel()
        assert abs(count - wanted) <= Fraction(1, 2)
        kept = mask[name].flatten().nonzero().flatten().tolist()
        assert kept == sorted(largest_first(weight.detach().flatten().tolist())[:count])


def test_magnitude_mask_of_chosen_weights_leaves_the_others_out() -> None:
    model = stack((4, 5), (5, 2))
    with torch.no_grad():
        prunable_weights(model)["0.weight"].mul_(1e-3)  # global pruning would take these first
    mask = magnitude_mask(model, 0.5, ["2.weight"])
    assert list(mask) == ["2.weight"]
    assert mask.num_kept == 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_magnitude_mask_in_other_precisions(dtype: torch.dtype) -> None:
    model = nn.Linear(3, 4).to(dtype)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([3.0, -1, 0, 7, 5, -6, 2, 4, -9, 8, 11, -10]).view(4, 3))
    kept = magnitude_mask(model, 0.5)["weight"]
    assert kept.flatten().nonzero().flatten().tolist() == [3, 5, 8, 9, 10, 11]


@given(st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 29))
@property_test
def test_random_mask_depends_on_its_seed_alone(seed: int, elsewhere: int, removed: int) -> None:
    model = stack((4, 5), (5, 2))
    torch.manual_seed(elsewhere)
    state = torch.get_rng_state()
    mask = random_mask(model, removed / 30, seed=seed)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    again = random_mask(model, removed / 30, seed=seed)
    assert mask.num_kept == 30 - removed
    assert all(torch.equal(mask[name], again[name]) for name in mask)


def test_random_mask_keeps_every_weight_equally_often() -> None:
    model, draws, density = stack((4, 5), (5, 2)), 2000, 0.3
    counts = torch.zeros(30)
    for seed in range(draws):
        counts += torch.cat([kept.flatten() for kept in random_mask(model, 1 - density, seed=seed).values()])
    deviation = (draws * density * (1 - density)) ** 0.5
    assert ((counts - draws * density).abs() < 5 * deviation).all()
    assert counts.unique().numel() > 5  # not the same mask for every seed


def test_prunable_weights_are_never_biases_or_norms() -> None:
    model = nn.ModuleDict(
        {
            "linear": nn.Linear(4, 4),
            "bilinear": nn.Bilinear(2, 2, 2),
            "conv": nn.Conv2d(2, 2, 3),
            "transposed": nn.ConvTranspose1d(2, 2, 3),
            "embedding": nn.Embedding(3, 4),
            "attention": nn.MultiheadAttention(4, 2, add_bias_kv=True),
            "lstm": nn.LSTM(4, 4, num_layers=2, bidirectional=False),
            "cell": nn.GRUCell(4, 4),
            "batch": nn.BatchNorm2d(2),
            "layer": nn.LayerNorm(4),
            "group": nn.GroupNorm(2, 4),
            "rms": nn.RMSNorm(4),
            "prelu": nn.PReLU(),
        }
    )
    expected = [
        "linear.weight",
        "bilinear.weight",
        "conv.weight",
        "transposed.weight",
        "embedding.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "lstm.weight_ih_l1",
        "lstm.weight_hh_l1",
        "cell.weight_ih",
        "cell.weight_hh",
    ]
    assert list(prunable_weights(model)) == expected
    assert list(magnitude_mask(model, 0.99)) == expected

    before = copy.deepcopy(model.state_dict())
    magnitude_mask(model, 0.99).apply_(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= set(expected)
    assert len(changed) >= 9


def test_apply_zeroes_the_removed_weights_and_no_other() -> None:
    model = stack((4, 5), (5, 2))
    before = {name: w.detach().clone() for name, w in prunable_weights(model).items()}
    mask = random_mask(model, 0.6)
    mask.apply_(model)
    for name, w in prunable_weights(model).items():
        assert torch.equal(w.detach(), torch.where(mask[name], before[name], torch.zeros(())))
        assert w.requires_grad


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.97])
def test_prune_is_undone_by_torchs_remove(sparsity: float) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    before = copy.deepcopy(model.state_dict())
    mask = magnitude_mask(model, sparsity)
    assert prune(model, mask) is model

    pruned = model(torch.ones(2, 1, 4, 4))
    torch_prune.remove(model[0], "weight")
    torch_prune.remove(model[3], "weight")

    assert set(model.state_dict()) == set(before)
    assert {name for name, _ in model.named_parameters()} == {
        *("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias")
    }
    assert not any(module._forward_pre_hooks for module in model.modules())
    for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
        assert torch.equal(model.get_parameter(name), before[name])
    for name, kept in mask.items():
        assert torch.equal(model.get_parameter(name), torch.where(kept, before[name], torch.zeros(())))
    model.get_buffer("1.running_mean").zero_()
    model.get_buffer("1.running_var").fill_(1)
    assert torch.equal(model(torch.ones(2, 1, 4, 4)), pruned)


def test_weight_masks_are_what_prune_put_there() -> None:
    model = stack((4, 5), (5, 2))
    assert torch_masks(model) == {}
    mask = random_mask(model, 0.5, ["2.weight"])
    found = torch_masks(prune(model, mask))
    assert list(found) == ["2.weight"]
    assert torch.equal(found["2.weight"], mask["2.weight"])
    assert list(prunable_weights(model)) == ["0.weight", "2.weight"]


@pytest.mark.parametrize("make", [Attention, Recurrent])
def test_removed_weights_stay_removed_in_training(make: type[nn.Module]) -> None:
    # Attention reads its projection's weight without calling the projection: torch's hook alone is not enough.
    torch.manual_seed(0)
    trained = make()
    mask = magnitude_mask(trained, 0.5)
    prune(trained, mask)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    inputs = torch.randn(5, 3, 6)
    before = trained(inputs)
    for _ in range(3):
        optimizer.zero_grad()
        trained(inputs).square().sum().backward()
        optimizer.step()
    output = trained(inputs)

    plain = make()
    weights, trainable = prunable_weights(trained), dict(trained.named_parameters())
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(weights[name] * mask[name] if name in mask else trainable[name])
    assert torch.allclose(plain(inputs), output, atol=1e-6)
    assert not torch.allclose(output, before, atol=1e-3)

    for name in mask:
        path, _, leaf = name.rpartition(".")
        torch_prune.remove(trained.get_submodule(path), leaf)
        assert torch.equal(trained.get_parameter(name), plain.get_parameter(name))
    assert torch.equal(trained(inputs), output)


def test_tied_weights_count_once_and_are_pruned_in_every_layer() -> None:
    torch.manual_seed(0)
    model = Tied()
    assert list(prunable_weights(model)) == ["embedding.weight"]
    mask = magnitude_mask(model, 0.6)
    assert (mask.num_weights, mask.num_kept) == (15, 6)

    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        by_hand.embedding.weight.mul_(mask["embedding.weight"])
    prune(model, mask)
    tokens = torch.arange(5)
    assert torch.equal(model(tokens), by_hand(tokens))
    assert sum(w.numel() for w in prunable_weights(model).values()) == 15

    torch_prune.remove(model.embedding, "weight")
    torch_prune.remove(model.decoder, "weight")
    assert model.decoder.weight is model.embedding.weight
    assert torch.equal(model(tokens), by_hand(tokens))


def test_removed_weights_count_as_zero_however_large_they_were() -> None:
    # torch keeps removed weights in weight_orig; in iterative pruning they must not come back in place of live ones.
    model = nn.Linear(4, 5)
    first = random_mask(model, 0.4)
    prune(model, first)
    with torch.no_grad():
        model.weight_orig[~first["weight"]] = 100.0  # type: ignore[operator]
    for second in (magnitude_mask(model, 0.7), layerwise_mask(model, 0.7)):
        assert second.num_kept == 6
        assert not (second["weight"] & ~first["weight"]).any()
    prune(model, second)
    assert int((model.weight != 0).sum()) == 6


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        st.lists(st.integers(0, 4), max_size=4),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 2**20),
)
@property_test
def test_mask_round_trip(shapes: dict[str, list[int]], seed: int) -> None:
    torch.manual_seed(seed)
    mask = Mask({name: torch.rand(shape) < 0.5 for name, shape in shapes.items()})
    with tempfile.TemporaryDirectory() as folder:
        mask.save(Path(folder) / "mask.safetensors")
        back = Mask.load(Path(folder) / "mask.safetensors")
    assert set(back) == set(mask)
    assert all(back[name].dtype == torch.bool and torch.equal(back[name], kept) for name, kept in mask.items())


def test_masks_over_one_storage_round_trip(tmp_path: Path) -> None:
    # A global mask is cut out of one long vector; the file format refuses overlapping storage.
    mask = magnitude_mask(stack((4, 5), (5, 2), (2, 6)), 0.3)
    mask.save(tmp_path / "deep" / "mask.safetensors")
    back = Mask.load(str(tmp_path / "deep" / "mask.safetensors"))
    assert {name: kept.tolist() for name, kept in back.items()} == {name: kept.tolist() for name, kept in mask.items()}
    assert (back.num_weights, back.num_kept, back.sparsity) == (42, 29, 1 - 29 / 42)


def test_layer_densities() -> None:
    mask = Mask(a=torch.tensor([True, False, False, False]), b=torch.tensor([[True, True], [True, False]]))
    assert mask.layer_densities() == {"a": 0.25, "b": 0.75}
    assert mask.density == 0.5


@pytest.mark.parametrize("make", [magnitude_mask, of_order, layerwise_mask, random_mask])
class TestErrors:
    @pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
    def test_sparsity_out_of_range(self, make: Callable[..., Mask], sparsity: float) -> None:
        with pytest.raises(InputError, match=r"outside \[0, 1\)"):
            make(nn.Linear(2, 2), sparsity)

    def test_unknown_weight(self, make: Callable[..., Mask]) -> None:
        with pytest.raises(InputError, match=r"'1\.bias' is not a prunable weight; the model has: 0\.weight"):
            make(nn.Sequential(nn.Linear(2, 2)), 0.5, ["0.weight", "1.bias"])

    def test_nothing_to_prune(self, make: Callable[..., Mask]) -> None:
        with pytest.raises(InputError, match="no prunable weights"):
            make(nn.LayerNorm(3), 0.5)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Mask(other=torch.ones(2, 3)), "'other', which is not a prunable weight"),
        (Mask(bias=torch.ones(2)), "'bias', which is not a prunable weight"),
        (Mask(weight=torch.ones(3, 2)), r"'weight' has shape \(3, 2\), but the weight has \(2, 3\)"),
    ],
)
def test_a_mask_that_does_not_fit_changes_nothing(mask: Mask, message: str) -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    with pytest.raises(InputError, match=message):
        prune(model, mask)
    with pytest.raises(InputError, match=message):
        mask.apply_(model)
    assert not torch_prune.is_pruned(model)
    assert torch.equal(model.weight, before)


def test_a_weight_without_magnitude_is_an_error() -> None:
    model = nn.Linear(3, 3)
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="'weight' has NaN"):
        magnitude_mask(model, 0.5)
