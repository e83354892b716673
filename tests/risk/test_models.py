"""Models that keep their weights in unusual places: products are exact, and nothing is left behind in the model."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, weight_norm

from howsparse.risk.curvature import GGN, Hessian
from howsparse.risk.empirical import EmpiricalRisk

Batch = tuple[Tensor, Tensor]


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.RNNBase]) -> None:
        super().__init__()
        self.recurrent, self.out = kind(3, 4, num_layers=2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.recurrent(x)[0][:, -1])  # type: ignore[no-any-return]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(3, 1, batch_first=True), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.attention(x, x, x)[0].mean(1))  # type: ignore[no-any-return]


class Tied(nn.Module):
    """One weight in two layers, one layer in two places, and a layer that keeps its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(3, 3) for _ in range(3))
        self.second.weight = self.first.weight
        self.again = self.third

    def forward(self, x: Tensor) -> Tensor:
        self.seen = torch.tanh(self.third(torch.tanh(self.first(x.mean(1)))))
        return self.second(torch.tanh(self.again(self.seen)))  # type: ignore[no-any-return]


def flat(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), *layers)


def pruned() -> nn.Module:
    layer = nn.Linear(12, 3)
    prune.random_unstructured(layer, "weight", amount=0.4)
    return flat(layer)


def pruned_recurrent() -> nn.Module:
    model = Recurrent(nn.GRU)
    prune.random_unstructured(model.recurrent, "weight_hh_l0", amount=0.4)
    return model


def normed() -> nn.Module:
    return flat(weight_norm(nn.Linear(12, 4)), nn.Tanh(), nn.Linear(4, 3))


def parametrized() -> nn.Module:
    return flat(parametrizations.spectral_norm(nn.Linear(12, 4)), nn.Tanh(), nn.Linear(4, 3))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Recurrent(nn.LSTM),
    "rnn": lambda: Recurrent(nn.RNN),
    "attention": Attention,
    "tied": Tied,
    "pruned": pruned,
    "pruned gru": pruned_recurrent,
    "weight norm": normed,
    "parametrized": parametrized,
}


def own_loss(model: nn.Module, batch: Batch) -> Tensor:
    """One that looks at the parameters as well as at the output."""
    decay: Tensor = sum((p.square().square().sum() for p in model.parameters()), start=torch.zeros(()).double())
    return nn.functional.cross_entropy(model(batch[0]), batch[1]) + decay


def made(name: str) -> tuple[nn.Module, list[Batch]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS[name]().double().eval()
        return model, [(torch.randn(5, 4, 3, dtype=torch.float64), torch.arange(5) % 3) for _ in range(2)]


def attributes(model: nn.Module) -> dict[str, object]:
    """All that the modules hold; lists by what is in them."""
    return {
        f"{path}.{name}": list(map(id, value)) if isinstance(value, list) else id(value)
        for path, module in model.named_modules()
        for holder in (vars(module), module._parameters, module._buffers)
        for name, value in holder.items()
    }


@pytest.mark.filterwarnings("ignore::FutureWarning")  # weight_norm as a hook is deprecated, and still in use
@pytest.mark.parametrize("name", MODELS)
def test_product_against_differences_of_autograds_gradient(name: str) -> None:
    model, batches = made(name)
    risk = EmpiricalRisk(model, batches, own_loss)
    vector = torch.randn(risk.num_weights, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    parameters = dict(model.named_parameters())
    studied = [parameters.get(n, parameters.get(f"{n}_orig")) for n in risk.names]

    def gradient(step: float) -> Tensor:
        moved = copy.deepcopy(model.state_dict())
        with torch.no_grad():
            for weight, along in zip(studied, risk.unflatten(vector), strict=True):
                assert weight is not None
                weight.add_(along, alpha=step)
        inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
        parts = torch.autograd.grad(own_loss(model, (inputs, targets)), [w for w in studied if w is not None])
        model.load_state_dict(moved)
        return risk.flatten(parts)

    assert torch.allclose(risk.gradient(), gradient(0.0), atol=1e-12)
    if name == "weight norm":
        return  # torch 2.13's own second derivative of its fused weight_norm is not that of its gradient
    differences = (gradient(1e-5) - gradient(-1e-5)) / 2e-5
    assert torch.allclose(Hessian(risk, memory=0) @ vector, differences, atol=1e-7)
    assert torch.allclose(Hessian(risk) @ vector, differences, atol=1e-7)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_left_behind(name: str, fails: bool) -> None:
    model, batches = made(name)
    before = attributes(model)
    calls = 0

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal calls
        value = own_loss(model, batch)
        calls += 1
        if fails and calls > 3:
            raise KeyboardInterrupt
        return value

    risk = EmpiricalRisk(model, batches, loss)
    assert attributes(model) == before
    if fails:
        with pytest.raises(KeyboardInterrupt):
            Hessian(risk, memory=0) @ torch.ones(risk.num_weights, dtype=torch.float64)
    else:
        Hessian(risk, memory=0) @ torch.ones(risk.num_weights, dtype=torch.float64)
        ggn = GGN(EmpiricalRisk(model, batches))
        ggn @ torch.ones(ggn.shape[0], dtype=torch.float64)
    assert attributes(model) == before
    if "pruned" not in name and name != "weight norm":
        copy.deepcopy(model)
