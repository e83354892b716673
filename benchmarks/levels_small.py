"""Random small networks for `benchmarks.levels`: their limit by nested samples beside the exact one over all images.

The images are 1,024 digits and the samples are far smaller, so the way from the base to all images decides. The truth
is that of the dense Hessian over all images, in float64.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

import howsparse
from benchmarks.coverage_networks import trained
from benchmarks.exact import dense_hessian
from benchmarks.problems import train_images
from howsparse.geometry import absolute_filter, fixed_point, minimal_density
from howsparse.limit.bracket import Bracket, solve_bracket
from howsparse.limit.result import PruningLimit
from howsparse.tasks import load_task

__all__ = ["small_case", "small_results"]

_POPULATION = 1024


def small_case(seed: int) -> dict[str, Any]:
    """A network's bracket by nested samples, and the exact limit."""
    rng = np.random.default_rng(seed)
    images = train_images(load_task("digits")).first(_POPULATION)
    inputs, targets = images.normalised(images.pixels), images.labels
    model = trained(inputs, targets, seed, rng)
    tolerance, sample = float(10 ** rng.uniform(-4, -1)), int(rng.choice([32, 64]))
    limit = howsparse.pruning_limit(
        model,
        list(zip(inputs.split(100), targets.split(100), strict=True)),
        tolerance=tolerance,
        sample=sample,
        probes=1,
        max_products=int(rng.choice([250, 400])),
        seed=seed,
    )
    exact = exact_limit(model, limit, inputs, targets)
    sampling, errors = limit.sampling, limit.errors
    assert sampling is not None
    assert sampling.above
    alone = solve_bracket(limit.spectrum, limit.magnitudes, tolerance, absolute_filter)
    return {
        "seed": seed,
        "num_weights": limit.num_weights,
        "samples": [(level.examples, level.spectrum.num_steps) for level in sampling.levels],
        "base": (sampling.examples, limit.spectrum.num_steps),
        "exact": exact,
        "low": errors.low,
        "high": errors.high,
        "quadrature": errors.quadrature,
        "probe": errors.probe,
        "data": errors.data,
        "middle": errors.middle,
        "middle_of_base": alone.middle,
        "needed": needed(errors, alone, exact),
    }


def needed(errors: Bracket, alone: Bracket, exact: float) -> float:
    """The part of the estimated error of the way from the base to all images with which the bracket holds the limit.

    Args:
        errors: the bracket over all images.
        alone: the bracket over the base.
        exact: the exact limit over all images.
    """
    if alone.high == alone.low:
        return 0.0 if errors.low <= exact <= errors.high else math.inf
    factor = (errors.quadrature + errors.probe + errors.rounding) / (alone.quadrature + alone.probe + alone.rounding)
    least, most = factor * (1 - alone.high), factor * (1 - alone.low)
    missing = max(0.0, least - (1 - exact), (1 - exact) - most)
    if missing == 0:
        return 0.0
    middle = (least + most) / 2
    return math.log1p(missing / middle) / math.log1p(errors.data / middle)


def exact_limit(model: nn.Module, limit: PruningLimit, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    """The limit over all images, from the dense Hessian."""
    eigenvalues = torch.linalg.eigvalsh(dense_hessian(model.double(), inputs, targets)).numpy()
    return 1 - fixed_point(
        lambda scale: minimal_density(eigenvalues, scale, factor=absolute_filter), limit.magnitudes, limit.tolerance
    )


def small_results(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """How often the bracket holds the exact limit, its mean half-width, and what the larger samples brought."""
    parts = [case["needed"] for case in cases]
    half_width = float(np.mean([(case["high"] - case["low"]) / 2 for case in cases]))
    return {
        "networks": len(cases),
        "examples": _POPULATION,
        "held": sum(_holds(case) for case in cases),
        "needed_of_fitted": float(np.quantile(parts[::2], 0.95)),
        "needed_of_others": float(np.quantile(parts[1::2], 0.95)),
        "half_width": half_width,
        "error": _rms(case["middle"] - case["exact"] for case in cases),
        "error_of_base": _rms(case["middle_of_base"] - case["exact"] for case in cases),
        "cases": cases,
    }


def _holds(case: dict[str, Any]) -> bool:
    return bool(case["low"] <= case["exact"] <= case["high"])


def _rms(errors: Iterable[float]) -> float:
    return float(np.sqrt(np.mean(np.square(list(errors)))))
