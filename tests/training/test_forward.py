"""Forward passes in bfloat16: near those in float32, with parameters that stay float32."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from howsparse.methods import Run
from howsparse.methods.one_shot import one_shot
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.tasks import load_task
from howsparse.tasks.networks import NETWORKS
from howsparse.training import loop
from howsparse.training.forward import TrainingLoss, training_loss


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))


def test_a_cpu_runs_the_network_as_it_is() -> None:
    model = network()
    objective = training_loss(model, cross_entropy)
    assert objective.model is model
    batch = torch.ones(2, 1, 8, 8), torch.tensor([0, 1])
    loss, output = objective(batch)
    assert torch.equal(loss, nn.functional.cross_entropy(model(batch[0]), batch[1]))
    assert torch.equal(output, model(batch[0]))
    assert not output.requires_grad


@pytest.mark.parametrize("name", ["alexnet", "resnet18_100", "vgg16_bn"])
def test_networks_compile_as_one_graph_in_the_layout_of_a_gpu(name: str) -> None:
    model = NETWORKS[name]().train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled: Any = torch.compile(model, dynamic=False, backend="eager", fullgraph=True)
    loss, _ = TrainingLoss(compiled, cross_entropy, autocast=True)((torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])))
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_training_through_a_compiled_network_ends_in_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop sees new weights, the mask, training mode, and a last batch of another size."""
    task = load_task("digits-convnet", epochs=2, batch_size=300, l1=1e-3)
    plain = one_shot(task, 0.5, run=Run(), fine_tune=1)
    compiled: list[nn.Module] = []

    def compiled_loss(model: nn.Module, loss: Loss) -> TrainingLoss:
        compiled.append(model)
        faster: Any = torch.compile(model, dynamic=False, backend="eager")
        return TrainingLoss(faster, loss)

    monkeypatch.setattr(loop, "training_loss", compiled_loss)
    again = one_shot(task, 0.5, run=Run(), fine_tune=1)
    assert len(compiled) == 2
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, plain.model.state_dict()[name]), name


def output_under_autocast(model: nn.Module, inputs: Tensor) -> Tensor:
    """What a split loss is given as the model's output; its products are in bfloat16, the loss is not."""
    seen: list[Tensor] = []

    class Sum:
        def __call__(self, model: nn.Module, batch: Tensor) -> Tensor:
            return self.of_output(self.output(model, batch), batch)

        def output(self, model: nn.Module, batch: Tensor) -> Tensor:
            output: Tensor = model(batch)
            assert output.dtype == torch.bfloat16
            return output

        def of_output(self, output: Tensor, batch: Tensor) -> Tensor:
            assert not torch.is_autocast_enabled("cpu")
            seen.append(output)
            return output.sum()

    TrainingLoss(model, Sum(), autocast=True)(inputs)
    return seen[0]


def test_a_loss_in_one_piece_is_under_autocast_as_a_whole() -> None:
    model, inputs = network(), torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    types: list[torch.dtype] = []

    def mean_square(model: nn.Module, batch: Tensor) -> Tensor:
        output: Tensor = model(batch)
        types.append(output.dtype)
        return output.square().mean()

    loss, output = TrainingLoss(model, mean_square, autocast=True)(inputs)
    assert (loss.dtype, output, types) == (torch.float32, None, [torch.bfloat16])
    assert loss.item() == pytest.approx(model(inputs).square().mean().item(), rel=2**-6)


def test_bfloat16_rounds_the_products_and_nothing_else() -> None:
    model, inputs = network(), torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    exact, rounded = model(inputs), output_under_autocast(model, inputs)
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
