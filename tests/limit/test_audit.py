"""The audit against dense Hessians in float64, and on networks with one damaged layer."""

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy as plain_cross_entropy

from howsparse import InputError, Mask, cross_entropy, magnitude_mask, prune
from howsparse.limit.audit import Audit, audit
from howsparse.limit.change import difference
from howsparse.limit.interaction import interaction
from howsparse.risk import evaluate
from networks_for_tests import convnet_case, mlp_case

Case = tuple[nn.Module, list[Any]]


class TinyTransformer(nn.Module):
    """One block of attention; the output layer has the weights of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.block = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True, activation="gelu")
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.block(self.embed(tokens)).mean(1))
        return logits


def transformer_case() -> Case:
    torch.manual_seed(0)
    model = TinyTransformer().double()
    tokens, targets = torch.randint(6, (12, 5)), torch.randint(6, (12,))
    return model, list(zip(tokens.split(8), targets.split(8), strict=True))


def gpt2(width: int, depth: int) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=8, n_positions=16, n_embd=width, n_layer=depth, n_head=4, loss_type="ForCausalLM",
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model: nn.Module = transformers.GPT2LMHeadModel(config)
    return model


class NextToken(nn.Module):
    """The logits of the last place only, so that a batch is a pair."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=tokens).logits[:, -1]
        return logits


def gpt2_case() -> Case:
    torch.manual_seed(0)
    model = NextToken(gpt2(4, 1)).double()
    tokens, targets = torch.randint(8, (12, 5)), torch.randint(8, (12,))
    return model, list(zip(tokens.split(8), targets.split(8), strict=True))


def smooth_case() -> Case:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    return model, mlp_case()[1]


def shifted(model: nn.Module, size: float, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """All parameters, or those with the names, plus noise."""
    generator = torch.Generator().manual_seed(5)
    return {
        name: p.detach() + size * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for name, p in model.named_parameters()
        if names is None or name in names
    }


def dense_shares(model: nn.Module, batches: list[Any], new: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
    """First and second order of each parameter's share, by torch's dense Hessian over all parameters that change."""
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    was, names = model.training, list(new)
    old = [model.get_parameter(name).detach() for name in names]

    def risk(*weights: Tensor) -> Tensor:
        output: Tensor = functional_call(model, dict(zip(names, weights, strict=True)), (inputs,))
        return plain_cross_entropy(output, targets)

    model.eval()
    with sdpa_kernel(SDPBackend.MATH):
        blocks = torch.autograd.functional.hessian(risk, tuple(old))
        slopes = torch.autograd.functional.jacobian(risk, tuple(old))
    model.train(was)
    steps = [new[name] - w for name, w in zip(names, old, strict=True)]
    curved = [sum((torch.tensordot(blocks[i][j], d, d.ndim) for j, d in enumerate(steps)), torch.zeros(()))
              for i in range(len(names))]  # fmt: skip
    return {
        name: (float((steps[i] * slopes[i]).sum()), float((steps[i] * curved[i]).sum()) / 2)
        for i, name in enumerate(names)
    }


@pytest.mark.parametrize("case", [mlp_case, convnet_case, transformer_case, gpt2_case])
def test_shares_are_those_of_the_dense_hessian(case: Callable[[], Case]) -> None:
    model, batches = case()
    new = shifted(model, 0.05)
    found = audit(model, new, batches, points=0)
    expected = dense_shares(model, batches, new)
    assert [layer.name for layer in found.layers] == [name for name, _ in model.named_parameters()]
    for layer in found.layers:
        first, second = expected[layer.name]
        assert layer.first_order == pytest.approx(first, rel=1e-5, abs=1e-12)
        assert layer.second_order == pytest.approx(second, rel=1e-5, abs=1e-12)
    assert found.predicted == pytest.approx(sum(a + b for a, b in expected.values()), rel=1e-5)


def test_tied_weights_count_once_under_any_of_their_names() -> None:
    model, batches = transformer_case()
    new = shifted(model, 0.05, ["embed.weight"])
    one = audit(model, new, batches)
    other = audit(model, {"head.weight": new["embed.weight"]}, batches)
    both = audit(model, new | {"head.weight": new["embed.weight"]}, batches)
    assert one == other == both
    assert [layer.num_weights for layer in one.layers] == [24]


def test_ggn_and_hessian_agree_where_the_output_is_linear() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3)).double()
    new = shifted(model, 0.1)
    by_hessian = audit(model, new, mlp_case()[1], curvature="hessian")
    by_ggn = audit(model, new, mlp_case()[1], curvature="ggn")
    assert by_ggn.predicted == pytest.approx(by_hessian.predicted, rel=1e-9)


