"""A model is as it was after Ctrl-C at any line; `python -m benchmarks.interrupts` tries all lines."""

import pytest
import torch
from benchmarks.interrupts import WORK, interrupted
from torch import nn

from howsparse.risk.guard import guarded

pytestmark = pytest.mark.usefixtures("one_thread")

STRIDES = {
    "limit_cost": 31,
    "check_held_out": 13,
    "measure": 13,
    "certify": 17,
    "rank": 13,
    "prune_and_repair": 29,
    "audit": 61,
    "recoverable": 151,
}


@pytest.mark.parametrize(("name", "stride"), STRIDES.items())
def test_ctrl_c_leaves_the_model_as_it_was(name: str, stride: int) -> None:
    tried, changed = interrupted(WORK[name], stride)
    assert tried > 5
    assert not changed


def test_all_that_a_function_left_behind_is_put_back() -> None:
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.BatchNorm1d(2))
    weight, values = layer.weight, layer.weight.tolist()

    @guarded
    def careless(model: nn.Module) -> None:
        model.eval()
        layer.register_forward_hook(lambda *_: None)
        layer._parameters["weight"] = nn.Parameter(torch.zeros(2, 2))
        layer.bias.data = torch.ones(2)
        model.get_buffer("1.running_mean").fill_(7.0)
        torch.set_grad_enabled(False)
        torch.manual_seed(3)
        raise KeyboardInterrupt

    random, bias = torch.get_rng_state(), layer.bias.tolist()
    with pytest.raises(KeyboardInterrupt):
        careless(model)
    assert model.training
    assert layer.weight is weight
    assert weight.tolist() == values
    assert layer.bias.tolist() == bias
    assert not layer._forward_hooks
    assert model.get_buffer("1.running_mean").tolist() == [0.0, 0.0]
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), random)
