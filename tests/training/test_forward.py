"""Forward passes in bfloat16: near those in float32, with parameters that stay float32."""

import torch
from torch import nn

from howsparse.training.forward import fast_forward, in_bfloat16


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))


def test_a_cpu_runs_the_network_as_it_is() -> None:
    model = network()
    assert fast_forward(model) is model


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
