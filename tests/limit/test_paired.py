"""The tests of paired outcomes against enumeration of all outcomes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, stats

from howsparse.limit.paired import betting_p_value, paired_p_value, smallest_sample

Array = NDArray[np.float64]


def trinomial(n: int, lost: Array, won: Array) -> dict[tuple[int, int], Array]:
    """Probability of each number of lost and won pairs, by the formula with factorials."""
    return {
        (a, b): math.comb(n, a) * math.comb(n - a, b) * lost**a * won**b * (1 - lost - won) ** (n - a - b)
        for a in range(n + 1)
        for b in range(n + 1 - a)
    }


def by_grid(lost: int, won: int, n: int, max_drop: float, level: float) -> float:
    """The p-value with the largest probability over a fine grid of rates in place of the proven bound."""
    spent = 0.01 * level
    changed = lost + won
    highest = 1.0
    if changed < n:
        highest = float(optimize.brentq(lambda rate: stats.binom.cdf(changed, n, rate) - spent, 0.0, 1.0, xtol=1e-14))
    if highest < max_drop:
        return spent
    rates = np.linspace(max_drop, highest, 3001)
    chances = trinomial(n, (rates + max_drop) / 2, (rates - max_drop) / 2)

    def statistic(a: int, b: int) -> float:
        return (a - b - n * max_drop) / math.sqrt(n * max_drop + 2 * b + 1)

    extreme = [p for (a, b), p in chances.items() if statistic(a, b) <= statistic(lost, won) + 1e-9]
    total = sum(extreme, np.zeros_like(rates))
    return min(1.0, spent + float(total.max()))


@pytest.mark.parametrize(
    ("n", "max_drop", "level"), [(1, 0.5, 0.05), (7, 0.2, 0.1), (16, 0.05, 0.05), (30, 0.15, 0.01)]
)
def test_p_value_is_the_largest_probability_and_never_below_it(n: int, max_drop: float, level: float) -> None:
    pairs = [(a, b) for a in range(n + 1) for b in range(n + 1 - a)]
    for lost, won in pairs[:: 1 + len(pairs) // 60]:
        expected = by_grid(lost, won, n, max_drop, level)
        found = paired_p_value(lost, won, n, max_drop, level)
        assert expected - 1e-12 <= found <= 1.006 * expected + 1e-4


@pytest.mark.parametrize("n", [4, 13, 30])
@pytest.mark.parametrize("max_drop", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("level", [0.05, 0.2])
def test_a_true_hypothesis_is_rejected_at_most_as_often_as_promised(n: int, max_drop: float, level: float) -> None:
    drops, rest = np.meshgrid(np.linspace(max_drop, 1.0, 7), np.linspace(0.0, 1.0, 41))
    won = rest * (1 - drops) / 2  # lost = won + drop, and lost + won is at most 1
    chances = trinomial(n, won + drops, won)
    rejected = [p for (a, b), p in chances.items() if paired_p_value(a, b, n, max_drop, level) <= level]
    rate = sum(rejected, np.zeros_like(won))
    assert rate.max() <= level
    if n == 30 and max_drop == 0.4:
        assert rate.max() > level / 4  # it does reject


def test_two_thousand_examples_are_enough_for_a_point() -> None:
    """The counts are expected ones at true drops of 0.2 and 0.5 points with 1 % and 2 % of outcomes changed."""
    assert paired_p_value(12, 8, 2000, 0.01) < 0.05
    assert paired_p_value(25, 15, 2000, 0.01) > 0.05
    assert paired_p_value(25, 15, 5000, 0.01) < 0.05
    assert paired_p_value(0, 0, 2000, 0.01) < 0.01


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_losses_raise_the_p_value_and_wins_in_their_place_lower_it(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 400))
    lost = data.draw(st.integers(0, n - 1))
    won = data.draw(st.integers(0, n - 1 - lost))
    max_drop = data.draw(st.sampled_from([0.01, 0.05, 0.3]))
    slack = 1.006  # the bound on the maximum is within half a percent of it
    here = paired_p_value(lost, won, n, max_drop)
    assert 0 < here <= 1
    assert here <= slack * paired_p_value(lost + 1, won, n, max_drop)
    assert slack * here >= paired_p_value(lost - 1, won + 1, n, max_drop) if lost else True
    assert slack * here >= paired_p_value(lost, won, n, max_drop + 0.01)
    assert here == paired_p_value(lost, won, n, max_drop)


@pytest.mark.parametrize("max_drop", [0.03, 0.2, 0.9])
def test_smallest_sample_is_the_first_that_passes(max_drop: float) -> None:
    exact = next(n for n in itertools.count(1) if paired_p_value(0, 0, n, max_drop, 0.1) <= 0.1)
    assert smallest_sample(max_drop, 0.1) == exact
    betting = next(n for n in itertools.count(1) if betting_p_value(np.zeros(n), max_drop, 0.1) <= 0.1)
    assert smallest_sample(max_drop, 0.1, "betting") == betting


def test_betting_is_a_game_played_in_order() -> None:
    """The capital of a player who computes each bet from the values before it, one after the other."""
    drops = np.random.default_rng(0).uniform(-0.3, 0.3, 200)
    capital, richest, seen = 1.0, 1.0, list[float]()
    means = list[float]()
    for drop in drops:
        spread = sum((x - m) ** 2 for x, m in zip(seen, means, strict=True))
        bet = min(math.sqrt(2 * math.log(20) / (200 * (0.25 + spread) / (len(seen) + 1))), 0.5 / 0.9)
        capital *= 1 + bet * (0.1 - drop)
        richest = max(richest, capital)
        seen.append(float(drop))
        means.append(sum(seen) / (len(seen) + 1))
    assert betting_p_value(drops, 0.1) == pytest.approx(1 / richest, rel=1e-12)


def test_betting_rejects_a_true_hypothesis_at_most_as_often_as_promised() -> None:
    """All 3^8 sequences of -1, 0 and 1, with their probabilities."""
    sequences = np.array(list(itertools.product([-1.0, 0.0, 1.0], repeat=8)))
    p_values = np.array([betting_p_value(sequence, 0.2) for sequence in sequences])
    wins, losses = (sequences == -1).sum(1), (sequences == 1).sum(1)
    for won in (0.0, 0.1, 0.4):
        chances = won**wins * (won + 0.2) ** losses * (0.8 - 2 * won) ** (8 - wins - losses)
        assert chances.sum() == pytest.approx(1)
        for level in np.unique(p_values):
            assert chances[p_values <= level].sum() <= level + 1e-12


def test_betting_on_values_between() -> None:
    """1,000 draws at the boundary of the hypothesis, whose mean is the largest allowed one, and 200 below it."""
    rng = np.random.default_rng(1)
    at = rng.beta(0.5, 4.5, (1000, 500)) - rng.beta(0.5, 9.5, (1000, 500))  # mean 0.1 - 0.05
    assert np.mean([betting_p_value(x, 0.05) <= 0.05 for x in at]) <= 0.05
    below = rng.beta(0.5, 9.5, (200, 500)) - rng.beta(0.5, 9.5, (200, 500))
    assert np.mean([betting_p_value(x, 0.05) <= 0.05 for x in below]) > 0.9


def test_no_examples_prove_nothing() -> None:
    assert betting_p_value(np.zeros(0), 0.01) == 1.0
