"""Tries many inputs on this package: none may end in a traceback, a hang, code run from data, or a lost file.

    python -m benchmarks.fuzz [KIND ...] [--inputs 20000] [--seed 0] [--record results/reliability.jsonl]

`make fuzz` runs it. It writes a line for each kind with how many inputs were tried and how many were faults, and prints
one input for each place where a fault was. The same seed gives the same inputs.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks.commands import own_command
from benchmarks.fuzz_inputs import KINDS, Attempt
from benchmarks.fuzz_samples import fill
from benchmarks.fuzz_sandbox import Sandbox
from howsparse.records import Measurement, append_record, provenance

__all__ = ["main", "try_kind"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, default=Path("results/reliability.jsonl"))
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}
    torch.set_num_threads(1)
    record, found, parts = options.record.resolve(), 0, sum(KINDS[kind][1] for kind in options.kinds)
    for kind in options.kinds:
        share = -(-options.inputs * KINDS[kind][1] // parts)
        began = time.monotonic()
        tried, refused, faults = try_kind(kind, share, options.seed, fill)
        found += len(faults)
        for fault, (count, shown) in sorted(faults.items()):
            print(f"{kind}: {fault}\n    {count} times, for example {shown}", file=sys.stderr, flush=True)
        numbers = {
            "tried": tried,
            "refused": refused,
            "wrong": sum(count for count, _ in faults.values()),
            "seed": options.seed,
        }
        print(kind, numbers, f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        made = provenance(own_command("benchmarks.fuzz"))
        append_record(Measurement(kind="reliability", made=made, check=f"{kind}, fuzzed", **numbers), record)
    sys.exit(found > 0)


def try_kind(
    kind: str, inputs: int, start: int, sample: Callable[[], None]
) -> tuple[int, int, dict[str, tuple[int, str]]]:
    """Try inputs of a kind.

    Returns:
        How many were tried, how many were refused, and for each fault how often it was,
        and the shortest input that had it.
    """
    faults: Counter[str] = Counter()
    shortest: dict[str, str] = {}
    tried = 0
    sandbox = Sandbox(sample)

    @seed(start)
    @settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(attempt=KINDS[kind][0])
    def each(attempt: Attempt) -> None:
        nonlocal tried
        tried += 1
        torch.manual_seed(0)
        fault = sandbox.fault(attempt.call, attempt.may_change)
        sandbox.restore()
        if fault is not None:
            faults[fault] += 1
            shortest[fault] = min(shortest.get(fault, attempt.shown), attempt.shown, key=len)

    try:
        each()
    finally:
        sandbox.close()
    return tried, sandbox.refused, {fault: (count, shortest[fault]) for fault, count in faults.items()}


if __name__ == "__main__":
    main()
