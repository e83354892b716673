"""What more products are said to give, against what they give."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from howsparse import InputError, LimitOptions, PruningLimit, pruning_limit
from howsparse.limit.options import probes_for
from howsparse.linalg import Spectrum, Tridiagonal
from networks_for_tests import Batches


def case(seed: int, l1: float) -> tuple[nn.Module, Batches]:
    """A network of 4,400 weights whose probe error is small, trained for a moment."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(40, 80), nn.ReLU(), nn.Linear(80, 15))
    inputs, targets = torch.randn(300, 40, generator=generator), torch.randint(15, (300,), generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        size = sum(p.abs().sum() for p in model.parameters() if p.ndim > 1)
        (nn.functional.cross_entropy(model(inputs), targets) + l1 * size).backward()
        optimizer.step()
    return model, [(inputs, targets)]


@functools.cache
def long_limit(seed: int, l1: float) -> PruningLimit:
    model, batches = case(seed, l1)
    return pruning_limit(model, batches, tolerance=0.02, max_products=184, precision=0.0)


@pytest.mark.parametrize(("seed", "l1"), [(0, 0.0), (1, 1e-4), (2, 1e-3)])
@pytest.mark.parametrize("products", [57, 68])  # 29 and 37 steps
def test_the_estimate_is_near_what_the_products_then_give(seed: int, l1: float, products: int) -> None:
    """Up to twice the steps within a fifth; beyond, up to four times, within a half."""
    model, batches = case(seed, l1)
    short = pruning_limit(model, batches, tolerance=0.02, max_products=products, precision=0.0)
    outlook, taken = short.outlook(), short.spectrum.num_steps
    assert outlook is not None
    then = taken + outlook.products
    long = long_limit(seed, l1)
    assert then <= long.spectrum.num_steps
    actual = long._width_after(then) + (short.errors.width - 2 * short.errors.quadrature)
    assert outlook.width == pytest.approx(actual, rel=0.2 if then <= 2 * taken else 0.5)


def test_history_falls_and_ends_with_the_bracket() -> None:
    limit = long_limit(0, 0.0)
    widths = [look.width for look in limit.history()]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(2 * limit.errors.quadrature)
    assert limit.history()[-1].steps == limit.spectrum.num_steps


def test_no_basis_for_an_estimate() -> None:
    limit = long_limit(0, 0.0)
    assert replace(limit, stopped="exact").outlook() is None
    assert replace(limit, spectrum=limit.spectrum.first(12)).outlook() is None


def test_seconds_are_those_of_the_products() -> None:
    model, batches = case(0, 0.0)
    limit = pruning_limit(model, batches, tolerance=0.02, max_products=56, precision=0.0)
    outlook = limit.outlook()
    assert outlook is not None
    assert limit.seconds_per_product is not None
    assert limit.seconds_per_product > 0
    assert outlook.seconds == outlook.products * limit.seconds_per_product


def test_where_the_probe_makes_the_bracket_wide_more_probes_are_advised() -> None:
    """More products of the same probe change nothing; the advised options are valid and make the bracket narrower."""
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(300, 4)
    batches = [(inputs, inputs[:, :3].argmax(1))]
    wide = pruning_limit(model, batches, tolerance=0.015, probes=1)
    assert (wide.stopped, wide.resolved) == ("probe", False)
    assert wide.outlook() is None
    probes, products = wide.more_probes()
    with pytest.raises(
        InputError, match=rf"use the measured sparsity, or probes={probes} with max_products={products}"
    ):
        wide.resolved_sparsity()
    assert pruning_limit(model, batches, tolerance=0.015, probes=1, max_products=800).bracket == wide.bracket
    more = pruning_limit(model, batches, tolerance=0.015, probes=probes, max_products=products)
    assert more.errors.width < 0.75 * wide.errors.width
    chosen = pruning_limit(model, batches, tolerance=0.015)
    assert chosen.errors.width < more.errors.width
    assert chosen.resolved
    many = pruning_limit(model, batches, tolerance=0.015, probes=12)  # whose steps are so few that 4 x 12 need more
    probes, products = many.more_probes()
    assert pruning_limit(model, batches, tolerance=0.015, probes=probes, max_products=products).errors.probe < (
        0.75 * many.errors.probe
    )


@pytest.mark.parametrize("size", [30, 200, 3000, 20_000, 60_000])
def test_probes_for_are_as_many_as_give_the_half_width_and_as_the_products_allow(size: int) -> None:
    """Against the interval itself at T = 1/2: one probe fewer is wider than 0.01, if products and 16 do not decide."""
    one = Tridiagonal(np.array([1.0]), np.array([0.0]))

    def half_width(probes: int) -> float:
        low, high = Spectrum((one,) * probes, size).probe_interval(0.5, 0.5, 0.99)
        return (high - low) / 2

    probes = probes_for(size, 10**9)
    assert 1 <= probes <= 16
    assert half_width(probes) <= 0.01 or probes == 16
    assert probes == 1 or half_width(probes - 1) > 0.0099
    few = probes_for(size, 400)
    assert few <= probes
    assert few == 1 or few * max(32, size / 6) <= 400
    assert LimitOptions(probes=few).max_products == 400  # which accepts so many
