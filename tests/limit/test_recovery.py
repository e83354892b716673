"""What is recoverable after the kept weights adapt: against the dense model in float64, and against retraining."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from howsparse import (
    InputError,
    Mask,
    PruningLimit,
    Recoverable,
    magnitude_mask,
    prune,
    pruning_limit,
    rank,
    recoverable,
    recovered_loss,
)
from howsparse.limit.recovery import Recovery
from howsparse.limit.saved import pack
from howsparse.linalg import Rule
from howsparse.linalg.trust_region import least_in_ball
from howsparse.risk import EmpiricalRisk
from networks_for_tests import Batches, exact_curvature, mlp_case


@functools.cache
def trained_case(seed: int = 0) -> tuple[nn.Module, Batches]:
    """A small network that is trained part of the way, so that it has a gradient."""
    model, batches = mlp_case(seed, examples=120)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(60):
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model, batches


def kept_of(mask: Mask) -> Tensor:
    return torch.cat([kept.flatten() for kept in mask.values()])


def dense_loss(model: nn.Module, batches: Batches, kept: Tensor) -> tuple[float, float]:
    """The model's loss increase before and after adapting, with the dense Gauss-Newton matrix and its eigenvalues."""
    risk, g = EmpiricalRisk(model, batches), exact_curvature(model, batches, "ggn")
    step = torch.where(kept, 0.0, -risk.flat_weights())
    before = float(risk.gradient() @ step + step @ g @ step / 2)
    slope = (risk.gradient() + g @ step)[kept]
    values, vectors = torch.linalg.eigh(g[kept][:, kept])
    shares = ((vectors.T @ slope / slope.norm()) ** 2).numpy()
    rule = Rule(np.maximum(values.numpy(), 0.0), shares)
    return before, before + least_in_ball(rule, float(slope.norm()), float(step.norm()))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.9])
def test_the_bounds_of_a_mask_hold_the_dense_model(seed: int, sparsity: float) -> None:
    model, batches = trained_case(seed)
    mask = magnitude_mask(model, sparsity)
    before, after = dense_loss(model, batches, kept_of(mask))
    for products in (2, 4, 8, 100):
        found = recovered_loss(model, mask, batches, max_products=products)
        assert found.predicted == pytest.approx(before, abs=1e-10)
        assert found.low - 1e-9 <= after <= found.high + 1e-9
        assert found.products <= products
    assert found.high - found.low <= 0.01 * (found.predicted - found.high) + 1e-12
    assert found.sparsity == pytest.approx(mask.sparsity)


@pytest.mark.parametrize("order", ["magnitude", "random", "curvature"])
@pytest.mark.parametrize("seed", range(3))
def test_the_bracket_holds_where_the_dense_model_meets_the_tolerance(seed: int, order: str) -> None:
    model, batches = trained_case(seed)
    ranked, tolerance = rank(model, order, batches), 0.05
    within = [dense_loss(model, batches, kept_of(ranked.mask(1 - k / 56)))[1] <= tolerance for k in range(1, 57)]
    for products in (10, 40, 400):
        found = recoverable(model, batches, tolerance=tolerance, order=order, max_products=products)
        low, high = found.bracket
        assert found.num_products <= products
        assert found.order == order
        assert low == 0.0 or within[round(56 * (1 - low)) - 1]
        assert high == 1.0 or not within[round(56 * (1 - high)) - 1]
    assert high - low <= 2 / 56 + 1e-9


def test_the_model_is_exact_where_the_output_is_linear_and_the_loss_is_a_square() -> None:
    """Least squares on the kept weights reach the predicted loss if they need not move farther than the trust region.

    Here the removed weight's input is a copy of the kept one's, up to noise: all of the loss can be made good.
    """
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    copies = base[:, 0] + 0.1 * torch.randn(200, generator=generator, dtype=torch.float64)
    inputs = torch.cat([base, copies[:, None]], 1)
    model = nn.Linear(4, 1, bias=False).double()
    model.weight.data = torch.tensor([[1.0, 2.0, 3.0, 0.5]], dtype=torch.float64)
    batches = [(inputs, inputs @ model.weight.detach()[0])]
    found = recovered_loss(model, Mask(weight=torch.tensor([[True, True, True, False]])), batches, loss=Squares())
    fitted = np.linalg.lstsq(base.numpy(), batches[0][1].numpy(), rcond=None)[0]
    reached = float(np.mean((base.numpy() @ fitted - batches[0][1].numpy()) ** 2) / 2)
    assert found.low <= reached + 1e-12 <= found.high + 1e-9
    assert found.high == pytest.approx(reached, rel=0.02)
    assert found.predicted > 50 * found.high


class Squares:
    """Half the mean squared error, as a loss in two parts."""

    def output(self, model: nn.Module, batch: Any) -> Tensor:
        made: Tensor = model(batch[0])
        return made[:, 0]

    def of_output(self, output: Tensor, batch: Any) -> Tensor:
        loss: Tensor = (output - batch[1]).square().mean() / 2
        return loss

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        loss: Tensor = self.of_output(self.output(model, batch), batch)
        return loss


