"""Least squares of layers: against numpy's least squares in float64, layer by layer."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from howsparse import InputError, magnitude_mask, random_mask
from howsparse.pruning.masks import Mask
from howsparse.pruning.prune import prune
from howsparse.pruning.repair import prune_and_repair, repair_layers
from howsparse.pruning.repair.layers import as_groups, input_columns, output_columns
from howsparse.risk.batches import split_batch

RIDGE = 1e-3


def input_rows(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer's inputs, ``(groups, positions, features)``."""
    return input_columns(layer, x).transpose(2, 3).flatten(1, 2)


def output_rows(layer: nn.Module, y: Tensor) -> Tensor:
    """The layer's outputs, ``(groups, positions, outputs)``."""
    return output_columns(layer, y).transpose(2, 3).flatten(1, 2)


def batches_of(x: Tensor, size: int = 16) -> list[Any]:
    return [*split_batch((x, torch.zeros(len(x), dtype=torch.long)), size)]


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().double().eval()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def refitted(rows: Tensor, wanted: Tensor, start: Tensor, kept: Tensor, bias: bool) -> np.ndarray[Any, Any]:
    """The refitted weights (and bias, last) of one output by numpy: ridge rows are appended to the inputs."""
    strength = np.sqrt(RIDGE * float(rows.square().sum(0).mean()))
    x = rows[:, kept].numpy()
    target = (wanted - rows[:, kept] @ start[kept]).numpy()
    ridge = strength * np.eye(x.shape[1])
    if bias:
        x, ridge = np.c_[x, np.ones(len(x))], np.c_[ridge, np.zeros(len(ridge))]
    change = np.linalg.lstsq(np.r_[x, ridge], np.r_[target, np.zeros(len(ridge))], rcond=None)[0]
    full = np.zeros(len(start) + bias)
    full[: len(start)][kept.numpy()] = start[kept].numpy()
    full[np.r_[np.flatnonzero(kept.numpy()), *([len(start)] if bias else [])].astype(int)] += change
    return full


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_refitted_as_by_lstsq(bias: bool) -> None:
    layer = seeded(lambda: nn.Linear(6, 4, bias=bias))
    dense, x = copy.deepcopy(layer), normal(50, 6) + 1
    mask = random_mask(layer, 0.5, seed=1)
    assert len(set(mask["weight"].sum(1).tolist())) > 1  # rows with different numbers of kept weights
    repair_layers(layer, mask, batches_of(x), ridge=RIDGE)
    with torch.no_grad():
        wanted = dense(x) - (dense.bias if bias else 0)
    for i, kept in enumerate(mask["weight"]):
        expected = refitted(x, wanted[:, i], dense.weight[i].detach(), kept, bias)
        assert np.allclose(layer.weight[i].detach(), expected[:6], atol=1e-9)
        if bias:
            assert float((layer.bias - dense.bias)[i].detach()) == pytest.approx(expected[6], abs=1e-9)


CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "stride and padding": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "groups": lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, padding="same", groups=4),
    "dilation, uneven kernel": lambda: nn.Conv2d(4, 3, (1, 3), dilation=(1, 2), padding=(0, 1)),
    "circular padding": lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular"),
    "one dimension": lambda: nn.Conv1d(4, 6, 3, stride=2, padding=2, groups=2),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_is_its_rows(kind: str) -> None:
    layer = seeded(CONVOLUTIONS[kind])
    x = normal(5, 4, 9) if isinstance(layer, nn.Conv1d) else normal(5, 4, 9, 8)
    with torch.no_grad():
        y = layer(x)
        rows, weights = input_rows(layer, x), as_groups(layer, layer.weight)
        product = rows @ weights.mT
        if layer.bias is not None:
            product += layer.bias.view(len(rows), 1, -1)
    assert torch.allclose(product, output_rows(layer, y), atol=1e-12)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_is_refitted_as_by_lstsq(kind: str) -> None:
    layer = seeded(CONVOLUTIONS[kind])
    x = normal(20, 4, 9) if isinstance(layer, nn.Conv1d) else normal(20, 4, 9, 8)
    mask, dense = random_mask(layer, 0.5, seed=2), copy.deepcopy(layer)
    repair_layers(layer, mask, batches_of(x, 7), ridge=RIDGE)
    bias = dense.bias is not None
    with torch.no_grad():
        wanted = output_rows(dense, dense(x) - (dense.bias.view(-1, *[1] * (x.ndim - 2)) if bias else 0))
        rows = input_rows(dense, x)
    groups = zip(*(as_groups(dense, each) for each in (dense.weight.detach(), mask["weight"])), strict=True)
    expected = np.array(
        [
            refitted(rows[g], wanted[g, :, i], starts[i], kept[i], bias)
            for g, (starts, kept) in enumerate(groups)
            for i in range(len(starts))
        ]
    )
    features = rows.shape[2]
    assert np.allclose(as_groups(layer, layer.weight.detach()).flatten(0, 1), expected[:, :features], atol=1e-9)
    if bias:
        assert np.allclose((layer.bias - dense.bias).detach(), expected[:, -1], atol=1e-9)


