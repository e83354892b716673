"""The l1 term against autograd and against the lasso's closed form."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.risk.weights import prunable_weights
from howsparse.training.l1 import attach_l1

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        model.get_parameter("0.weight")[0] = 0.0  # both sign(0) and autograd's derivative of |w| there are 0
    return model


def batches(steps: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(steps, 6, 4, generator=generator, dtype=torch.float64)
    return list(zip(inputs, torch.randint(3, (steps, 6), generator=generator), strict=True))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("with_closure", [False, True])
def test_subgradient_is_autograd_of_loss_plus_l1(make: Make, with_closure: bool) -> None:
    ours, theirs, strength = network(), network(), 0.03
    our_optimizer, their_optimizer = make(list(ours.parameters())), make(list(theirs.parameters()))
    l1 = attach_l1(our_optimizer, prunable_weights(ours).values(), strength)
    for inputs, targets in batches(5):

        def our_loss(inputs: Tensor = inputs, targets: Tensor = targets) -> float:
            our_optimizer.zero_grad()
            loss = nn.functional.cross_entropy(ours(inputs), targets)
            loss.backward()
            return loss.item()

        penalty = strength * torch.cat([theirs.get_parameter(f"{i}.weight").flatten() for i in (0, 2)]).abs().sum()
        assert l1.penalty() == pytest.approx(penalty.item())
        loss = nn.functional.cross_entropy(theirs(inputs), targets)
        their_optimizer.zero_grad()
        (loss + penalty).backward()
        their_optimizer.step()

        if with_closure:
            assert our_optimizer.step(our_loss) == pytest.approx(loss.item())
        else:
            our_loss()
            our_optimizer.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov"), [(0.0, 0.0, False), (0.9, 0.0, False), (0.9, 0.0, True), (0.9, 0.5, False)]
)
def test_proximal_solves_the_lasso(momentum: float, dampening: float, nesterov: bool) -> None:
    # With X'X = diag(d^2) the lasso separates: w_j = soft(x_j'y, strength) / d_j^2.
    torch.manual_seed(0)
    scales = torch.linspace(0.7, 1.5, 10, dtype=torch.float64)
    design = torch.linalg.qr(torch.randn(20, 10, dtype=torch.float64)).Q * scales
    target, strength = torch.randn(20, dtype=torch.float64), 0.4
    inner = design.T @ target
    solution = inner.sign() * (inner.abs() - strength).clamp(min=0) / scales**2
    assert 0 < int((solution == 0).sum()) < 10

    w = nn.Parameter(torch.randn(10, dtype=torch.float64))
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=momentum, dampening=dampening, nesterov=nesterov)
    attach_l1(optimizer, [w], strength, proximal=True)
    for _ in range(1000):
        optimizer.zero_grad()
        (0.5 * (design @ w - target).square().sum()).backward()
        optimizer.step()
    torch.testing.assert_close(w.detach(), solution, rtol=0, atol=1e-10)
    assert torch.equal(w == 0, solution == 0)


@given(
    start=st.lists(st.floats(-3, 3), min_size=1, max_size=8),
    learning_rate=st.floats(1e-3, 1.0),
    strength=st.floats(0, 2),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
)
@settings(deadline=None)
def test_proximal_step_is_optimal(start: list[float], learning_rate: float, strength: float, momentum: float) -> None:
    # z minimises 1/2 (z - x)^2 + t |z| exactly when x - z lies in t times the subdifferential of |.| at z.
    w = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = torch.optim.SGD([w], lr=learning_rate, momentum=momentum)
    attach_l1(optimizer, [w], strength, proximal=True)
    w.grad = torch.zeros_like(w)
    optimizer.step()
    t = learning_rate * strength / (1 - momentum)
    for x, z in zip(start, w.tolist(), strict=True):
        if z == 0:
            assert abs(x) <= t * (1 + 1e-12)
        else:
            assert (z > 0) == (x > 0)
            assert abs(x - z) == pytest.approx(t, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_adaptive_optimizers_get_the_decoupled_form(optimizer_class: type[torch.optim.Adam]) -> None:
    # Without a gradient of the loss only the shrinkage moves the weights: by learning rate * strength a step, to zero.
    w = nn.Parameter(torch.tensor([1.0, -0.5, 0.25, -0.1, 0.0]))
    optimizer = optimizer_class([w], lr=0.125, weight_decay=0.0)
    attach_l1(optimizer, [w], 1.0, proximal=True)
    for _ in range(3):
        w.grad = torch.zeros_like(w)
        optimizer.step()
    assert w.tolist() == [0.625, -0.125, 0.0, 0.0, 0.0]


def test_proximal_with_adam_trains_to_exact_zeros() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    attach_l1(optimizer, prunable_weights(model).values(), 1.0, proximal=True)
    biases = [p.detach().clone() for name, p in model.named_parameters() if "bias" in name]
    for inputs, targets in batches(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    assert sum(int(w.count_nonzero()) for w in prunable_weights(model).values()) < 35 / 2
    after = [p for name, p in model.named_parameters() if "bias" in name]
    assert all((b != 0).all() and not torch.equal(a, b) for a, b in zip(biases, after, strict=True))


def test_each_group_shrinks_by_its_own_present_learning_rate() -> None:
    a, b = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([{"params": [a], "lr": 0.25}, {"params": [b], "lr": 0.5, "momentum": 0.5}], lr=9.0)
    attach_l1(optimizer, [a, b], 0.5, proximal=True)
    a.grad, b.grad = torch.zeros(1), torch.zeros(1)
    optimizer.step()
    assert (a.item(), b.item()) == (0.875, 0.5)
    optimizer.param_groups[0]["lr"] = 1.0  # as a scheduler does
    optimizer.step()
    assert (a.item(), b.item()) == (0.375, 0.0)


@pytest.mark.parametrize("proximal", [False, True])
def test_remove_detaches(proximal: bool) -> None:
    ours, theirs = network(), network()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9) for model in (ours, theirs)]
    attach_l1(optimizers[0], prunable_weights(ours).values(), 0.5, proximal=proximal).remove()
    for inputs, targets in batches(3):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    assert same(ours, theirs)


@pytest.mark.parametrize("proximal", [False, True])
def test_frozen_weights_stay(proximal: bool) -> None:
    model = network()
    frozen, trained = model.get_parameter("0.weight").requires_grad_(False), model.get_parameter("2.weight")
    before = frozen.clone(), trained.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach_l1(optimizer, prunable_weights(model).values(), 0.5, proximal=proximal)
    inputs, targets = batches(1)[0]
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    assert torch.equal(frozen, before[0])
    assert not torch.equal(trained, before[1])


def test_errors() -> None:
    weight, other = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with pytest.raises(InputError, match=r"l1 strength -0\.5 is negative"):
        attach_l1(optimizer, [weight], -0.5)
    for strength in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(InputError, match=rf"l1 strength {strength} is not a finite number"):
            attach_l1(optimizer, [weight], strength)
    with pytest.raises(InputError, match="does not hold every weight"):
        attach_l1(optimizer, [weight, other], 0.5)
    weight.grad = torch.zeros(2, 2)
    optimizer.step()
    assert torch.equal(weight, torch.ones(2, 2))  # nothing was attached


class Wrapper:
    """What accelerate and Lightning put around an optimizer."""

    def __init__(self, optimizer: object) -> None:
        self.optimizer = optimizer


@pytest.mark.parametrize("proximal", [False, True])
def test_the_optimizer_inside_of_wrappers_gets_the_term(proximal: bool) -> None:
    accelerate = pytest.importorskip("accelerate")
    ours, theirs = network(), network()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9) for model in (ours, theirs)]
    wrapped: Any = Wrapper(accelerate.Accelerator(cpu=True).prepare(optimizers[0]))
    term = attach_l1(wrapped, prunable_weights(ours).values(), 0.5, proximal=proximal)
    attach_l1(optimizers[1], prunable_weights(theirs).values(), 0.5, proximal=proximal)
    for inputs, targets in batches(3):
        for model, step in ((ours, wrapped.optimizer.step), (theirs, optimizers[1].step)):
            model.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            step()
    assert same(ours, theirs)
    norm = sum(w.detach().abs().sum() for w in prunable_weights(ours).values())
    assert term.penalty() == pytest.approx(0.5 * float(norm))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_a_copied_optimizer_has_no_term_until_it_is_attached_again(copied: Callable[[Any], Any]) -> None:
    """As the documentation says; torch leaves out the hooks of an optimizer."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    attach_l1(optimizer, [weight], 1.0)
    assert "attach it to the copy again" in str(attach_l1.__doc__)
    other = copied(optimizer)
    (own,) = other.param_groups[0]["params"]
    own.grad = torch.zeros(2)
    other.step()
    assert own.tolist() == [1.0, 1.0]
    attach_l1(other, [own], 1.0)
    other.step()
    assert own.tolist() == [0.5, 0.5]


