"""The paper's networks: shapes, initialisation, reproducible bits."""

import math

import pytest
import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.problem import Problem
from howsparse.risk.weights import prunable_weights
from howsparse.tasks.data import Images
from howsparse.tasks.networks import NETWORKS, digits_mlp, fc5, kaiming_normal_, mlp, resnet
from howsparse.tasks.recipe import load_recipe
from howsparse.tasks.task import RecipeNetwork, task_problem


def task(name: str = "digits") -> Problem:
    images = Images(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), (0.0,), (1.0,))
    return task_problem(load_recipe(name), images, images)


def test_fc5_is_the_papers() -> None:
    model = fc5()
    shapes = [tuple(w.shape) for w in prunable_weights(model).values()]
    assert shapes == [(1000, 3072), (600, 1000), (300, 600), (100, 300), (10, 100)]
    assert sum(w.numel() for w in prunable_weights(model).values()) == 3_883_000
    assert sum(p.numel() for p in model.parameters()) == 3_883_000 + 1000 + 600 + 300 + 100 + 10
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("fc12", 7_263_000),
        ("digits_mlp", 6464),
        ("fc5", 3_883_000),
        ("alexnet", 46_778_400),
        ("vgg16_bn", 14_715_584),
        ("resnet18_100", 11_210_432),  # 11,220,132 parameters, as is well known, less 9,600 of norms and 100 biases
        ("resnet50_100", 23_652_032),
        ("resnet18_200", 11_261_632),
        ("resnet50_200", 23_856_832),
    ],
)
def test_weight_counts(name: str, count: int) -> None:
    with torch.device("meta"):
        model = NETWORKS[name]()
    assert sum(w.numel() for w in prunable_weights(model).values()) == count


@pytest.mark.parametrize(
    ("name", "size"), [("alexnet", 32), ("vgg16_bn", 32), ("resnet18_100", 32), ("resnet50_200", 64)]
)
def test_shapes_within(name: str, size: int) -> None:
    """What enters the first linear layer, and what comes out."""
    with torch.device("meta"):
        model = NETWORKS[name]()
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        output = model(torch.zeros(2, 3, size, size))
    assert linear[0].in_features == {"alexnet": 6400, "vgg16_bn": 512, "resnet18_100": 512, "resnet50_200": 2048}[name]
    assert output.shape == (2, linear[-1].out_features)


def test_residual_block_is_a_sum() -> None:
    """With the body's last norm at zero, a block that keeps its shape is the identity on what ReLU has passed."""
    model = resnet("basic", (2,), (4,), 3).eval()
    block = model[4]
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    nn.init.zeros_(norms[-1].weight)
    inputs = torch.rand(2, 4, 5, 5)
    torch.testing.assert_close(block(inputs), inputs)


def test_mlp_is_relu_between_layers_and_none_at_the_end() -> None:
    torch.manual_seed(0)
    model = mlp(12, 5, 4, 3).double()
    inputs = torch.randn(7, 3, 2, 2, dtype=torch.float64)
    hidden: Tensor = inputs.reshape(7, 12)
    parameters = list(model.parameters())
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        out = hidden @ weight.T + bias
        hidden = out.clamp(min=0)
    assert (out < 0).any()
    torch.testing.assert_close(model(inputs), out)


def test_initialisation_is_kaiming_normal() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64), nn.Linear(500, 400), nn.Linear(400, 300, bias=False))
    with torch.no_grad():
        model.get_parameter("1.weight").fill_(7.0)
    kaiming_normal_(model)
    for name, fan_in in (("0.weight", 8 * 3 * 3), ("2.weight", 500), ("3.weight", 400)):
        weight = model.get_parameter(name).detach().double()
        n, std = weight.numel(), math.sqrt(2 / fan_in)
        assert abs(float(weight.mean())) < 5 * std / math.sqrt(n)
        assert abs(float(weight.std()) / std - 1) < 5 / math.sqrt(2 * n)
        outside = float((weight.abs() > 2 * std).double().mean())  # 4.55 % of a normal, none of a uniform
        assert abs(outside - 0.0455) < 5 * math.sqrt(0.0455 / n)
    assert not model.get_parameter("0.bias").any()
    assert not model.get_parameter("2.bias").any()
    assert model.get_parameter("1.weight").eq(7).all()


def test_network_depends_on_its_seed_alone_and_leaves_the_random_state() -> None:
    digits = task()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = digits.initial(seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    again, other = digits.initial(seed=5), digits.initial(seed=6)
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.ndim == 1 or not torch.equal(a, c)  # biases start at zero whatever the seed


def test_a_network_of_another_size_than_its_recipe_is_refused() -> None:
    with pytest.raises(InputError, match="network digits_mlp has 6,464 weights"):
        RecipeNetwork("digits_mlp", 6465, torch.device("cpu"))()


def test_digits_mlp_takes_the_digits() -> None:
    assert digits_mlp()(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
