"""How often the bracket holds the exact limit, how near to an end that is, and how far the middle is off.

    python -m benchmarks.coverage [--matrices 2000] [--networks 100] [--record results/coverage.jsonl]

Matrices: random ones with known eigenvalues, in five shapes and with the spectra of small networks; after random
numbers of steps and probes. Networks: small ReLU networks on a few hundred digits; widths, l1 strength, length of
training, tolerance, reading of curvature, products and probes are random. Products are in float32; the truth is that of
the dense Hessian or Gauss-Newton matrix in float64.

Twice, the bracket is compared with what it must hold: with the limit of the eigenvalues, at 99 %, and, without the
probes' part, with the limit of the probes' own measures, always.

The typical error is fitted to the spectra of one half of the networks, and tried on all other cases.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import own_command
from benchmarks.coverage_matrices import SHAPES, Known, bracket_case
from benchmarks.coverage_networks import network_case
from howsparse.records import Measurement, append_record, provenance

_WITHIN = 0.9  # share of the cases whose error the typical error is to cover
_OUTER = 0.1  # this part of the bracket on either side counts as near to an end
_EQUAL = 1e-9  # two solutions of the same equation differ by so much


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matrices", type=int, default=2000)
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--record", type=Path, default=None)
    options = parser.parse_args()
    # Each fifth matrix has the spectrum of a network, and ten of them follow one another: each network is trained once.
    shapes = [SHAPES[0] if seed // 10 % 5 == 0 else SHAPES[1 + seed % 5] for seed in range(options.matrices)]
    with ProcessPoolExecutor(options.processes) as pool:
        matrices = list(pool.map(bracket_case, range(options.matrices), shapes, chunksize=10))
        networks = list(pool.map(network_case, range(options.networks), chunksize=5))
    result = {"confidence": 0.99, **matrix_results(matrices), **network_results(networks)}
    result |= {"typical_error": typical_errors(matrices, networks)}
    if options.record is not None:
        made = provenance(own_command("benchmarks.coverage"))
        append_record(Measurement(kind="coverage", made=made, **result), options.record)
    print(json.dumps(result, indent=2))


def matrix_results(cases: list[Known]) -> dict[str, Any]:
    return {
        "matrices": held((case.bracket.low, case.exact, case.bracket.high) for case in cases),
        "without_probe_part": held((case.alone.low, case.of_probes, case.alone.high) for case in cases),
        "by_shape": {
            shape: held((case.bracket.low, case.exact, case.bracket.high) for case in cases if case.shape == shape)
            for shape in SHAPES
        },
    }


def network_results(cases: list[dict[str, Any]]) -> dict[str, Any]:
    found = held((case["low"], case["exact"], case["high"]) for case in cases)
    found["median_error_of_middle"] = float(np.median([abs(case["limit"] - case["exact"]) for case in cases]))
    found["misses"] = [case for case in cases if not case["low"] <= case["exact"] <= case["high"]]
    return {"networks": found}


def held(cases: Iterable[tuple[float, float, float]]) -> dict[str, Any]:
    """Of (low, truth, high): how many truths are inside, and how many of those are near to an end."""
    low, truth, high = np.array(list(cases)).T
    inside = (low - _EQUAL <= truth) & (truth <= high + _EQUAL)
    margin = _OUTER * (high - low)
    near = inside & ((truth < low + margin) | (truth > high - margin))
    return {
        "cases": len(truth),
        "inside": int(inside.sum()),
        "share": float(inside.mean()),
        "in_outer_tenths": int(near.sum()),
        "median_width": float(np.median(high - low)),
    }


def typical_errors(matrices: list[Known], networks: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit the factors of quadrature and probe to every second network's spectra; count on the rest."""
    spectra = [(i // 50, case) for i, case in enumerate(matrices) if case.shape == "network"]
    fitted = [case for network, case in spectra if network % 2 == 0]
    quadrature = quantile(
        abs(case.alone.middle - case.of_probes) / case.alone.quadrature
        for case in fitted
        if case.alone.quadrature > 1e-6
    )
    probe = quantile(abs(case.of_probes - case.exact) / case.bracket.probe for case in fitted)

    def within(case: Known) -> bool:
        parts = case.bracket.quadrature * quadrature, case.bracket.probe * probe, case.bracket.rounding
        return abs(case.bracket.middle - case.exact) <= math.hypot(*parts)

    def network_within(case: dict[str, Any]) -> bool:
        parts = case["quadrature"] * quadrature, case["probe"] * probe, case["rounding"]
        return bool(abs(case["limit"] - case["exact"]) <= math.hypot(*parts))

    return {
        "quadrature_factor": quadrature,
        "probe_factor": probe,
        "fitted_cases": len(fitted),
        "within": {
            "other networks' spectra": share(within, [case for network, case in spectra if network % 2 == 1]),
            "networks": share(network_within, networks),
            **{shape: share(within, [case for case in matrices if case.shape == shape]) for shape in SHAPES[1:]},
        },
    }


def quantile(values: Iterable[float]) -> float:
    return float(np.quantile(list(values), _WITHIN))


def share(holds: Callable[[Any], bool], cases: list[Any]) -> dict[str, float]:
    return {"cases": len(cases), "share": float(np.mean([holds(case) for case in cases]))}


if __name__ == "__main__":
    main()