class Residual(nn.Module):
    """Convolutions with BatchNorm in two branches, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.linear = nn.Linear(6, 5)
        for bn in (self.bn1, self.bn2):
            nn.init.normal_(bn.get_buffer("running_mean"))
            nn.init.uniform_(bn.get_buffer("running_var"), 0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(x + self.bn2(self.conv2(x)))
        out: Tensor = self.linear(x.mean((2, 3)))
        return out


def layer_inputs(model: Any, x: Tensor) -> dict[str, Tensor]:
    """The inputs of each layer by name."""
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: found.update({name: args[0]}))
        for name, module in model.named_modules()
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


def norm_input(model: Any, name: str, layer_input: Tensor) -> Tensor:
    """A convolution's output, centred by the running mean of the BatchNorm layer after it."""
    conv, norm = model.get_submodule(name), model.get_submodule(name.replace("conv", "bn"))
    with torch.no_grad():
        out: Tensor = conv(layer_input) - norm.get_buffer("running_mean").view(-1, 1, 1)
    return out


def test_each_layer_is_refitted_with_the_inputs_of_the_repaired_layers_before_it() -> None:
    model, x = seeded(Residual), normal(40, 2, 6, 6)
    dense, mask = copy.deepcopy(model), magnitude_mask(model, 0.6)
    repair_layers(model, mask, batches_of(x), ridge=RIDGE)
    now, then = layer_inputs(model, x), layer_inputs(dense, x)
    for name in ("conv1", "conv2"):
        old, new = dense.get_submodule(name), model.get_submodule(name)
        mean = dense.get_buffer(name.replace("conv", "bn") + ".running_mean")
        shift = mean - model.get_buffer(name.replace("conv", "bn") + ".running_mean")
        with torch.no_grad():
            wanted = output_rows(old, old(then[name]))[0]
        rows = input_rows(new, now[name])[0]
        for i, kept in enumerate(mask[f"{name}.weight"].flatten(1)):
            expected = refitted(rows, wanted[:, i], old.weight[i].detach().flatten(), kept, bias=True)
            assert np.allclose(new.weight[i].detach().flatten(), expected[:-1], atol=1e-8)
            assert float(shift[i]) == pytest.approx(expected[-1], abs=1e-8)
    with torch.no_grad():
        wanted = dense.linear(then["linear"]) - dense.linear.bias
    for i, kept in enumerate(mask["linear.weight"]):
        expected = refitted(now["linear"], wanted[:, i], dense.linear.weight[i].detach(), kept, bias=True)
        assert np.allclose(model.linear.weight[i].detach(), expected[:-1], atol=1e-8)
        assert float((model.linear.bias - dense.linear.bias)[i].detach()) == pytest.approx(expected[-1], abs=1e-8)


@pytest.mark.parametrize("inputs", ["pruned", "dense"])
def test_no_layers_error_rises(inputs: Any) -> None:
    model, x = seeded(Residual, 1), normal(40, 2, 6, 6)
    dense, mask = copy.deepcopy(model), random_mask(model, 0.7)
    repair_layers(model, mask, batches_of(x), inputs=inputs)
    then = layer_inputs(dense, x)
    given = layer_inputs(model, x) if inputs == "pruned" else then
    for name in ("conv1", "conv2"):
        masked = copy.deepcopy(dense)
        mask.apply_(masked)
        wanted = norm_input(dense, name, then[name])
        before = (norm_input(masked, name, given[name]) - wanted).square().sum()
        after = (norm_input(model, name, given[name]) - wanted).square().sum()
        assert after < before


def test_a_second_round_starts_from_the_first_and_keeps_the_dense_goal() -> None:
    model, x = seeded(Residual), normal(60, 2, 6, 6)
    dense = copy.deepcopy(model)
    repair_layers(model, magnitude_mask(model, 0.4), batches_of(x))
    once = copy.deepcopy(model)
    repair_layers(model, magnitude_mask(once, 0.4), batches_of(x), dense=dense)  # the same mask again
    with torch.no_grad():
        errors = [float((each(x) - dense(x)).square().mean()) for each in (once, model)]
    assert errors[1] <= errors[0]
    again = copy.deepcopy(once)
    repair_layers(again, magnitude_mask(once, 0.4), batches_of(x))  # without it, the goal is what there is
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters(), strict=True))


