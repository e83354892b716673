"""Forward passes in bfloat16: near those in float32, with parameters that stay float32."""

import pytest
import torch
from torch import nn

from howsparse.methods import Run
from howsparse.methods.one_shot import one_shot
from howsparse.tasks import load_task
from howsparse.tasks.networks import NETWORKS
from howsparse.training import loop
from howsparse.training.forward import Forward, fast_forward, in_bfloat16


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))


def test_a_cpu_runs_the_network_as_it_is() -> None:
    model = network()
    assert fast_forward(model) is model


@pytest.mark.parametrize("name", ["alexnet", "resnet18_100", "vgg16_bn"])
def test_networks_compile_as_one_graph_in_the_layout_of_a_gpu(name: str) -> None:
    model = NETWORKS[name]().train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = in_bfloat16(torch.compile(model, dynamic=False, backend="eager", fullgraph=True), "cpu")
    forward(torch.zeros(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_training_through_a_compiled_network_ends_in_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop sees new weights, the mask, training mode, and a last batch of another size."""
    task = load_task("digits-convnet").with_recipe(epochs=2, batch_size=300, l1=1e-3)
    plain = one_shot(task, 0.5, run=Run(), fine_tune=1)
    compiled: list[nn.Module] = []

    def forward(model: nn.Module) -> Forward:
        compiled.append(model)
        return torch.compile(model, dynamic=False, backend="eager")

    monkeypatch.setattr(loop, "fast_forward", forward)
    again = one_shot(task, 0.5, run=Run(), fine_tune=1)
    assert len(compiled) == 2
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, plain.model.state_dict()[name]), name


def test_bfloat16_rounds_the_products_and_nothing_else() -> None:
    model, inputs = network(), torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    exact, rounded = model(inputs), in_bfloat16(model, "cpu")(inputs)
    assert rounded.dtype == torch.float32
    error = ((rounded - exact).norm() / exact.norm()).item()
    assert 1e-5 < error < 2**-6  # eight bits of mantissa, a few roundings deep
    assert not torch.is_autocast_enabled("cpu")

    rounded.sum().backward()
    found = [p.grad for p in model.parameters()]
    model.zero_grad()
    model(inputs).sum().backward()
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        assert gradient is not None
        assert parameter.grad is not None
        assert gradient.dtype == parameter.dtype == torch.float32
        assert (gradient - parameter.grad).norm() < 2**-5 * parameter.grad.norm()