def test_what_is_no_optimizer_is_refused() -> None:
    nothing: tuple[Any, ...] = (object(), Wrapper(None))
    for what in nothing:
        with pytest.raises(InputError, match=r"is not a torch optimizer and does not hold one"):
            attach_l1(what, [nn.Parameter(torch.ones(1))], 0.5)


FUSED: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.5, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, fused=True),
}


@pytest.mark.parametrize("make", FUSED.values(), ids=FUSED)
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("proximal", [False, True])
def test_a_fused_optimizer_under_a_scaler_is_the_training_without_one(
    make: Make, unscale: bool, proximal: bool
) -> None:
    """The scale is a power of two, so scaling and unscaling round nothing."""
    ours, theirs = network().float(), network().float()
    optimizers = [make(list(model.parameters())) for model in (ours, theirs)]
    for model, optimizer in zip((ours, theirs), optimizers, strict=True):
        attach_l1(optimizer, prunable_weights(model).values(), 0.03, proximal=proximal)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    for inputs, targets in batches(6):
        optimizers[0].zero_grad()
        scaler.scale(nn.functional.cross_entropy(ours(inputs.float()), targets)).backward()
        if unscale:
            scaler.unscale_(optimizers[0])
        scaler.step(optimizers[0])
        scaler.update()
        optimizers[1].zero_grad()
        nn.functional.cross_entropy(theirs(inputs.float()), targets).backward()
        optimizers[1].step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fused", [False, True])