def test_nothing_removed_changes_nothing() -> None:
    model, x = seeded(Residual), normal(20, 2, 6, 6)
    before = copy.deepcopy(model.state_dict())
    repair_layers(model, magnitude_mask(model, 0.0), batches_of(x))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_mask_and_everything_else_is_kept() -> None:
    model, x = seeded(Residual).train(), normal(20, 2, 6, 6)
    model.bn1.eval()
    mask, state, random = magnitude_mask(model, 0.8), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    repair_layers(model, mask, batches_of(x))
    for name, kept in mask.items():
        weight = model.get_parameter(name)
        assert not weight[~kept].any()
        assert weight[kept].all()
    assert (model.training, model.bn1.training, model.bn2.training) == (True, False, True)
    assert torch.equal(torch.get_rng_state(), random)
    may_change = {*mask, "linear.bias", "bn1.running_mean", "bn2.running_mean"}
    assert all(torch.equal(v, state[name]) for name, v in model.state_dict().items() if name not in may_change)
    assert not any(p.grad is not None or not p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_same_call_gives_the_same_bits() -> None:
    results = []
    for _ in range(2):
        model = seeded(Residual).float()
        repair_layers(model, magnitude_mask(model, 0.8), batches_of(normal(30, 2, 6, 6).float()))
        results.append(model.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


class Shared(nn.Module):
    """One layer that is called three times, and one after it."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.block(x))
        out: Tensor = self.head(x)
        return out


def test_a_layer_that_is_called_several_times_is_refitted_to_all_calls() -> None:
    model, x = seeded(Shared), normal(50, 6)
    dense, mask = copy.deepcopy(model), random_mask(model, 0.4)
    repair_layers(model, mask, batches_of(x), ridge=RIDGE)
    with torch.no_grad():
        rows = [x]
        for _ in range(2):
            rows.append(torch.tanh(dense.block(rows[-1])))
        inputs = torch.cat(rows)
        wanted = dense.block(inputs) - dense.block.bias
    for i, kept in enumerate(mask["block.weight"]):
        expected = refitted(inputs, wanted[:, i], dense.block.weight[i].detach(), kept, bias=True)
        assert np.allclose(model.block.weight[i].detach(), expected[:6], atol=1e-9)


def test_half_precision_is_refitted_in_float64() -> None:
    exact, x = seeded(lambda: nn.Linear(30, 10)), normal(200, 30)
    half, mask = copy.deepcopy(exact).bfloat16(), random_mask(exact, 0.5)
    exact.load_state_dict(half.state_dict())  # the same rounded weights
    repair_layers(exact, mask, batches_of(x.bfloat16().double(), 100))
    repair_layers(half, mask, batches_of(x.bfloat16(), 100))
    assert half.weight.dtype == torch.bfloat16
    assert float((half.weight - exact.weight).detach().abs().max()) < 0.01
    assert not half.weight[~mask["weight"]].any()


def test_other_layers_are_only_pruned() -> None:
    model = seeded(lambda: nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False)))
    model[2].weight = model[0].weight  # tied: the embedding reads it too
    ids = torch.randint(9, (30,), generator=torch.Generator().manual_seed(0))
    mask, before = magnitude_mask(model, 0.5), copy.deepcopy(model)
    repair_layers(model, mask, [(ids, ids)])
    assert torch.equal(model[0].weight, before[0].weight * mask["0.weight"])
    assert not torch.equal(model[1].weight, before[1].weight * mask["1.weight"])


def test_torchs_transformer_layer_is_repaired_where_it_has_linear_layers() -> None:
    model = seeded(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    x = normal(12, 5, 8)
    dense, mask = copy.deepcopy(model), magnitude_mask(model, 0.5, ["linear1.weight", "linear2.weight"])
    masked = copy.deepcopy(model)
    mask.apply_(masked)
    repair_layers(model, mask, batches_of(x, 6))
    with torch.no_grad():
        errors = [float((each(x) - dense(x)).square().mean()) for each in (masked, model)]
    assert errors[1] < 0.5 * errors[0]


def test_gpt2_is_repaired() -> None:
    hub = pytest.importorskip("transformers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        size = {"vocab_size": 11, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2}
        model = hub.GPT2LMHeadModel(hub.GPT2Config(**size, **dropout)).eval()
    ids = torch.randint(11, (24, 8), generator=torch.Generator().manual_seed(0))
    batches = [{"input_ids": part, "labels": part} for part in ids.split(8)]
    names = [name for name, _ in model.named_parameters() if ".attn.c_" in name or ".mlp.c_" in name]
    mask = magnitude_mask(model, 0.5, [name for name in names if name.endswith("weight")])
    dense, masked = copy.deepcopy(model), copy.deepcopy(model)
    mask.apply_(masked)
    repair_layers(model, mask, batches)
    with torch.no_grad():
        errors = [float((m(input_ids=ids).logits - dense(input_ids=ids).logits).norm()) for m in (masked, model)]
    assert errors[1] < 0.8 * errors[0]
    assert all(not model.get_parameter(name)[~kept].any() for name, kept in mask.items())


class Fails(nn.Module):
    """Raises an error after its first layer, in the repaired network only: when the input is changed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if not (self.first.weight != 0).all():
            raise RuntimeError("no zeros here")
        out: Tensor = self.second(x)
        return out


def test_after_an_error_the_model_is_as_before() -> None:
    model = seeded(Fails)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="no zeros here"):
        repair_layers(model, magnitude_mask(model, 0.5), batches_of(normal(40, 3)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("repair", ["layers", "rounds", "layers+global", "rounds+global"])
def test_inputs_that_are_not_finite_are_refused_in_one_line(repair: str) -> None:
    """An overflow in the first layer: the second one gets infinite inputs. No weight becomes NaN."""
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)))
    model[0].weight.data[0] = 1e308
    x = normal(20, 3).abs() * 10
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=r"^weight '\S+' cannot be refitted: .* are not finite .*; pass [^\n]*$"):
        prune_and_repair(model, 0.25, batches_of(x), repair=repair)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["constant", "copies", "few"])