def test_retraining_gains_at_least_half_of_what_is_predicted() -> None:
    """L-BFGS on the kept weights, of the true loss."""
    model, batches = trained_case(1)
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    def loss(parts: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(torch.func.functional_call(model, parts, (inputs,)), targets)

    mask = magnitude_mask(model, 0.3)
    free = {name: weights[name].clone().requires_grad_() for name in mask}
    optimizer = torch.optim.LBFGS(list(free.values()), max_iter=200, line_search_fn="strong_wolfe")

    def masked() -> dict[str, Tensor]:
        return weights | {name: free[name] * mask[name] for name in mask}

    dense, now = float(loss(weights)), float(loss(masked()).detach())

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(masked())
        value.backward()
        return value

    optimizer.step(closure)
    reached = float(loss(masked()).detach())
    found = recovered_loss(model, mask, batches)
    assert found.predicted == pytest.approx(now - dense, rel=0.5)
    assert reached - dense < found.high + 0.5 * (found.predicted - found.high)
    assert now - dense > 0 > found.high


def hessian_only(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def test_without_a_gauss_newton_matrix_there_is_no_upper_end() -> None:
    model, batches = trained_case()
    found = recoverable(model, batches, tolerance=0.05, loss=hessian_only)
    assert (found.curvature, found.bracket[1]) == ("hessian", 1.0)
    assert all(point.low == -math.inf for point in found.points)
    assert found.bracket[0] > 0
    assert recoverable(model, batches, tolerance=0.05, curvature="hessian").bracket == found.bracket


def test_weights_that_are_removed_already_are_not_counted() -> None:
    model, batches = mlp_case(examples=120)
    prune(model, magnitude_mask(model, 0.5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = recoverable(model, batches, tolerance=0.05)
    assert found.num_weights == 28
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_removing_weights_that_are_zero_changes_nothing() -> None:
    model = nn.Linear(4, 2, bias=False).double()
    model.weight.data[:, 2:] = 0.0
    found = recovered_loss(model, magnitude_mask(model, 0.5), [(torch.eye(4).double(), torch.tensor([0, 1, 0, 1]))])
    assert (found.predicted, found.low, found.high, found.products) == (0.0, 0.0, 0.0, 1)
    assert found.recovers(1e-6)


def test_a_limit_has_it_and_keeps_it(tmp_path: Path) -> None:
    model, batches = trained_case()
    limit = pruning_limit(model, batches, tolerance=0.05, max_products=240)
    assert limit.recoverable == recoverable(model, batches, tolerance=0.05, max_products=40).bracket
    low, high = limit.recoverable
    limit.save(tmp_path / "limit.safetensors")
    assert PruningLimit.load(tmp_path / "limit.safetensors").recoverable == (low, high)
    assert (limit.summary().recoverable_low, limit.summary().recoverable_high) == (low, high)
    assert f"recoverable  {100 * low:.1f} % to {100 * high:.1f} %" in str(limit)
    assert limit.at(negative="unbounded").recoverable == (low, high)
    assert limit.at(tolerance=0.01).recoverable is None
    assert "recoverable" not in str(limit.at(tolerance=0.01))


def test_a_limit_file_of_an_earlier_version_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = pruning_limit(*trained_case(), tolerance=0.05, max_products=40)

    def as_before(of: PruningLimit) -> tuple[dict[str, Any], dict[str, Tensor]]:
        fields, tensors = written(of)
        return {name: value for name, value in fields.items() if name != "recoverable"}, tensors

    written: Callable[[PruningLimit], tuple[dict[str, Any], dict[str, Tensor]]] = pack
    monkeypatch.setattr("howsparse.limit.result.pack", as_before)
    limit.save(tmp_path / "limit.safetensors")
    loaded = PruningLimit.load(tmp_path / "limit.safetensors")
    assert loaded.recoverable is None
    assert loaded.bracket == limit.bracket


def test_a_saved_answer_is_the_same(tmp_path: Path) -> None:
    found = recoverable(*trained_case(), tolerance=0.05)
    found.save(tmp_path / "recoverable.safetensors")
    loaded = Recoverable.load(tmp_path / "recoverable.safetensors")
    assert (loaded.bracket, loaded.points, str(loaded)) == (found.bracket, found.points, str(found))
    assert isinstance(loaded.points[0], Recovery)


def test_the_same_call_gives_the_same_bits() -> None:
    first, second = (recoverable(*trained_case(), tolerance=0.05) for _ in range(2))
    assert first.points == second.points


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tolerance": 0.0}, "is not positive"),
        ({"max_products": 1}, "too few"),
        ({"curvature": "fisher"}, "is not known"),
        ({"order": "size"}, "is not known"),
    ],
)
def test_bad_arguments(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        recoverable(*trained_case(), **{"tolerance": 0.05} | options)


def test_a_mask_of_another_network_is_refused() -> None:
    model, batches = trained_case()
    with pytest.raises(InputError, match="not a prunable weight"):
        recovered_loss(model, Mask(other=torch.ones(2, 2).bool()), batches)
