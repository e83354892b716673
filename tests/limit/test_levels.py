"""The step from a sample of the data to the population, on densities that are known and on networks."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from howsparse import PruningLimit, pruning_limit
from howsparse.errors import InputError
from howsparse.geometry import Magnitudes, absolute_filter, fixed_point, minimal_density
from howsparse.limit import samples
from howsparse.limit.levels import Level, Sampling, data_drift, data_shift
from howsparse.limit.options import LimitOptions
from howsparse.limit.saved import pack, unpack
from howsparse.linalg import Spectrum, Tridiagonal
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.losses import cross_entropy
from networks_for_tests import exact_curvature, mlp_case

Ends = Callable[[Spectrum], tuple[float, float]]


def level(examples: int, steps: int) -> Level:
    """A level whose spectrum is known by its size, which is the number of examples."""
    return Level(examples, Spectrum((Tridiagonal(np.ones(steps), np.ones(steps)),), size=examples))


def ends_of(density: Callable[[int], float], wobble: float = 0.0) -> Ends:
    """The ends that a density has by the number of examples; each step turns the sign of the ratios' wobble."""

    def ends(spectrum: Spectrum) -> tuple[float, float]:
        away = math.exp(wobble * (-1) ** spectrum.num_steps * math.log2(spectrum.size))
        return density(spectrum.size) * away, density(spectrum.size) * away

    return ends


def test_the_chain_of_ratios_gives_the_density_over_all_examples() -> None:
    def density(examples: int) -> float:
        return 0.1 + 0.3 / math.log(examples)

    upper = (level(100, 30), level(1600, 30), level(6400, 20))
    found = data_shift(level(400, 90).spectrum, Sampling(upper, 400, 6400, 0.0), ends_of(density))
    assert found.value == pytest.approx(math.log(density(6400) / density(400)))
    assert found.error == pytest.approx(0.0, abs=1e-12)


def test_examples_that_no_level_has_continue_the_last_ratio() -> None:
    chain = (level(100, 30), level(1600, 30))
    steady = data_shift(level(400, 90).spectrum, Sampling(chain, 400, 25_600, 0.0), ends_of(lambda m: m**-0.2))
    assert steady.value == pytest.approx(-0.2 * math.log(25_600 / 400))
    assert steady.error == pytest.approx(0.0, abs=1e-12)
    slowing = data_shift(level(400, 90).spectrum, Sampling(chain, 400, 25_600, 0.0), ends_of(lambda m: 1 + 100 / m))
    true = math.log((1 + 100 / 25_600) / (1 + 100 / 400))
    assert 0 < abs(slowing.value - true) < slowing.error


@pytest.mark.parametrize("smaller", [100, 200])
def test_without_a_larger_sample_the_limit_may_move_twice_as_far_as_a_few_steps_show(smaller: int) -> None:
    alone = Sampling((level(smaller, 30),), 400, 1600, 0.0)
    assert not alone.above
    drift = data_drift(level(400, 90).spectrum, alone, ends_of(lambda m: 1 - 0.05 * math.log2(m)))
    assert drift == pytest.approx(2 * 0.05 * 2)


def test_a_ratio_that_changes_with_the_steps_has_an_error() -> None:
    upper = (level(100, 90), level(1600, 90), level(6400, 9))
    error = data_shift(
        level(400, 90).spectrum, Sampling(upper, 400, 6400, 0.0), ends_of(lambda m: m**-0.2, wobble=0.01)
    ).error
    assert error > 2 * 0.01 * math.log2(4)  # one ratio turns between plus and minus 0.01 for each doubling


def sampled_limit(seed: int) -> tuple[PruningLimit, float]:
    """The limit by samples of 16, 64, 256 and 1,024 examples, and the exact one."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5)).double()
    inputs = torch.randn(1024, 10, dtype=torch.float64) / torch.arange(1, 11)
    targets = (inputs @ torch.randn(10, 5, dtype=torch.float64)).argmax(dim=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(100):
        optimizer.zero_grad()
        cross_entropy(model, (inputs, targets)).backward()
        optimizer.step()
    batches = list(zip(inputs.split(200), targets.split(200), strict=True))
    limit = pruning_limit(model, batches, tolerance=0.005, sample=64, seed=seed, probes=1)
    eigenvalues = torch.linalg.eigvalsh(exact_curvature(model, batches)).numpy()
    magnitudes = Magnitudes(EmpiricalRisk(model, batches).flat_weights().numpy())
    exact = fixed_point(lambda scale: minimal_density(eigenvalues, scale, factor=absolute_filter), magnitudes, 0.005)
    return limit, 1 - exact


def test_limits_by_samples_hold_the_exact_limit_of_all_examples() -> None:
    found = [sampled_limit(seed) for seed in range(4)]
    assert all(limit.bracket[0] <= exact <= limit.bracket[1] for limit, exact in found)
    assert all(limit.sampling is not None and limit.sampling.above for limit, _ in found)
    first, again = found[0][0], sampled_limit(0)[0]
    assert first.bracket == again.bracket
    assert first.sampling is not None
    assert (first.sampling.levels[0].examples, first.sampling.examples) == (16, 64)
    assert first.num_products < 400 / 3


def test_samples_that_cost_the_same() -> None:
    nested = samples.Samples(ends=(1, 2, 5, 17, 60), examples=(200, 800, 3200, 12_800, 50_000))
    assert list(nested.above(256)) == [(2, 64)]  # 16 steps over the next one would mislead
    assert list(nested.above(1024)) == [(2, 256), (3, 64)]
    assert (nested.base, nested.enough) == (1, 2)


def test_only_a_sample_puts_the_examples_into_another_order() -> None:
    model, batches = mlp_case()
    found = {
        wanted: samples.risk_with_samples(model, batches, cross_entropy, ["0.weight"], *wanted)
        for wanted in ((None, None), (40, None), (80, None), (None, 8), (80, 8), (None, 30))
    }
    assert {wanted: made.examples for wanted, (_, made) in found.items()} == {
        (None, None): (40,),
        (40, None): (40,),
        (80, None): (16, 40),
        (None, 8): (2, 8, 40),  # 32 is more than half of all
        (80, 8): (2, 8, 40),
        (None, 30): (40,),  # as good as all
    }
    values = {wanted: risk.value() for wanted, (risk, _) in found.items()}
    assert values[None, None] == values[80, None] == values[None, 30]
    assert values[None, 8] == pytest.approx(values[None, None])
    assert found[None, 8][0].lengths != found[None, None][0].lengths


def test_a_sample_of_a_few_examples_is_refused() -> None:
    with pytest.raises(InputError, match="a sample of 7"):
        LimitOptions(sample=7)


def test_a_file_of_an_earlier_version_has_the_half_sample_and_doublings() -> None:
    model, batches = mlp_case()
    limit = pruning_limit(model, batches, tolerance=0.05, max_products=40, population=80)
    assert limit.sampling is not None
    fields, tensors = pack(limit)
    new = ("levels", "level0", "examples", "population")
    old = {name: value for name, value in fields.items() if name not in new}
    old |= {"half": fields["level0"], "doublings": 1.0}
    read = unpack(old, {name.replace("level0.", "half."): tensor for name, tensor in tensors.items()})["sampling"]
    assert read.population == 2 * read.examples == 4 * read.levels[0].examples
    assert read.levels[0].spectrum.num_steps == limit.sampling.levels[0].spectrum.num_steps
