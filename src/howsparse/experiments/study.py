"""The study of a problem's dense network: all numbers for Tables 1 and 2, and for all figures except Figure 4."""

import itertools
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from howsparse.limit.assess import measure_both
from howsparse.limit.measure import Measured
from howsparse.limit.result import PruningLimit
from howsparse.linalg import sample_rows
from howsparse.methods import Run, Stages
from howsparse.methods.limits import limit_of, network_inputs
from howsparse.problem import Problem
from howsparse.records import Study
from howsparse.records.types import (
    Curve,
    Curves,
    Histogram,
    PredictedCurve,
    RowNorms,
    ScaledLimits,
    WeightStatistics,
)
from howsparse.risk import EmpiricalRisk, Hessian, select_weights
from howsparse.store import Kind, Store

__all__ = ["study"]

_POINTS = 200  # largest number of points of a recorded curve
_FACTORS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
_ROW_EXAMPLES = 10_000  # examples for Hessian rows; enough for the size of a row
_ROWS_PART = 4  # one row is sampled for this many products of the limit


def study(problem: Problem, seed: int, run: Run) -> Study:
    """Train the problem's network densely with its l1 term, compute its limit and measure it.

    The run's folder stores the study, the training and the limit. Methods that prune to the "limit" read both there.

    Args:
        problem: the problem to train.
        seed: seed of initialisation, batches and probes.
        run: folder, options of limits, and callbacks.

    Returns:
        The numbers of the study, as in records.

    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> problem = Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=1)
    >>> found = study(problem, seed=0, run=Run())
    >>> found.answer.num_weights, found.curves.test.sparsity[0], 0 <= found.measured <= 1
    (24, 0.0, True)
    """
    stages = Stages(problem, seed, run)
    model = problem.initial(seed)
    stages.train("dense with l1, for the limit", model, l1=problem.l1)

    def compute(workspace: Path | None) -> Study:
        return _study(problem, model, stages, seed, run)

    inputs = network_inputs(problem, model) | {"problem": problem.settings()}
    options = {"seed": seed, "examples": run.examples, "limit": run.limit}
    return Store(run.folder).get(_STUDY, inputs, options, compute)


def _study(problem: Problem, model: nn.Module, stages: Stages, seed: int, run: Run) -> Study:
    began = time.perf_counter()
    limit = limit_of(problem, model, None, seed, run)
    train, test = measure_both(
        model, limit, problem.study_batches(run.examples), problem.test, problem.loss, run.on_limit, fine=True
    )
    seconds = round(time.perf_counter() - began, 3)
    return Study(
        answer=limit.summary(),
        dense_accuracy=test.dense.accuracy,
        dense_loss=train.dense.loss,
        measured=train.sparsity,
        measured_by_accuracy=test.sparsity_by_accuracy,
        seconds=seconds,
        curves=Curves(train=curve(train), test=curve(test), predicted=predicted(limit)),
        weights=weight_statistics(limit, model),
        scaled=scaled_limits(limit),
        rows=row_norms(problem, model, run),
        history=list(stages.history),
    )


def curve(measured: Measured) -> Curve:
    """Figure 3: measured loss and accuracy by sparsity."""
    return Curve(
        sparsity=[point.sparsity for point in measured.curve],
        loss=[point.loss for point in measured.curve],
        accuracy=[point.accuracy for point in measured.curve],
    )


def predicted(limit: PruningLimit) -> PredictedCurve:
    """The predicted loss increase at 200 of its points."""
    few = np.unique(np.linspace(0, len(limit.losses.sparsities) - 1, _POINTS).astype(int))
    return PredictedCurve(sparsity=limit.losses.sparsities[few].tolist(), increase=limit.losses.increases[few].tolist())


def weight_statistics(limit: PruningLimit, model: nn.Module) -> WeightStatistics:
    """Figure 2: histogram of the weights, and the squared radius by density."""
    chosen = select_weights(model, limit.names)
    weights = torch.cat([w.detach().flatten() for w in chosen.values()]).cpu().numpy()
    edge = float(np.quantile(np.abs(weights), 0.999))
    counts, edges = np.histogram(weights, bins=101, range=(-edge, edge))
    densities = np.linspace(0, 1, _POINTS + 1).tolist()
    return WeightStatistics(
        histogram=Histogram(counts=counts.tolist(), low=float(edges[0]), high=float(edges[-1])),
        density=densities,
        squared_radius=[limit.magnitudes.radius(density) ** 2 for density in densities],
    )


def scaled_limits(limit: PruningLimit) -> ScaledLimits:
    """Appendix E.1: the limit for weights that are multiplied by a factor, with the same spectrum.

    The limit depends on tolerance / R^2 only, so this is the limit for the tolerance divided by the factor squared.
    """
    limits = [limit.at(tolerance=limit.tolerance / factor**2) for factor in _FACTORS]
    return ScaledLimits(
        factor=list(_FACTORS),
        limit=[scaled.sparsity if scaled.resolved else None for scaled in limits],
        limit_low=[scaled.bracket[0] for scaled in limits],
        limit_high=[scaled.bracket[1] for scaled in limits],
    )


def row_norms(problem: Problem, model: nn.Module, run: Run) -> RowNorms:
    """Appendix B: l1 norms of Hessian rows by the magnitude of their weights.

    Args:
        problem: the problem with the training data.
        model: the network.
        run: number of examples, options of limits, and progress.
    """
    examples = min(_ROW_EXAMPLES, problem.num_examples if run.examples is None else run.examples)
    risk = EmpiricalRisk(model, problem.study_batches(examples), problem.loss)
    count, done = run.limit.max_products // _ROWS_PART, itertools.count(1)
    show = partial(run.on_limit, "Hessian rows")
    rows = sample_rows(Hessian(risk), risk.flat_weights(), count, on_row=lambda: show(next(done), count))
    return RowNorms(percentile=rows.percentiles.tolist(), norm=rows.norms.tolist())


def _pack(found: Study) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return found.model_dump(mode="json"), {}


def _unpack(fields: dict[str, Any], tensors: dict[str, Tensor]) -> Study:
    return Study.model_validate_json(json.dumps(fields))  # as JSON, lists are read as tuples where these are expected


_STUDY = Kind("study", 1, _pack, _unpack)
