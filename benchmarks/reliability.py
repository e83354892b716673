"""What this package promises of itself, tried: damage to kept files, threads, frozen weights, brackets, imports.

    python -m benchmarks.reliability [CHECK ...] [--trials 50] [--record results/reliability.jsonl]
        [--page docs/reliability.md]

Without names it runs every check, else those whose names end with one that is given, such as "cut". It writes a line
for each, and the page from the last line of each check.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import howsparse
from benchmarks.commands import own_command
from benchmarks.reliability_cost import growth_of_products, import_seconds
from benchmarks.reliability_kept import CASES, DAMAGES, copied_kinds, outcomes_of, summary
from benchmarks.reliability_page import page
from howsparse.files import load_document, save_document, save_tensors, write_whole
from howsparse.geometry import Magnitudes, absolute_filter, clipped_filter
from howsparse.limit.bracket import existence_bracket, solve_bracket
from howsparse.linalg import Spectrum, Tridiagonal
from howsparse.linalg.lanczos import Lanczos
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.store import digest

Check = Callable[[int], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", default=list(CHECKS))
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--record", type=Path, default=Path("results/reliability.jsonl"))
    parser.add_argument("--page", type=Path, default=Path("docs/reliability.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for check in [name for name in CHECKS if name.endswith(tuple(options.checks))]:
        found = CHECKS[check](options.trials)
        print(check, found, file=sys.stderr)
        made = provenance(own_command("benchmarks.reliability"))
        append_record(Measurement(kind="reliability", made=made, check=check, **found), options.record)
    write_whole(options.page, lambda file: file.write_text(page(read_lines(options.record))))


def kept(kind: str, damage: str, trials: int) -> dict[str, Any]:
    """What became of damaged files of one kind."""
    return summary(outcomes_of(CASES[kind], DAMAGES[damage], trials))


def digest_cost(trials: int) -> dict[str, Any]:
    """Processor time of the digest, beside that of writing and reading a product of 50 million weights."""
    product, file = torch.randn(50_000_000), Path("digest-cost.safetensors")

    def seconds(do: Callable[[], object]) -> float:
        began = time.process_time()
        do()
        return time.process_time() - began

    try:
        keep = partial(save_document, file, "product", 1, {}, {"product": product}, key="key")
        with_digest, without = min(seconds(keep) for _ in range(3)), min(
            seconds(lambda: save_tensors({"product": product}, file, {"howsparse": "{}"})) for _ in range(3)
        )  # fmt: skip
        keep()
        read = min(seconds(lambda: load_document(file, "product", 1, key="key")) for _ in range(3))
    finally:
        file.unlink(missing_ok=True)
    return {"gigabytes": 0.2, "write": with_digest, "write_without": without, "read": read}


def threads(trials: int) -> dict[str, Any]:
    """Four threads share a model; each answer must be that of one thread, and the model must come back."""
    wrong = 0
    for trial in range(trials):
        model, data = _network(trial, frozen=False), _data(trial)
        asked = [partial(ask, model, data) for ask in _ASKED]
        before, right = digest(dict(model.state_dict())), [ask() for ask in asked]
        with ThreadPoolExecutor(4) as pool:
            found = [each.result() for each in [pool.submit(ask) for ask in asked * 2]]
        wrong += found != right * 2 or digest(dict(model.state_dict())) != before
    return {"tried": trials, "wrong": wrong}


def frozen(trials: int) -> dict[str, Any]:
    """Networks with a frozen backbone: every answer is about the trained weights."""
    wrong = 0
    for trial in range(trials):
        model, data = _network(trial, frozen=True), _data(trial)
        limit = howsparse.pruning_limit(model, data, tolerance=0.05, max_products=32, progress=False)
        measured = howsparse.measure(model, data, max_drop=0.1, progress=False)
        masks = [limit.mask(model, 0.5), howsparse.magnitude_mask(model, measured.sparsity)]
        masks.append(howsparse.certify(model, data, max_drop=0.3, progress=False).mask)
        before = howsparse.outcomes(model, data).loss
        limit.mask(model, limit.predicted).apply_(model)
        rise = howsparse.outcomes(model, data).loss - before
        wrong += any(list(mask) != ["2.weight"] for mask in masks) or limit.names != ("2.weight",)
        wrong += abs(rise - (limit.checked_rise or 0.0)) > 1e-5
    return {"tried": trials, "wrong": wrong}


def brackets(trials: int) -> dict[str, Any]:
    """Both ends of both brackets are in order, for drawn spectra, scales and densities, and both filter factors."""
    draw, tried, wrong = np.random.default_rng(0), 0, 0
    for trial in range(40 * trials):
        size, steps = int(draw.integers(2, 40)), int(draw.integers(1, 12))
        values = draw.choice([1.0, 0.0, -1e-3], size) if trial % 2 else 10 ** draw.uniform(-8, 2, size)
        lanczos = Lanczos(partial(torch.mul, torch.from_numpy(values)), torch.from_numpy(draw.standard_normal(size)))
        while steps and lanczos.step():
            steps -= 1
        found: Tridiagonal = lanczos.tridiagonal
        spectrum = Spectrum((found,), size, positive=bool((values >= 0).all()))
        scale, density = 10 ** draw.uniform(-6, 4), draw.uniform(0.01, 0.99)
        for factor in (absolute_filter, clipped_filter):
            low, high = existence_bracket(spectrum, scale, density, factor)
            whole = solve_bracket(spectrum, Magnitudes(np.abs(draw.standard_normal(50))), scale, factor, search=False)
            tried, wrong = tried + 2, wrong + (low > high) + (whole.low > whole.high)
    return {"tried": tried, "wrong": wrong}


def _network(seed: int, frozen: bool) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(8, 32).requires_grad_(not frozen), nn.ReLU(), nn.Linear(32, 4))


def _data(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    inputs = torch.randn(600, 8, generator=torch.Generator().manual_seed(seed))
    return list(zip(inputs.split(300), inputs[:, :4].argmax(1).split(300), strict=True))


_ASKED: list[Callable[[nn.Module, Any], Any]] = [
    lambda model, data: howsparse.measure(model, data, max_rise=0.2, progress=False).sparsity,
    lambda model, data: howsparse.predict(model, data, tolerance=0.05, progress=False).sparsity,
    lambda model, data: howsparse.outcomes(model, data).losses.tolist(),
    lambda model, data: digest(dict(howsparse.magnitude_mask(model, 0.5))),
]

CHECKS: dict[str, Check] = {
    **{
        f"{kind}, {damage}": partial(kept, kind, damage)
        for damage in DAMAGES
        for kind in (copied_kinds() if damage == "copied over another" else CASES)
    },
    "digest": digest_cost,
    "threads": threads,
    "frozen": frozen,
    "brackets": brackets,
    "products": growth_of_products,
    "import": import_seconds,
}

if __name__ == "__main__":
    main()