def test_accelerates_optimizer_with_a_scaler_gets_the_term(fused: bool) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerate.Accelerator(cpu=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    weight = nn.Parameter(torch.tensor([1.0, -1.0]))
    sgd = torch.optim.SGD([weight], lr=0.5, fused=fused)
    optimizer = accelerate.optimizer.AcceleratedOptimizer(sgd, scaler=scaler)
    attach_l1(optimizer, [weight], 0.25)
    scaler.scale((weight * torch.tensor([0.5, 1.0])).sum()).backward()
    optimizer.step()
    assert weight.tolist() == [0.625, -1.375]


@pytest.mark.parametrize("proximal", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_changes_nothing(fused: bool, proximal: bool) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1, fused=fused)
    attach_l1(optimizer, [weight], 0.5, proximal=proximal)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale((weight * torch.tensor([1.0, float("inf"), 1.0])).sum()).backward()
    scaler.step(optimizer)
    assert torch.equal(weight, torch.ones(3))


def test_an_optimizer_that_takes_the_scaler_itself_is_refused() -> None:
    class Own(torch.optim.SGD):
        _step_supports_amp_scaling = True

        def step(self, closure: object = None, grad_scaler: object = None) -> None:  # type: ignore[override]
            super().step()

    weight = nn.Parameter(torch.ones(3))
    optimizer = Own([weight], lr=0.1)
    attach_l1(optimizer, [weight], 0.5)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(weight.sum()).backward()
    with (
        pytest.warns(FutureWarning, match="GradScaler"),
        pytest.raises(InputError, match="the scale of its gradients is not known"),
    ):
        scaler.step(optimizer)
    assert torch.equal(weight, torch.ones(3))