@pytest.mark.parametrize("random", [False, True], ids=["one mask for all rows", "a mask for each row"])
def test_a_singular_system_is_refused_in_one_line(kind: str, random: bool) -> None:
    """The inputs are finite, but the sum of their squares has no inverse, and the ridge is below the rounding."""
    x = {"constant": torch.ones(50, 8), "copies": normal(50, 1).repeat(1, 8), "few": normal(2, 8)}[kind].double()
    model = seeded(lambda: nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 2)))
    mask = random_mask(model, 0.25) if random else Mask({"0.weight": torch.arange(8).expand(6, 8) > 1})
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=r"^weight '0.weight' cannot be refitted with ridge 1e-18: .* combinations"):
        repair_layers(model, mask, batches_of(x), ridge=1e-18)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    repair_layers(model, mask, batches_of(x))
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_path_that_depends_on_the_weights_is_refused() -> None:
    class Chooses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(3, 3) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            out: Tensor = self.b(x) if (self.a.weight != 0).all() else self.c(x)
            return out

    model = seeded(Chooses)
    with pytest.raises(InputError, match="does not call the same layers"):
        repair_layers(model, magnitude_mask(model, 0.5), batches_of(normal(10, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": 0.0}, "ridge 0 is not above 0"),
        ({"inputs": "both"}, "inputs 'both' is not known"),
        ({"batches": []}, "there are no batches"),
        ({"mask": Mask(other=torch.ones(3, 3, dtype=torch.bool))}, "'other' is not a prunable weight"),
        ({"mask": Mask(weight=torch.ones(3, dtype=torch.bool))}, "has shape"),
        ({"dense": nn.Linear(4, 3)}, "dense is not a copy"),
    ],
)
def test_wrong_input_is_refused(options: dict[str, Any], message: str) -> None:
    model = seeded(lambda: nn.Linear(3, 3))
    given: dict[str, Any] = {"mask": magnitude_mask(model, 0.5), "batches": batches_of(normal(10, 3))} | options
    before = model.weight.detach().clone()
    with pytest.raises(InputError, match=message):
        repair_layers(model, **given)
    assert torch.equal(model.weight, before)


def test_a_model_without_such_layers_or_pruned_by_torch_is_refused() -> None:
    embedding = nn.Embedding(3, 2)
    with pytest.raises(InputError, match="no weight of a linear layer or convolution"):
        repair_layers(embedding, magnitude_mask(embedding, 0.5), [(torch.tensor([0]), None)])
    linear = nn.Linear(3, 3)
    mask = magnitude_mask(linear, 0.5)
    prune(linear, mask)
    with pytest.raises(InputError, match="pruned by torch"):
        repair_layers(linear, mask, batches_of(normal(10, 3).float()))
