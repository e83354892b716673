import pytest
import torch
from torch import Tensor, nn

from howsparse import InputError, measure
from howsparse.risk.evaluate import evaluate
from networks_for_tests import convnet_case, mlp_case


def test_evaluation_weighs_uneven_batches_by_their_examples() -> None:
    model, batches = mlp_case(examples=40)
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    loss, accuracy = evaluate(model, batches)
    with torch.no_grad():
        output = model(inputs)
    assert loss == pytest.approx(float(nn.functional.cross_entropy(output, targets)))
    assert accuracy == pytest.approx(float((output.argmax(1) == targets).double().mean()))


def test_evaluation_is_in_evaluation_mode_and_puts_modes_back() -> None:
    model, batches = convnet_case()
    model.train()
    model.get_submodule("4").eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    assert evaluate(model, batches) == evaluate(model, batches)  # dropout is off
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_loss_that_cannot_score_has_no_accuracy() -> None:
    model, batches = mlp_case()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        squared: Tensor = model(batch[0]) ** 2
        return squared.mean()

    measured = measure(model, batches, tolerance=0.01, loss=loss)
    assert measured.sparsity_by_accuracy is None
    assert measured.dense.accuracy is None
    assert measured.dense.loss == pytest.approx(float(torch.cat([model(x).detach() ** 2 for x, _ in batches]).mean()))


def test_tolerance_must_not_be_negative() -> None:
    model, batches = mlp_case()
    with pytest.raises(InputError, match=r"tolerance -0\.1 is negative"):
        measure(model, batches, tolerance=-0.1)
