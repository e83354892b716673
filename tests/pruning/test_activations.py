"""Norms of inputs against brute force: a layer with one weight 1 and all others 0 returns that weight's inputs."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.pruning.orders import rank
from howsparse.pruning.orders.activations import input_norms
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.weights import prunable_weights
from pretrained_for_tests import batches_for, tiny


def own_loss(model: nn.Module, batch: Any) -> Tensor:
    out = model(*batch) if isinstance(batch, list) else model(batch)
    loss: Tensor = (out[0] if isinstance(out, tuple) else out).square().mean()
    return loss


def brute_force(layer: nn.Module, weight: str, inputs: list[Any]) -> Tensor:
    """Norm of the outputs with each weight in turn set to 1, all others and the biases to 0."""
    probe = copy.deepcopy(layer).eval()
    parameter = probe.get_parameter(weight)
    norms = torch.zeros_like(parameter)
    with torch.no_grad():
        for name, p in probe.named_parameters():
            if name == weight or name == weight.replace("weight", "bias"):
                p.zero_()
        for i in range(parameter.numel()):
            parameter.view(-1)[i] = 1
            for given in inputs:
                out = probe(*given) if isinstance(given, list) else probe(given)
                norms.view(-1)[i] += (out[0] if isinstance(out, tuple) else out).square().sum()
            parameter.view(-1)[i] = 0
    return norms.sqrt()


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 3), (5, 4)),
    "linear over positions": (lambda: nn.Linear(4, 3), (5, 2, 4)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (3, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2), (3, 4, 7, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding="same"), (2, 4, 6, 6)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 2, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 2, 2, stride=2), (2, 2, 4, 4, 4)),
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", LAYERS)
def test_norms_of_single_layers(name: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make().double()
    inputs: list[Any] = [torch.randn(shape, dtype=torch.float64) for _ in range(2)]
    norms = input_norms(EmpiricalRisk(layer, inputs, own_loss))
    assert torch.allclose(norms["weight"], brute_force(layer, "weight", inputs), atol=1e-10)


def test_norms_of_embeddings() -> None:
    torch.manual_seed(0)
    layer = nn.Embedding(6, 3).double()
    inputs: list[Any] = [torch.tensor([[0, 1, 1], [5, 1, 0]]), torch.tensor([[2, 1, 1]])]
    norms = input_norms(EmpiricalRisk(layer, inputs, own_loss))
    assert torch.allclose(norms["weight"], brute_force(layer, "weight", inputs))
    assert norms["weight"][3:5].eq(0).all()


@pytest.mark.parametrize("widths", [{}, {"kdim": 5, "vdim": 3}, {"bias": False, "batch_first": True}])
def test_norms_of_attention(widths: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(4, 2, **widths).double()
    sizes = {"query": 4, "key": widths.get("kdim", 4), "value": widths.get("vdim", 4)}
    inputs: list[Any] = [[torch.randn(3, 3, size, dtype=torch.float64) for size in sizes.values()] for _ in range(2)]
    norms = input_norms(EmpiricalRisk(layer, inputs, own_loss))
    assert torch.allclose(norms["out_proj.weight"], brute_force(layer, "out_proj.weight", inputs), atol=1e-10)
    for place, part in enumerate("qkv"):
        expected = torch.cat([given[place].reshape(9, -1) for given in inputs]).norm(dim=0)
        stacked = norms.get("in_proj_weight")
        rows = norms[f"{part}_proj_weight"] if stacked is None else stacked[4 * place : 4 * place + 4]
        assert torch.allclose(rows, expected.expand_as(rows))


def test_norms_in_a_transformer_that_has_a_fused_path() -> None:
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True).double()
    model = nn.TransformerEncoder(block, 2)
    inputs: list[Any] = [torch.randn(3, 5, 4, dtype=torch.float64)]
    norms = input_norms(EmpiricalRisk(model, inputs, own_loss))
    assert torch.backends.mha.get_fastpath_enabled()
    first = model.eval().layers[0]
    assert isinstance(first, nn.TransformerEncoderLayer)
    with torch.no_grad():
        middle = first.norm1(inputs[0] + first.self_attn(inputs[0], inputs[0], inputs[0])[0])
        after = torch.relu(first.linear1(middle))
    assert torch.allclose(norms["layers.0.linear1.weight"][0], middle.reshape(15, 4).norm(dim=0))
    assert torch.allclose(norms["layers.0.linear2.weight"][0], after.reshape(15, 6).norm(dim=0))
    assert list(norms) == list(prunable_weights(model))


class Tied(nn.Module):
    """One matrix as an embedding and as the output layer, and one layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.middle, self.out = nn.Embedding(5, 3), nn.Linear(3, 3), nn.Linear(3, 5, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        self.first = self.embedding(tokens)
        self.second = torch.tanh(self.middle(self.first))
        self.last = torch.tanh(self.middle(self.second))
        return self.out(self.last)  # type: ignore[no-any-return]


def test_users_of_a_weight_add_their_squares() -> None:
    torch.manual_seed(0)
    model = Tied().double()
    tokens = torch.tensor([[0, 1, 1, 4]])
    norms = input_norms(EmpiricalRisk(model, [tokens], own_loss))
    model(tokens)
    counts = torch.tensor([1.0, 2, 0, 0, 1]).double()[:, None]
    assert torch.allclose(norms["embedding.weight"].square(), counts + model.last.detach().square().sum((0, 1)))
    both = torch.cat([model.first, model.second]).reshape(-1, 3).detach()
    assert torch.allclose(norms["middle.weight"], both.norm(dim=0).expand(3, 3))


def test_norms_in_gpt2() -> None:
    model, batches = tiny("gpt2").eval(), batches_for("gpt2")
    seen: dict[str, list[Tensor]] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, []).append(args[0].detach()))
        for name, module in model.named_modules()
        if name.endswith(("c_attn", "c_proj", "c_fc", "lm_head", "wte"))
    ]
    with torch.no_grad():
        for batch in batches:
            model(**{key: value for key, value in batch.items() if key != "labels"})
    for hook in hooks:
        hook.remove()
    norms = input_norms(EmpiricalRisk(model, batches))
    squares = {
        name: sum(x.reshape(-1, x.shape[-1]).square().sum(0) for x in inputs)
        for name, inputs in seen.items()
        if not name.endswith("wte")
    }
    for name, expected in squares.items():
        if name != "lm_head":
            found = norms[f"{name}.weight"]  # (inputs, outputs)
            assert torch.allclose(found.square(), torch.as_tensor(expected)[:, None].expand_as(found))
    tokens = torch.cat([part.flatten() for part in seen["transformer.wte"]])
    counts = torch.stack([(tokens == token).sum() for token in range(19)])[:, None]
    assert torch.allclose(norms["transformer.wte.weight"].square(), counts + torch.as_tensor(squares["lm_head"]))


