"""How often a certificate is wrong, and what it can certify: simulations where the population is known.

    python -m benchmarks.certificates [--repetitions 1000] [--record results/certificates.jsonl]
        [--table docs/certificates.md]

- One test at the edge of what is allowed and just beyond it, where every certificate is wrong.
- Whole sequences of 20 masks whose drops are known. The outcomes of a mask are either new draws, or those of the mask
  before it with some more examples lost or won.
- A network on digits: its test images are the population, and held-out examples are drawn from them with replacement.
- Power: how often a true drop is certified, by the tests of this package and by two others.

One core needs about two minutes. Recorded settings are not run again.
"""

import argparse
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from benchmarks.certificates_page import page
from benchmarks.problems import test_images, train_images
from howsparse.files import write_whole
from howsparse.limit.paired import betting_p_value, paired_p_value
from howsparse.pruning.orders import rank
from howsparse.pruning.prune import pruned
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.risk.outcomes import Outcomes, outcomes
from howsparse.tasks import load_task
from howsparse.tasks.data import Batches
from howsparse.tasks.networks import kaiming_normal_

Array = NDArray[np.float64]
Setting = dict[str, Any]

LEVEL, MAX_DROP = 0.05, 0.01
SIZES, WON = (500, 2000, 10_000), (0.0, 0.005, 0.02)
STEPS = 20
EDGE = 12  # the first mask of a sequence that may not be certified
LOSS_BOUND, MAX_RISE = 5.0, 0.1
COMMAND = "python -m benchmarks.certificates"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--record", type=Path, default=Path("results/certificates.jsonl"))
    parser.add_argument("--table", type=Path, default=Path("docs/certificates.md"))
    options = parser.parse_args()
    done = [line["setting"] for line in read_lines(options.record)]
    for seed, setting in enumerate(settings(options.repetitions)):
        if setting not in done:
            found = SIMULATIONS[setting["study"]](np.random.default_rng(seed), setting)
            print(setting, found, file=sys.stderr)
            made = provenance(COMMAND)
            append_record(
                Measurement.model_validate(
                    {"kind": "certificates", "made": made, "setting": setting, "seed": seed, **found}
                ),
                options.record,
            )
    write_whole(options.table, lambda file: file.write_text(page(read_lines(options.record))))
    print(options.table.read_text())


