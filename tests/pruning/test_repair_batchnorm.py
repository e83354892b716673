"""BatchNorm's statistics: against those of the whole data, computed layer by layer."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from howsparse import InputError
from howsparse.pruning.repair import repair_batchnorm, settle_batchnorm
from networks_for_tests import convnet_case


def case() -> tuple[Any, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
            nn.Linear(16, 5), nn.BatchNorm1d(5, momentum=0.01), nn.ReLU(), nn.Linear(5, 3),
        ).double()  # fmt: skip
    return model, torch.randn(23, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def labelled(x: torch.Tensor, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(size)]


@pytest.mark.parametrize("size", [1, 7, 23])
def test_statistics_are_exact_however_the_examples_are_split(size: int) -> None:
    model, x = case()
    expected = copy.deepcopy(model).eval()
    for at in (1, 6):  # torch's own statistics of all examples in one batch, with a momentum of 1
        expected[at].momentum = 1.0
    with torch.no_grad():
        expected[1].train()
        expected[1](expected[0](x))
        expected[1].eval()
        expected[6].train()
        expected[6](expected[:6](x))
    repair_batchnorm(model, labelled(x, size))
    for at in (1, 6):
        assert torch.allclose(model[at].running_mean, expected[at].running_mean, atol=1e-12)
        assert torch.allclose(model[at].running_var, expected[at].running_var, atol=1e-12)
        assert int(model[at].num_batches_tracked) == len(x.split(size))
    assert model[6].momentum == 0.01


def test_everything_else_is_kept() -> None:
    model, x = case()
    model[1].eval()
    parameters, random = [p.detach().clone() for p in model.parameters()], torch.get_rng_state()
    repair_batchnorm(model, labelled(x, 10))
    assert all(torch.equal(p, before) for p, before in zip(model.parameters(), parameters, strict=True))
    assert torch.equal(torch.get_rng_state(), random)
    assert (model.training, model[1].training, model[6].training) == (True, False, True)
    assert not any(module._forward_hooks for module in model.modules())


def test_after_an_error_the_statistics_are_as_before() -> None:
    model, x = case()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError):
        repair_batchnorm(model, [*labelled(x, 10), (x[:, :, :3], torch.zeros(23))])  # too small for the linear layer
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_wrong_input_is_refused() -> None:
    model, batches = convnet_case()
    with pytest.raises(InputError, match="there are no batches"):
        repair_batchnorm(model, [])
    with pytest.raises(InputError, match="no BatchNorm layer"):
        repair_batchnorm(nn.Linear(2, 2), batches)
    norm = nn.BatchNorm1d(2)
    with pytest.raises(InputError, match="called several times"):
        repair_batchnorm(nn.Sequential(nn.Linear(2, 2), norm, nn.Linear(2, 2), norm), labelled(torch.randn(5, 2), 5))
    with pytest.raises(InputError, match="only one value"):
        repair_batchnorm(norm, labelled(torch.randn(1, 2), 1))


def test_settling_keeps_outputs_and_takes_the_statistics() -> None:
    """Afterwards the network in training mode, with all examples in one batch, is the one in evaluation mode."""
    model, x = case()
    model[3].p = 0.0
    for at in (1, 6):
        for tensor in (model[at].weight, model[at].bias, model[at].running_mean, model[at].running_var):
            tensor.data.copy_(torch.rand(len(tensor), generator=torch.Generator().manual_seed(at)) + 0.5)
    with torch.no_grad():
        before = copy.deepcopy(model).eval()(x)
        settle_batchnorm(model, labelled(x, 10))
        assert torch.allclose(copy.deepcopy(model).eval()(x), before, atol=1e-12)
        for at, inputs in ((1, model[0](x)), (6, model[:6].eval()(x))):
            assert torch.allclose(model[at].running_mean, inputs.transpose(0, 1).flatten(1).mean(1), atol=1e-12)
            assert torch.allclose(model[at].running_var, inputs.transpose(0, 1).flatten(1).var(1), atol=1e-12)
        for norm in (model[1], model[6]):  # a batch is divided by its biased variance
            n = 23 * 4 if norm is model[1] else 23
            norm.weight *= ((norm.running_var * (n - 1) / n + norm.eps) / (norm.running_var + norm.eps)).sqrt()
        assert torch.allclose(model.train()(x), before, atol=1e-12)


def test_settling_refuses_a_layer_without_scale_and_changes_nothing() -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False))
    with pytest.raises(InputError, match="BatchNorm '1' has no scale and shift"):
        settle_batchnorm(model, labelled(x, 5))
    with pytest.raises(InputError, match="called several times"):
        settle_batchnorm(nn.Sequential(model[0], nn.Linear(2, 2), model[0]), labelled(x, 5))
    state = model.state_dict()
    assert state["0.running_mean"].tolist() == [0.0, 0.0]
    assert state["0.weight"].tolist() == [1.0, 1.0]
