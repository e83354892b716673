"""Masks that hold: exact zeros after every step, whatever the optimizer would make of the weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.pruning.masks import Mask, magnitude_mask, random_mask
from howsparse.risk.weights import prunable_weights
from howsparse.training.l1 import attach_l1
from howsparse.training.masking import attach_mask

Make = Callable[[nn.Module], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.05),
    "nesterov": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.05, weight_decay=0.05),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.05),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    inputs, targets = torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()


def removed(model: nn.Module, mask: Mask) -> list[float]:
    weights = prunable_weights(model)
    return [value for name, kept in mask.items() for value in weights[name].detach()[~kept].tolist()]


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("l1", [None, "subgradient", "proximal"])
def test_removed_weights_are_zero_after_every_step(make: Make, l1: str | None) -> None:
    model = network()
    optimizer = make(model)
    if l1 is not None:
        attach_l1(optimizer, prunable_weights(model).values(), 0.001, proximal=l1 == "proximal")
    for number in range(3):  # momentum, for the weights that are removed below, too
        step(model, optimizer, number)
    mask = magnitude_mask(model, 0.5)
    assert 0.0 not in removed(model, mask)
    attach_mask(optimizer, model, mask)
    assert removed(model, mask) == [0.0] * 28
    for number in range(3, 10):
        before = [w.detach().clone() for w in model.parameters()]
        step(model, optimizer, number)
        assert removed(model, mask) == [0.0] * 28
        assert all(not torch.equal(w, old) for w, old in zip(model.parameters(), before, strict=True))  # others move


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_kept_weights_move_as_without_a_mask(make: Make) -> None:
    # In a linear model with the loss sum(c * w), the gradient of one weight does not depend on the others.
    generator = torch.Generator().manual_seed(3)
    plain, masked = nn.Linear(6, 5), nn.Linear(6, 5)
    masked.load_state_dict(plain.state_dict())
    mask = random_mask(masked, 0.4, seed=1)
    optimizers = make(plain), make(masked)
    attach_mask(optimizers[1], masked, mask)
    for _ in range(6):
        slope = torch.randn(5, 6, generator=generator)
        for model, optimizer in zip((plain, masked), optimizers, strict=True):
            optimizer.zero_grad()
            ((model.weight * slope).sum() + model.bias.square().sum()).backward()
            optimizer.step()
        assert torch.equal(masked.weight, torch.where(mask["weight"], plain.weight, 0.0))
        assert torch.equal(masked.bias, plain.bias)


def test_momentum_is_gone_before_the_next_forward_pass() -> None:
    seen: list[Tensor] = []
    model = nn.Linear(3, 2, bias=False)
    model.register_forward_pre_hook(lambda module, _: seen.append(model.weight.detach().clone()))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.99)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    mask = Mask(weight=torch.tensor([[True, False, True], [False, True, False]]))
    attach_mask(optimizer, model, mask)
    for _ in range(4):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    assert all((weight[~mask["weight"]] == 0).all() for weight in seen[1:])
    assert seen[-1][mask["weight"]].ne(0).all()


def test_a_new_mask_takes_effect_at_once() -> None:
    model = network()
    optimizer = OPTIMIZERS["sgd"](model)
    first, second = random_mask(model, 0.3, seed=0), random_mask(model, 0.3, seed=1)
    masking = attach_mask(optimizer, model, first)
    step(model, optimizer, 0)
    assert masking.mask is first
    masking.mask = second
    assert masking.mask is second
    assert set(removed(model, second)) == {0.0}  # before any step
    step(model, optimizer, 1)
    assert set(removed(model, second)) == {0.0}
    back = torch.cat([(second[name] & ~first[name]).flatten() for name in first])
    weights = torch.cat([w.detach().flatten() for w in prunable_weights(model).values()])
    assert back.any()
    assert weights[back].ne(0).all()  # what only the first one removed is trained again


def test_a_new_mask_may_name_other_weights() -> None:
    model = network()
    optimizer = OPTIMIZERS["sgd"](model)
    masking = attach_mask(optimizer, model, random_mask(model, 0.5, ["0.weight"]))
    masking.mask = second = random_mask(model, 0.5, ["2.weight"])
    step(model, optimizer, 0)
    assert removed(model, second) == [0.0] * 12
    assert int(model.get_parameter("0.weight").count_nonzero()) > 16


def test_remove_ends_it() -> None:
    model = network()
    optimizer = OPTIMIZERS["sgd"](model)
    mask = random_mask(model, 0.5)
    masking = attach_mask(optimizer, model, mask)
    step(model, optimizer, 0)
    masking.remove()
    assert set(removed(model, mask)) == {0.0}
    step(model, optimizer, 1)
    assert 0.0 not in removed(model, mask)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Mask({"1.weight": torch.ones(2, 2).bool()}), r"'1\.weight',? .*not a prunable weight"),
        (Mask({"0.bias": torch.zeros(8).bool()}), r"'0\.bias',? .*not a prunable weight"),
        (
            Mask({"2.weight": torch.zeros(3, 8).bool(), "0.weight": torch.zeros(4, 8).bool()}),
            r"mask of '0\.weight' has shape \(4, 8\), but the weight has \(8, 4\)",
        ),
    ],
)
def test_a_mask_that_does_not_fit_changes_nothing(mask: Mask, message: str) -> None:
    model, twin = network(), network()
    optimizer, other = OPTIMIZERS["sgd"](model), OPTIMIZERS["sgd"](twin)
    with pytest.raises(InputError, match=message):
        attach_mask(optimizer, model, mask)
    step(model, optimizer, 0)
    step(twin, other, 0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))

    good = random_mask(model, 0.5)
    masking = attach_mask(optimizer, model, good)
    with pytest.raises(InputError, match=message):
        masking.mask = mask
    step(model, optimizer, 1)
    assert masking.mask is good
    assert set(removed(model, good)) == {0.0}


def test_the_optimizer_must_hold_every_weight_of_the_mask() -> None:
    model = network()
    before = model.get_parameter("2.weight").detach().clone()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"the optimizer does not hold '2\.weight'"):
        attach_mask(optimizer, model, random_mask(model, 0.5))
    assert torch.equal(model.get_parameter("2.weight"), before)
    attach_mask(optimizer, model, random_mask(model, 0.5, ["0.weight"]))