def test_the_error_of_the_prediction_falls_with_the_cube_of_the_change() -> None:
    model, batches = smooth_case()
    errors = []
    for size in (0.02, 0.01, 0.005):
        found = audit(model, shifted(model, size), batches)
        errors.append(abs(found.predicted - found.measured))
    assert 7 < errors[0] / errors[1] < 9
    assert 7 < errors[1] / errors[2] < 9


def test_measured_is_the_loss_of_the_changed_model() -> None:
    model, batches = convnet_case()
    other = copy.deepcopy(model)
    other.load_state_dict(shifted(model, 0.3), strict=False)
    other.get_buffer("1.running_var").mul_(2)
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with torch.no_grad():
        losses = [float(plain_cross_entropy(network.eval()(inputs), targets)) for network in (model, other)]
        other.get_buffer("1.running_var").div_(2)
        weights_only = float(plain_cross_entropy(other(inputs), targets))
        other.get_buffer("1.running_var").mul_(2)
    found = audit(model, other, batches)
    assert found.dense_loss == pytest.approx(losses[0], rel=1e-12)
    assert found.measured == pytest.approx(losses[1] - losses[0], rel=1e-9)
    assert found.buffers == ("1.running_var",)
    assert found.measured_buffers == pytest.approx(losses[1] - weights_only, rel=1e-9)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_path_adds_up_to_the_measured_change_however_large() -> None:
    model, batches = smooth_case()
    large = audit(model, shifted(model, 3.0), batches, points=40)
    assert large.path == pytest.approx(large.measured, rel=1e-6)
    new = shifted(model, 1.0)
    by_itself = audit(model, new, batches)
    assert not by_itself.agrees
    assert by_itself.points == 8
    assert by_itself.reliable
    assert audit(model, shifted(model, 0.01), batches).points == 0


def test_a_changed_model_whose_loss_overflows_never_agrees() -> None:
    model, batches = smooth_case()
    huge = {"2.weight": torch.full((3, 7), 1e308, dtype=torch.float64)}
    found = audit(model, huge, batches)
    assert not math.isfinite(found.measured)
    assert not found.agrees
    assert not found.reliable


def test_a_mask_and_its_zeros_are_the_same_change() -> None:
    model, batches = convnet_case()
    mask = magnitude_mask(model, 0.3)
    zeroed = copy.deepcopy(model)
    mask.apply_(zeroed)
    masked = audit(model, mask, batches)
    assert masked == audit(model, zeroed, batches)
    assert masked == audit(model, prune(copy.deepcopy(model), mask), batches)
    assert sum(layer.num_changed for layer in masked.layers) == mask.num_weights - mask.num_kept


def test_what_torch_has_pruned_stays_out() -> None:
    model, batches = mlp_case()
    prune(model, magnitude_mask(model, 0.5))
    plain = copy.deepcopy(mlp_case()[0])
    magnitude_mask(plain, 0.5).apply_(plain)
    further = magnitude_mask(model, 0.7)
    found, expected = audit(model, further, batches), audit(plain, further, batches)
    assert found.measured == pytest.approx(expected.measured, rel=1e-12)
    assert found.predicted == pytest.approx(expected.predicted, rel=1e-9)
    with pytest.raises(InputError, match="holds it at zero"):
        audit(model, {"0.weight": torch.ones(7, 5)}, batches)


def test_frozen_parameters_are_audited_and_stay_frozen() -> None:
    model, batches = mlp_case()
    new = shifted(model, 0.1)
    expected = audit(model, new, batches)
    model.requires_grad_(False)
    assert audit(model, new, batches) == expected
    assert not any(p.requires_grad for p in model.parameters())


def test_the_model_is_as_before_after_an_exception() -> None:
    model, batches = convnet_case()
    before = {name: t.clone() for name, t in model.state_dict().items()}

    def failing(model: nn.Module, batch: Any) -> Tensor:
        if not torch.equal(model(batch[0]), functional_call(model, before, (batch[0],))):
            raise RuntimeError("at the changed weights")
        return plain_cross_entropy(model(batch[0]), batch[1])

    with pytest.raises(RuntimeError, match="at the changed weights"):
        audit(model, shifted(model, 0.5), batches, loss=failing)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