def test_wanda_is_weight_times_norm_and_its_rows_are_equally_sparse() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Flatten(), nn.Linear(24, 4)).double()
    inputs: list[Any] = [torch.randn(5, 2, 4, 4, dtype=torch.float64)]
    norms = input_norms(EmpiricalRisk(model, inputs, own_loss))
    scores = rank(model, "wanda", inputs, loss=own_loss).scores
    for name, w in prunable_weights(model).items():
        assert torch.allclose(scores[name], w.detach().abs() * norms[name])
    mask = rank(model, "wanda-row", inputs, loss=own_loss).mask(0.5)
    for name, kept in mask.items():
        assert kept.flatten(1).sum(1).tolist() == [kept[0].numel() // 2] * len(kept)
        for row, score in zip(kept.flatten(1), scores[name].flatten(1), strict=True):
            assert score[row].min() > score[~row].max()


def test_rows_of_gpt2s_layers_are_outputs() -> None:
    model = tiny("gpt2")
    mask = rank(model, "wanda-row", batches_for("gpt2")).mask(0.5)
    assert mask["transformer.h.0.mlp.c_fc.weight"].shape == (8, 32)
    assert mask["transformer.h.0.mlp.c_fc.weight"].sum(0).tolist() == [4] * 32


@pytest.mark.parametrize(
    ("layer", "shape", "named"),
    [
        (lambda: nn.LSTM(3, 2), (4, 5, 3), "LSTM"),
        (lambda: nn.ConvTranspose2d(2, 2, 2), (1, 2, 3, 3), "ConvTranspose2d"),
    ],
)
def test_layers_of_other_kinds_are_named(layer: Callable[[], nn.Module], shape: tuple[int, ...], named: str) -> None:
    model = nn.Sequential(nn.Identity(), layer())
    with pytest.raises(InputError, match=rf"in layer '1' \({named}\) are not known to this order"):
        rank(model, "wanda", [torch.randn(shape)], loss=own_loss)


def test_a_layer_that_is_used_without_a_call_is_an_error() -> None:
    class Uncalled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.inner.weight)

    inputs: list[Any] = [torch.ones(2, 3)]
    with pytest.raises(InputError, match=r"'inner\.weight' is used without a call of its layer"):
        rank(Uncalled(), "wanda", inputs, loss=own_loss)
