"""Tests of paired outcomes: whether one network is worse than another by less than a bound. No model is needed here.

Both tests hold for every number of examples, without an approximation, if the examples are independent draws from one
population. Use `paired_p_value` for outcomes that are right or wrong, and `betting_p_value` for other scores and for
losses. Their proofs are in ``docs/theory.md``, section "Certified".
"""

from functools import lru_cache
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

__all__ = ["Test", "betting_p_value", "paired_p_value", "smallest_sample"]

Test = Literal["exact paired", "betting"]
Array = NDArray[np.float64]

_SHARE = 0.01  # of the level, spent on the bound for the rate of changed outcomes
_TAIL = 1e-13  # probability that a sum may leave out on either side; it is added to the p-value
_ROUNDING = 1 + 1e-9  # more than the rounding errors of the sums
_PRECISION = 0.005  # relative gap to the largest probability found at which an interval is not cut any more
_LARGEST_BET = 0.5  # as a share of the bet that one example could turn into a loss of everything


@lru_cache(maxsize=65536)
def paired_p_value(lost: int, won: int, num_examples: int, max_drop: float, level: float = 0.05) -> float:
    """Exact p-value of the hypothesis "the rate of lost pairs minus the rate of won pairs is at least ``max_drop``".

    A pair is lost if only the first network is right. It is won if only the second network is right. The statistic is
    the number of lost pairs minus the number of won pairs, less its mean under the hypothesis, in standard deviations.
    Its distribution also depends on the rate of all changed pairs, which is unknown. A Clopper-Pearson bound limits
    this rate, and the p-value is the largest probability over all rates up to the bound, plus the probability that the
    bound fails (Berger and Boos, 1994). The maximum over the rates is bounded from above on small intervals, so the
    p-value is never too small.

    Args:
        lost: number of lost pairs.
        won: number of won pairs.
        num_examples: number of all pairs.
        max_drop: the difference of the two rates under test, in (0, 1).
        level: level with which the p-value will be compared; 1 % of it is spent on the bound for the rate.

    Returns:
        The p-value. If the hypothesis is true, it is at most ``level`` with a probability of at most ``level``.

    Source: Berger and Boos (1994), P values maximized over a confidence set for the nuisance parameter.

    >>> round(paired_p_value(lost=9, won=4, num_examples=2000, max_drop=0.01), 3)
    0.001
    """
    spent = _SHARE * level
    changed = lost + won
    highest = (
        1.0 if changed == num_examples else float(scipy.stats.beta.isf(spent, changed + 1, num_examples - changed))
    )
    if highest < max_drop:
        return spent
    return min(1.0, spent + _largest_probability(lost, won, num_examples, max_drop, highest, spent))


def betting_p_value(drops: Array, max_drop: float, level: float = 0.05) -> float:
    """p-value of the hypothesis "the mean of the population is at least ``max_drop``", for values in [-1, 1].

    A player starts with a capital of 1. Before each value, the player bets that it is below ``max_drop``. If the
    hypothesis is true, no strategy wins on average, and the capital reaches 1 / p with a probability of at most p
    (Ville's inequality). The bets depend on the variance of the values before (Waudby-Smith and Ramdas, 2024, the
    predictable plug-in for a fixed number of values).

    Args:
        drops: one value for each example, in [-1, 1], shape (n,), in the order of the examples.
        max_drop: the mean under test, in (0, 1).
        level: level with which the p-value will be compared. The bets are the best ones for this level.

    Returns:
        The p-value. If the hypothesis is true, it is at most any number p with a probability of at most p.

    Source: Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting.

    >>> betting_p_value(np.zeros(1000), 0.01) < 0.01
    True
    """
    if len(drops) == 0:
        return 1.0
    before = np.arange(1, len(drops) + 1)
    means = np.cumsum(drops) / (before + 1)
    variances = (0.25 + np.cumsum((drops - means) ** 2)) / (before + 1)
    known = np.concatenate([[0.25], variances[:-1]])  # the variance of the values before each one
    bets = np.minimum(np.sqrt(2 * np.log(1 / level) / (len(drops) * known)), _LARGEST_BET / (1 - max_drop))
    capital = np.cumsum(np.log1p(bets * (max_drop - drops)))
    return float(np.exp(-max(0.0, float(capital.max()))))


def smallest_sample(max_drop: float, level: float = 0.05, test: Test = "exact paired") -> int:
    """The smallest number of examples with which a network that changes no outcome passes the test.

    Args:
        max_drop: the drop under test, in (0, 1).
        level: level of the test.
        test: "exact paired" (`paired_p_value`) or "betting" (`betting_p_value`).

    Returns:
        A number of examples.

    >>> smallest_sample(0.01), smallest_sample(0.01, test="betting")
    (300, 597)
    """

    def passes(count: int) -> bool:
        if test == "betting":
            return betting_p_value(np.zeros(count), max_drop, level) <= level
        return paired_p_value(0, 0, count, max_drop, level) <= level

    high = 1
    while not passes(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def _largest_probability(lost: int, won: int, n: int, max_drop: float, highest: float, spent: float) -> float:
    """An upper bound for the probability of the observed statistic or a smaller one.

    The rate of changed pairs is any one from ``max_drop`` to ``highest``. On an interval of the rate, no probability is
    larger than that of the fewest losses and the most wins in it. The intervals on which this bound is far above the
    largest probability found are cut in four.
    """
    observed = (lost - won - n * max_drop) / (n * max_drop + 2 * won + 1) ** 0.5

    def probability(fewest: Array, most: Array) -> Array:
        return _probability(observed, n, max_drop, (fewest + max_drop) / 2, (most - max_drop) / 2)

    edges = np.linspace(max_drop, highest, 9)
    low, high = edges[:-1], edges[1:]
    found, bound = 0.0, 0.0
    while len(low):
        above = probability(low, high)
        found = max(found, float(probability(high, high).max()))
        rough = above > found + _PRECISION * (found + spent)
        bound = max(bound, float(above[~rough].max(initial=0.0)))
        parts = np.linspace(low[rough], high[rough], 5)
        low, high = parts[:-1].ravel(), parts[1:].ravel()
    return bound


def _probability(observed: float, n: int, max_drop: float, lost: Array, won: Array) -> Array:
    """An upper bound for P(statistic <= observed). Only rounding and tails are not exact.

    With W wins, the statistic is at most the observed one if there are at most c(W) losses; c does not fall with W.

    Args:
        observed: the observed statistic.
        n: number of pairs.
        max_drop: the difference of the rates under test.
        lost: probability of a loss, shape (K,).
        won: probability of a win, shape (K,).

    Returns:
        The probabilities, shape (K,).
    """
    first = int(scipy.stats.binom.ppf(_TAIL, n, won.min()))
    last = int(scipy.stats.binom.isf(_TAIL, n, won.max()))
    wins = np.arange(max(first, 0), min(last, n) + 1)[:, None]
    most = np.floor(wins + n * max_drop + observed * np.sqrt(n * max_drop + 2 * wins + 1) + 1e-9)
    few = scipy.stats.binom.cdf(most, n - wins, np.minimum(lost / (1 - won), 1.0))
    inside = np.sum(scipy.stats.binom.pmf(wins, n, won) * few, axis=0)
    outside = scipy.stats.binom.cdf(wins[0] - 1, n, won) + scipy.stats.binom.sf(wins[-1], n, won)
    result: Array = (inside + outside) * _ROUNDING
    return result