def test_a_copy_of_another_dtype_counts_as_the_model_would_load_it() -> None:
    model, _ = mlp_case()
    coarse = {"2.weight": model.get_parameter("2.weight").detach().bfloat16()}
    step = difference(model, coarse).steps["2.weight"]
    assert torch.equal(step, coarse["2.weight"].double() - model.get_parameter("2.weight"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to drop its quantised tensors
        quantised = torch.quantize_per_tensor(model.get_parameter("2.weight").detach().float(), 0.1, 0, torch.qint8)
    moved = difference(model, {"2.weight": quantised}).steps["2.weight"]
    assert float(moved.abs().max()) <= 0.05 + 1e-6
    half = copy.deepcopy(model).bfloat16()
    weight = half.get_parameter("2.weight").detach()
    exact = (weight * 1.5).float() - weight.float()
    assert torch.equal(difference(half, {"2.weight": weight * 1.5}).steps["2.weight"], exact)


def test_a_model_of_half_precision_is_audited_in_float32() -> None:
    model, batches = convnet_case()
    model = model.bfloat16()
    batches = [(x.bfloat16(), y) for x, y in batches]
    other = copy.deepcopy(model)
    other.load_state_dict(shifted(model, 0.1), strict=False)
    other.get_buffer("1.running_var").mul_(2)
    found = audit(model, other, batches)
    single = audit(model.float(), other.float(), [(x.float(), y) for x, y in batches])
    assert found.predicted == pytest.approx(single.predicted, rel=1e-4)
    assert found.measured == pytest.approx(single.measured, rel=1e-4)
    assert found.measured_buffers == pytest.approx(single.measured_buffers, rel=1e-3)


def test_save_and_load(tmp_path: Path) -> None:
    model, batches = convnet_case()
    for size in (0.01, 3.0):
        found = audit(model, shifted(model, size), batches)
        found.save(tmp_path / "audit.safetensors")
        assert Audit.load(tmp_path / "audit.safetensors") == found


def test_interaction_is_that_of_the_dense_hessian() -> None:
    model, batches = smooth_case()
    one, other = shifted(model, 0.02, ["0.weight", "2.bias"]), shifted(model, 0.03, ["2.weight", "0.weight"])
    found = interaction(model, one, other, batches)
    steps = [difference(model, change).steps for change in (one, other)]
    names = [name for name, _ in model.named_parameters() if name in one | other]
    plus, minus = ({name: model.get_parameter(name).detach() + sign * steps[0].get(name, 0) + steps[1].get(name, 0)
                    for name in names} for sign in (1, -1))  # fmt: skip
    # p'Hq is a quarter of the difference of two quadratic forms, (p + q)'H(p + q) - (p - q)'H(p - q).
    forms = [sum(second for _, second in dense_shares(model, batches, new).values()) for new in (plus, minus)]
    assert [name for name, _ in found.layers] == names
    assert float(found) == pytest.approx((forms[0] - forms[1]) / 2, rel=1e-5)
    together = audit(model, plus, batches)
    assert found.together == pytest.approx(together.predicted, rel=1e-9)
    assert found.measured_together == pytest.approx(together.measured, rel=1e-9)
    assert found.measured == pytest.approx(float(found), rel=0.1)


def test_masks_that_remove_the_same_weight_have_no_interaction() -> None:
    model, batches = mlp_case()
    with pytest.raises(InputError, match=r"the same .* weights of '") as caught:
        interaction(model, magnitude_mask(model, 0.2), magnitude_mask(model, 0.4), batches)
    assert "\n" not in str(caught.value)


def refuses(match: str, change: Any, **options: Any) -> None:
    model, batches = convnet_case()
    with pytest.raises(InputError, match=match) as caught:
        audit(model, change, batches, **options)
    assert "\n" not in str(caught.value)


def test_every_bad_change_has_its_line() -> None:
    model, _ = convnet_case()
    weight = model.get_parameter("6.weight").detach()
    refuses("give a Mask, a dict", "other.safetensors")
    refuses("'7.weight', which is not a weight or buffer", {"7.weight": weight})
    refuses(r"has shape \(2,\); the model has \(3, 12\)", {"6.weight": torch.zeros(2)})
    refuses("'6.weight' of the change has NaN", {"6.weight": weight * math.nan})
    refuses("is a list; give a tensor", {"6.weight": weight.tolist()})
    refuses("dtype torch.bool; give weights as numbers", {"6.weight": weight > 0})
    refuses("dtype torch.int8", {"6.weight": weight.to(torch.int8)})
    refuses("nothing to audit", copy.deepcopy(model))
    refuses("nothing to audit", {})
    refuses("nothing to audit", Mask({"6.weight": torch.ones(3, 12, dtype=torch.bool)}))
    refuses("changes only buffers", {"1.running_mean": torch.ones(3)})
    refuses("which is not a prunable weight", Mask({"fc": torch.ones(2, dtype=torch.bool)}))
    refuses("lacks '0.weight'", nn.Sequential(nn.Flatten()))
    refuses("points -1 is negative", shifted(model, 0.1), points=-1)
    refuses("curvature 'fisher' is not known", shifted(model, 0.1), curvature="fisher")
    adapted = nn.Module()
    adapted.base_layer = nn.Linear(2, 2)
    refuses("merge it first", nn.Sequential(adapted))
    tied, batches = transformer_case()
    with pytest.raises(InputError, match=r"'embed.weight' is tied"):
        audit(tied, {"head.weight": torch.ones(6, 4), "embed.weight": torch.zeros(6, 4)}, batches)


# A damaged layer in a trained network


def digits_convnet() -> Case:
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None], torch.tensor(digits.target)

    def block(inside: int, outside: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inside, outside, 3, padding=1, stride=stride, bias=False)
        return [convolution, nn.BatchNorm2d(outside), nn.ReLU()]

    blocks = block(1, 8, 1) + block(8, 16, 2) + block(16, 16, 1) + block(16, 32, 2)
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    train(model, 150, lambda index: plain_cross_entropy(model(images[index]), labels[index]), len(images))
    return model, list(zip(images[:128].split(64), labels[:128].split(64), strict=True))


def tiny_gpt2() -> Case:
    """A causal language model of transformers, trained on sums of the tokens one and three places before."""
    torch.manual_seed(0)
    model = gpt2(32, 2)
    start = torch.randint(8, (512, 3))
    tokens = torch.cat([start, torch.zeros(512, 13, dtype=torch.long)], 1)
    for place in range(3, 16):
        tokens[:, place] = (tokens[:, place - 3] + tokens[:, place - 1]) % 8

    def batch(index: Any) -> dict[str, Tensor]:
        return {"input_ids": tokens[index], "labels": tokens[index]}

    train(model, 200, lambda index: cross_entropy(model, batch(index)), 512)
    return model, [batch(slice(16)), batch(slice(16, 32))]


def train(model: nn.Module, steps: int, loss: Callable[[Tensor], Tensor], examples: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(torch.randint(examples, (32,))).backward()
        optimizer.step()


def rounded(weight: Tensor, bits: int) -> Tensor:
    unit = weight.abs().max() / (2 ** (bits - 1) - 1)
    return weight.div(unit).round().mul(unit)


def noisy(weight: Tensor, relative: float, generator: torch.Generator) -> Tensor:
    noise = torch.randn(weight.shape, generator=generator)
    return weight.add(noise * (relative * weight.norm() / noise.norm()))


@pytest.mark.parametrize("network", [digits_convnet, tiny_gpt2])
def test_the_damaged_layer_is_found_in_20_of_20_trials(network: Callable[[], Case], one_thread: None) -> None:
    """One layer is damaged; all others are rounded to 8 bits or get 1 % of noise. A damage raises the loss by 0.02."""
    model, batches = network()
    weights = {name: p.detach() for name, p in model.named_parameters() if p.ndim > 1}
    generator = torch.Generator().manual_seed(1)
    damages: list[Callable[[Tensor], Tensor]] = [
        lambda w: noisy(w, 1.0, generator),
        lambda w: noisy(w, 3.0, generator),
        lambda w: rounded(w, 2),
        lambda w: w * 3,
        lambda w: w * 0.2,
    ]
    trials, disagreed, dense = 0, 0, evaluate(model, batches)[0]
    while trials < 20:
        name = list(weights)[int(torch.randint(len(weights), (), generator=generator))]
        damaged = damages[trials % len(damages)](weights[name])
        alone = copy.deepcopy(model)
        alone.load_state_dict({name: damaged}, strict=False)
        if evaluate(alone, batches)[0] < dense + 0.02:
            continue  # the loss does not rise: no damage was done
        others = {n: noisy(w, 0.01, generator) if trials % 2 else rounded(w, 8) for n, w in weights.items()}
        found = audit(model, others | {name: damaged}, batches)
        assert found.worst.name == name
        assert found.reliable
        trials, disagreed = trials + 1, disagreed + (not found.agrees)
    assert disagreed >= 5  # so the path is tried too
