"""The step from a sample of the data to the population, on densities that are known and on networks."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from howsparse import PruningLimit, pruning_limit
from howsparse.geometry import Magnitudes, absolute_filter, fixed_point, minimal_density
from howsparse.limit import samples
from howsparse.limit.levels import Level, Sampling, data_shift
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


def test_a_single_ratio_may_stop_or_go_on_twice_as_fast() -> None:
    half = Sampling((level(200, 30),), 400, 1600, 0.0)
    found = data_shift(level(400, 90).spectrum, half, ends_of(lambda m: m**-0.2))
    assert (found.value, found.error) == pytest.approx((-0.2 * math.log(4), 0.2 * math.log(4)))


def test_a_ratio_that_changes_with_the_steps_has_an_error() -> None:
    upper = (level(100, 90), level(1600, 90), level(6400, 9))
    error = data_shift(
        level(400, 90).spectrum, Sampling(upper, 400, 6400, 0.0), ends_of(lambda m: m**-0.2, wobble=0.01)
    ).error
    assert error > 2 * 0.01 * math.log2(4)  # one ratio turns between plus and minus 0.01 for each doubling


def sampled_limit(seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[PruningLimit, float]:
    """The limit by samples of 160, 640 and 2,560 examples in all, and the exact one."""
    monkeypatch.setattr(samples, "_ALL_AT_ONCE", 1000)
    monkeypatch.setattr(samples, "_SMALLEST_BASE", 320)
    model, small = mlp_case(seed, examples=2560)
    inputs, targets = (torch.cat(parts) for parts in zip(*small, strict=True))
    batches = list(zip(inputs.split(400), targets.split(400), strict=True))
    limit = pruning_limit(model, batches, tolerance=0.02, seed=seed, max_products=160)
    eigenvalues = torch.linalg.eigvalsh(exact_curvature(model, batches)).numpy()
    magnitudes = Magnitudes(EmpiricalRisk(model, batches).flat_weights().numpy())
    exact = fixed_point(lambda scale: minimal_density(eigenvalues, scale, factor=absolute_filter), magnitudes, 0.02)
    return limit, 1 - exact


def test_limits_by_samples_hold_the_exact_limit_of_all_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [sampled_limit(seed, monkeypatch) for seed in range(3)]
    assert all(limit.bracket[0] <= exact <= limit.bracket[1] for limit, exact in found)
    first, again = found[0][0], sampled_limit(0, monkeypatch)[0]
    assert first.bracket == again.bracket
    assert first.sampling is not None
    assert (first.sampling.levels[0].examples, first.sampling.examples) == (160, 640)
    assert first.num_products < 160 / 2


def test_samples_that_cost_the_same() -> None:
    nested = samples.Samples(ends=(1, 2, 5, 17, 60), examples=(200, 800, 3200, 12_800, 50_000))
    assert list(nested.above(256)) == [(2, 64), (3, 16)]  # 4 steps over everything would show nothing
    assert list(nested.above(1024)) == [(2, 256), (3, 64), (4, 16)]
    assert (nested.base, nested.enough) == (1, 2)


def test_a_population_leaves_the_examples_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_ALL_AT_ONCE", 30)
    monkeypatch.setattr(samples, "_SMALLEST_BASE", 4)
    model, batches = mlp_case()
    found = {
        population: samples.risk_with_samples(model, batches, cross_entropy, ["0.weight"], population)
        for population in (None, 40, 80)
    }
    assert {population: made.examples for population, (_, made) in found.items()} == {
        None: (2, 8, 40),  # 32 is more than half of all
        40: (40,),
        80: (16, 40),
    }
    values = [risk.value() for risk, _ in found.values()]
    assert values[0] == pytest.approx(values[1])
    assert values[1] == values[2]


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
