import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from howsparse import InputError, magnitude_mask, measure, pruning_limit
from howsparse.geometry import (
    Magnitudes,
    absolute_filter,
    clipped_filter,
    existence_density,
    fixed_point,
    minimal_density,
    projected_width,
)
from howsparse.limit.measure import FINE
from howsparse.limit.tolerance import default_tolerance
from howsparse.risk.empirical import EmpiricalRisk
from networks_for_tests import Batches, exact_curvature, mlp_case


@functools.cache
def trained_case(seed: int, examples: int = 300) -> tuple[nn.Module, Batches]:
    model, batches = mlp_case(seed, examples)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    generator = torch.Generator().manual_seed(seed)
    l1 = float(10 ** -(1.5 + 3 * torch.rand(1, generator=generator).item()))
    for _ in range(150):
        inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss = loss + l1 * sum(p.abs().sum() for p in model.parameters() if p.ndim > 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, batches


@functools.cache
def wide_case() -> tuple[nn.Module, Batches]:
    """So many weights that the probe's error does not hide the quadrature's."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 10)
    inputs, targets = torch.randn(400, 100, generator=generator), torch.randint(0, 10, (400,), generator=generator)
    return model, [(inputs[:200], targets[:200]), (inputs[200:], targets[200:])]


def exact_limit(model: nn.Module, batches: Batches, tolerance: float, kind: str, negative: str) -> float:
    share = absolute_filter if negative == "wall" else clipped_filter
    eigenvalues = torch.linalg.eigvalsh(exact_curvature(model, batches, kind)).numpy()
    magnitudes = Magnitudes(EmpiricalRisk(model, batches).flat_weights().numpy())
    return 1 - fixed_point(lambda scale: minimal_density(eigenvalues, scale, factor=share), magnitudes, tolerance)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10**6),
    st.sampled_from([("hessian", "wall"), ("hessian", "unbounded"), ("ggn", "wall")]),
    st.floats(1e-3, 0.1),
    st.sampled_from([1, 2]),
)
def test_bracket_holds_the_exact_limit(seed: int, kind: tuple[str, str], tolerance: float, probes: int) -> None:
    model, batches = trained_case(seed % 10)
    limit = pruning_limit(
        model,
        batches,
        curvature=kind[0],
        negative=kind[1],
        tolerance=tolerance,
        probes=probes,
        max_products=32 * probes,
        seed=seed,
    )
    assert limit.bracket[0] <= exact_limit(model, batches, tolerance, *kind) <= limit.bracket[1]
    assert limit.num_products <= 32 * probes


def test_numbers_fit_together() -> None:
    model, batches = trained_case(0)
    limit = pruning_limit(model, batches, probes=24, max_products=24 * 64)  # many probes for a resolved limit
    assert limit.resolved
    weights = EmpiricalRisk(model, batches).flat_weights().abs().sort().values.numpy()
    assert limit.num_weights == weights.size == 56
    removed = limit.sparsity * 56
    below, above = np.linalg.norm(weights[: int(removed)]), np.linalg.norm(weights[: int(removed) + 1])
    assert below <= limit.radius <= above
    assert limit.scale == pytest.approx(2 * limit.tolerance / limit.radius**2)
    width = projected_width(np.zeros(56), limit.tolerance, limit.radius)  # a flat well: every direction counts
    assert width**2 == pytest.approx(56)
    low, high = limit.larsen_interval
    assert high == limit.sparsity
    assert 2 / np.pi * high < low < high  # at its own fixed point fewer weights are removed, and the set is nearer
    assert limit.effective_dimension == pytest.approx((1 - limit.sparsity) * 56)


def example_losses(model: nn.Module, batches: Batches) -> np.ndarray:
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    with torch.no_grad():
        return np.asarray(nn.functional.cross_entropy(model(inputs), targets, reduction="none"))


def test_default_tolerance_does_not_depend_on_the_loader() -> None:
    """It is the deviation over mini-batches of 128 independent examples, here against 20,000 mini-batches drawn."""
    model, batches = mlp_case(examples=300)
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    losses = example_losses(model, batches)
    drawn = np.random.default_rng(0).choice(losses, (20_000, 128)).mean(axis=1)
    found = [
        default_tolerance(EmpiricalRisk(model, list(zip(inputs.split(size), targets.split(size), strict=True))))
        for size in (7, 64, 300)
    ]
    for tolerance, error in found:
        assert tolerance == pytest.approx(float(drawn.std()), rel=0.02)
        assert (tolerance, error) == pytest.approx(found[0], rel=1e-9)
    limit = pruning_limit(model, batches, max_products=32)
    assert limit.tolerance == pytest.approx(found[0][0])


def test_the_error_of_the_default_tolerance_is_its_spread_over_samples() -> None:
    model, batches = mlp_case(examples=4000)
    losses = example_losses(model, batches)
    spread = [np.std(part, ddof=1) for part in np.random.default_rng(0).choice(losses, (4000, 500))]
    _, error = default_tolerance(EmpiricalRisk(model, batches))
    assert error * np.sqrt(4000 / 500) == pytest.approx(float(np.std(spread) / np.mean(spread)), rel=0.05)


def test_default_tolerance_of_a_loss_without_per_example_values() -> None:
    """Examples that can be taken apart give the same as cross-entropy; others come as whole batches."""

    def plain(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    model, batches = mlp_case(examples=1600)
    expected = default_tolerance(EmpiricalRisk(model, batches))
    assert default_tolerance(EmpiricalRisk(model, batches, plain)) == pytest.approx(expected)
    whole = [(x, y, torch.zeros(3)) for x, y in batches]  # three numbers that belong to no example
    losses = [float(plain(model, batch).detach()) for batch in batches]
    found, _ = default_tolerance(EmpiricalRisk(model, whole, plain))
    assert found == pytest.approx(float(np.std(losses, ddof=1)) * np.sqrt(16 / 128))


def test_another_tolerance_needs_no_new_work() -> None:
    model, batches = wide_case()
    options = {"max_products": 40, "precision": 0.0}
    first = pruning_limit(model, batches, tolerance=0.01, **options)  # type: ignore[arg-type]
    fresh = pruning_limit(model, batches, tolerance=0.05, **options)  # type: ignore[arg-type]
    assert first.stopped == fresh.stopped == "max_products"
    moved = first.at(tolerance=0.05)
    assert moved.bracket == pytest.approx(fresh.bracket, abs=1e-9)
    assert moved.num_products == first.num_products
    assert moved.predicted == pytest.approx(fresh.predicted, abs=0.003)
    unbounded = first.at(negative="unbounded")
    assert unbounded.tolerance == first.tolerance
    assert unbounded.errors.middle >= first.errors.middle


def test_upper_bound_is_that_of_the_removed_block() -> None:
    model, batches = trained_case(2)
    limit = pruning_limit(model, batches, tolerance=0.02, probes=24, max_products=1200)
    assert limit.resolved
    mask = magnitude_mask(model, limit.sparsity)
    removed = ~torch.cat([kept.flatten() for kept in mask.values()])
    block = exact_curvature(model, batches)[removed][:, removed]
    exact = existence_density(torch.linalg.eigvalsh(block).numpy(), limit.scale, 1 - limit.sparsity)
    assert limit.upper_bound == pytest.approx(1 - exact, abs=0.03)
    assert limit.removed_spectrum is not None
    removed_after_two = replace(limit, removed_spectrum=limit.removed_spectrum.first(2))
    (low, high), (best_low, best_high) = removed_after_two.upper_bracket, limit.upper_bracket
    assert high - low > best_high - best_low  # fewer products leave more open
    assert low - 0.03 < 1 - exact < high + 0.03  # 0.03 for the probe, which is chance


def test_the_same_seed_gives_the_same_bits() -> None:
    model, batches = trained_case(3)
    first, second = (pruning_limit(model, batches, seed=5, max_products=40) for _ in range(2))
    assert first.bracket == second.bracket
    assert first.predicted == second.predicted
    assert first.removed_spectrum is not None
    assert second.removed_spectrum is not None
    assert np.array_equal(first.removed_spectrum.gauss().nodes, second.removed_spectrum.gauss().nodes)


def test_a_sample_of_the_data_widens_the_bracket_to_the_whole() -> None:
    """Over many networks, the limit on all the data lies in the bracket computed on a quarter of them."""
    inside = []
    for seed in range(12):
        model, batches = trained_case(seed % 10, examples=1200)
        sample = pruning_limit(
            model, batches[: len(batches) // 4], tolerance=0.02, population=1200, max_products=96, seed=seed
        )
        assert sample.errors.data > 0
        exact = exact_limit(model, batches, 0.02, "hessian", "wall")
        inside.append(sample.bracket[0] <= exact <= sample.bracket[1])
    assert sum(inside) >= 11


def test_errors_add_up_to_the_bracket() -> None:
    model, batches = trained_case(1)
    limit = pruning_limit(model, batches, population=10**6, max_products=64)
    parts = limit.errors.quadrature + limit.errors.probe + limit.errors.data
    low, high = limit.bracket
    assert (high - low) / 2 == pytest.approx(parts) or low == 0.0 or high == 1.0
    assert limit.num_products <= 64
    all_there_is = pruning_limit(model, batches, population=300, max_products=64)
    assert all_there_is.errors.data == 0.0
    with pytest.raises(InputError, match="the sampling error needs two"):
        pruning_limit(model, batches[:1], tolerance=0.1, population=10**6)


def test_stops_at_the_precision_asked_for() -> None:
    model, batches = trained_case(4)
    easy = pruning_limit(model, batches, precision=0.9, max_products=160, probes=1)
    assert easy.stopped == "precision"
    assert easy.num_products < 48
    resolved = pruning_limit(model, batches, precision=0.0)
    assert resolved.stopped == "probe"
    assert resolved.errors.quadrature <= resolved.errors.probe / 5
    assert pruning_limit(trained_case(3)[0], trained_case(3)[1], precision=0.0).stopped == "exact"
    assert pruning_limit(*wide_case(), precision=0.0, max_products=40).stopped == "max_products"


def test_takes_the_steps_that_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = wide_case()
    whole = pruning_limit(model, batches, precision=0.0, max_products=64)
    vector = whole.num_weights * 2  # bytes, in half precision
    monkeypatch.setattr("howsparse.limit.budget.available_memory", lambda device: 16 * vector * 3 // 2)
    less = pruning_limit(model, batches, precision=0.0, max_products=64)
    assert less.stopped == "memory"
    assert less.spectrum.num_steps == 16
    assert less.errors.width > whole.errors.width
    monkeypatch.setattr("howsparse.limit.budget.available_memory", lambda device: 4 * vector)
    with pytest.raises(InputError, match="of free memory hold 2 Lanczos steps"):
        pruning_limit(model, batches)


def test_certificate_is_the_quadratic_model_of_the_mask() -> None:
    """Its crossing of the tolerance, against the dense Hessian evaluated at every sparsity."""
    model, batches = trained_case(5)
    tolerance = 0.01
    limit = pruning_limit(model, batches, tolerance=tolerance, max_products=64)
    risk = EmpiricalRisk(model, batches)
    hessian, gradient, weights = exact_curvature(model, batches), risk.gradient(), risk.flat_weights()
    order = weights.abs().argsort()
    increases = []
    for removed in range(57):
        step = torch.zeros_like(weights)
        step[order[:removed]] = -weights[order[:removed]]
        increases.append(float(gradient @ step + step @ hessian @ step / 2))
    within = max(removed for removed in range(57) if increases[removed] <= tolerance)
    assert within / 56 - 1e-9 <= limit.predicted <= (within + 1) / 56 + 1e-9
    at_edges = np.interp([0.0, 1.0], limit.losses.sparsities, limit.losses.increases)
    assert at_edges == pytest.approx([0.0, increases[-1]], abs=1e-12)


def test_random_masks_cost_what_the_quadratic_model_averages_to() -> None:
    model, batches = trained_case(5)
    risk = EmpiricalRisk(model, batches)
    hessian, gradient, weights = exact_curvature(model, batches), risk.gradient(), risk.flat_weights()
    curves = [pruning_limit(model, batches, tolerance=0.01, max_products=32, seed=seed) for seed in range(60)]
    generator = torch.Generator().manual_seed(0)
    for sparsity in (0.25, 0.75):
        steps = -weights * (torch.rand(20_000, 56, generator=generator) < sparsity)
        drawn = steps @ gradient + ((steps @ hessian) * steps).sum(1) / 2
        predicted = [np.interp(sparsity, c.random_losses.sparsities, c.random_losses.increases) for c in curves]
        error = np.hypot(np.std(predicted) / np.sqrt(60), float(drawn.std()) / np.sqrt(20_000))
        assert np.mean(predicted) == pytest.approx(float(drawn.mean()), abs=4 * error)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tolerance": -1.0}, "tolerance -1 is not positive"),
        ({"curvature": "fisher"}, "use 'hessian' or 'ggn'"),
        ({"negative": "ignored"}, "use 'wall' or 'unbounded'"),
        ({"max_products": 5}, "max_products 5 is too few.*howsparse.predict takes 11"),
        ({"probes": 0}, "too few"),
    ],
)
def test_bad_arguments(options: dict[str, object], match: str) -> None:
    model, batches = mlp_case()
    with pytest.raises(InputError, match=match):
        pruning_limit(model, batches, **({"tolerance": 0.1} | options))  # type: ignore[arg-type]


def test_one_example_leaves_no_tolerance() -> None:
    model, batches = mlp_case(examples=1)
    with pytest.raises(InputError, match="the default tolerance needs two"):
        pruning_limit(model, batches)


def test_measured_threshold_against_every_mask() -> None:
    model, batches = trained_case(6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    tolerance = 0.005

    def loss_and_accuracy(sparsity: float) -> tuple[float, float]:
        with torch.no_grad():
            magnitude_mask(model, sparsity).apply_(model)
            output = model(inputs)
            model.load_state_dict(before)
        right = float((output.argmax(1) == targets).double().mean())
        return float(nn.functional.cross_entropy(output, targets)), right

    measured = measure(model, batches, tolerance=tolerance, scan=FINE, precision=0.001)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    for point in measured.curve:
        assert (point.loss, point.accuracy) == pytest.approx(loss_and_accuracy(point.sparsity))
    dense = loss_and_accuracy(0.0)
    assert loss_and_accuracy(measured.sparsity)[0] <= dense[0] + tolerance
    sparser = min(p.sparsity for p in measured.curve if p.sparsity > measured.sparsity)
    assert round((sparser - measured.sparsity) * 56) == 1  # one weight of 56
    assert loss_and_accuracy(sparser)[0] > dense[0] + tolerance
    assert measured.sparsity_by_accuracy is not None
    assert loss_and_accuracy(measured.sparsity_by_accuracy)[1] >= dense[1]


def test_measure_puts_the_weights_back_when_stopped() -> None:
    model, batches = mlp_case()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def stop(point: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(model, batches, tolerance=0.1, on_point=stop)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