def settings(repetitions: int) -> list[Setting]:
    """All settings, in the order of the page."""
    one = [
        {"study": "one test", "test": test, "n": n, "won": won, "drop": drop, "repetitions": repetitions}
        for test in ("exact", "betting")
        for drop in (MAX_DROP, 0.012)
        for won in WON
        for n in SIZES
    ]
    between = [
        {"study": "scores between", "test": "betting", "n": n, "drop": MAX_DROP, "repetitions": repetitions}
        for n in SIZES
    ]
    whole = [
        {"study": "sequence", "test": test, "n": n, "nested": nested, "repetitions": repetitions}
        for test in ("exact", "betting")
        for nested in (True, False)
        for n in SIZES
    ]
    network = [
        {"study": "network", "test": test, "n": n, "repetitions": repetitions}
        for test in ("exact", "betting", "loss")
        for n in (500, 2000)
    ]
    power = [
        {"study": "power", "n": n, "won": won, "drop": drop, "repetitions": repetitions // 2}
        for n in SIZES
        for won in (0.001, 0.005, 0.02)
        if n < 10_000 or won < 0.02  # these would take as long as all others together
        for drop in (0.0, 0.002, 0.004, 0.006)
    ]
    return [*one, *between, *whole, *network, *power]


def one_test(rng: np.random.Generator, setting: Setting) -> dict[str, Any]:
    """Certificates of one mask that loses at least as much as is allowed. Each one is wrong."""
    passes = TESTS[setting["test"]]
    return counted(sum(passes(drops) for drops in draws(rng, setting)), setting)


def scores_between(rng: np.random.Generator, setting: Setting) -> dict[str, Any]:
    """The same with scores between 0 and 1, most of them close to 0: 0.06 before pruning and 0.05 after, on average."""
    shape = (setting["repetitions"], setting["n"])
    before, after = rng.beta(0.24, 3.76, shape), rng.beta(0.2, 3.8, shape)
    return counted(sum(by_betting(drops) for drops in np.subtract(before, after)), setting)


def sequence(rng: np.random.Generator, setting: Setting) -> dict[str, Any]:
    """Sequences of masks with drops that rise by the same step; from mask ``EDGE`` on they are not allowed."""
    passes, n = TESTS[setting["test"]], setting["n"]
    certified = []
    for _ in range(setting["repetitions"]):
        luck, mask = rng.random(n), 1
        while mask <= STEPS:
            drop = MAX_DROP * mask / EDGE
            if not passes(np.where(luck < 1.5 * drop, 1.0, 0.0) - np.where(luck > 1 - 0.5 * drop, 1.0, 0.0)):
                break
            luck, mask = luck if setting["nested"] else rng.random(n), mask + 1
        certified.append(mask - 1)
    wrong = sum(mask >= EDGE for mask in certified)
    return counted(wrong, setting) | {"median_drop": MAX_DROP * float(np.median(certified)) / EDGE}


def network(rng: np.random.Generator, setting: Setting) -> dict[str, Any]:
    """Certificates of a network on digits, with held-out examples that are drawn from all images of the population."""
    sparsities, before, after = digits()
    n, passes = setting["n"], TESTS["exact" if setting["test"] == "exact" else "betting"]
    if setting["test"] == "loss":
        scale, allowed = LOSS_BOUND, MAX_RISE
        drops = np.array([np.clip(x.losses, 0, scale) - np.clip(before.losses, 0, scale) for x in after]) / scale
    else:
        scale, allowed = 1.0, MAX_DROP
        drops = np.array([scored(before) - scored(x) for x in after])
    true = scale * drops.mean(1)
    certified = []
    for _ in range(setting["repetitions"]):
        drawn, mask = rng.integers(drops.shape[1], size=n), 0
        while mask < len(drops) and passes(drops[mask, drawn], allowed / scale):
            mask += 1
        certified.append(mask - 1)
    wrong = sum(mask >= 0 and true[mask] > allowed for mask in certified)
    return counted(wrong, setting) | {
        "population": drops.shape[1],
        "true_limit": max([0.0, *(s for s, drop in zip(sparsities, true, strict=True) if drop <= allowed)]),
        "median_certified": float(np.median([sparsities[mask] if mask >= 0 else 0.0 for mask in certified])),
        "largest_true": max((float(true[mask]) for mask in certified if mask >= 0), default=0.0),
    }


def power(rng: np.random.Generator, setting: Setting) -> dict[str, Any]:
    """How often each test certifies a drop of at most ``MAX_DROP`` when the true drop is a smaller one."""
    passed = dict.fromkeys(TESTS, 0)
    for drops in draws(rng, setting):
        for name, passes in TESTS.items():
            passed[name] += passes(drops)
    return {name: count / setting["repetitions"] for name, count in passed.items()}


def draws(rng: np.random.Generator, setting: Setting) -> Iterator[Array]:
    """Drops of -1, 0 and 1 of independent examples, once for each repetition, in a random order."""
    won = setting["won"]
    for _ in range(setting["repetitions"]):
        luck = rng.random(setting["n"])
        yield np.where(luck < won + setting["drop"], 1.0, 0.0) - np.where(luck > 1 - won, 1.0, 0.0)


@cache
def digits() -> tuple[list[float], Outcomes, list[Outcomes]]:
    """Sparsities, and the outcomes before and after pruning on the population.

    The network is trained on the 360 images that are usually the test images; the other 1,437 are the population.
    """
    problem = load_task("digits")
    own, population = test_images(problem), Batches(train_images(problem))
    torch.manual_seed(0)
    model = problem.initial(0)
    kaiming_normal_(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(own.normalised(own.pixels)), own.labels).backward()
        optimizer.step()
    mask_at, found = rank(model, "magnitude").mask, []
    sparsities = [round(0.3 + 0.02 * step, 2) for step in range(26)]
    for sparsity in sparsities:
        with pruned(model, mask_at(sparsity)):
            found.append(outcomes(model, population))
    return sparsities, outcomes(model, population), found


def scored(found: Outcomes) -> Array:
    assert found.scores is not None
    return found.scores


def by_exact(drops: Array, max_drop: float = MAX_DROP) -> bool:
    return exact_decision(int((drops > 0).sum()), int((drops < 0).sum()), len(drops), max_drop)


@cache
def exact_decision(lost: int, won: int, n: int, max_drop: float) -> bool:
    """Whether the exact test certifies. Less than one deviation below the mean, p-values are far above the level."""
    if lost - won - n * max_drop > -((n * max_drop + 2 * won + 1) ** 0.5):
        return False
    return paired_p_value(lost, won, n, max_drop, LEVEL) <= LEVEL


def by_betting(drops: Array, max_drop: float = MAX_DROP) -> bool:
    return betting_p_value(drops, max_drop, LEVEL) <= LEVEL


def by_two_bounds(drops: Array, max_drop: float = MAX_DROP) -> bool:
    """A Clopper-Pearson bound for each of the two rates, at half the level."""
    n, lost, won = len(drops), int((drops > 0).sum()), int((drops < 0).sum())
    highest = float(stats.beta.isf(LEVEL / 2, lost + 1, n - lost))
    lowest = float(stats.beta.ppf(LEVEL / 2, won, n - won + 1)) if won else 0.0
    return highest - lowest < max_drop


def by_normal(drops: Array, max_drop: float = MAX_DROP) -> bool:
    """The normal approximation, which promises nothing for a finite number of examples."""
    deviation = float(drops.std(ddof=1)) / len(drops) ** 0.5
    return bool(drops.mean() + stats.norm.isf(LEVEL) * deviation < max_drop)


TESTS = {"exact": by_exact, "betting": by_betting, "two bounds": by_two_bounds, "normal": by_normal}
SIMULATIONS = {
    "one test": one_test,
    "scores between": scores_between,
    "sequence": sequence,
    "network": network,
    "power": power,
}


def counted(wrong: int, setting: Setting) -> dict[str, Any]:
    """Number of wrong certificates, and the exact 95 % interval of their probability."""
    interval = stats.binomtest(int(wrong), setting["repetitions"]).proportion_ci(0.95, "exact")
    return {"wrong": int(wrong), "low": float(interval.low), "high": float(interval.high)}


if __name__ == "__main__":
    main()
