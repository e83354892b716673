"""A task's dense network, studied whole: what Tables 1 and 2 and all figures but the fourth are drawn from."""

import itertools
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from howsparse.files import one_at_a_time, write_whole
from howsparse.limit.assess import Assessment, assess
from howsparse.limit.compute import Progress, PruningLimit, default_tolerance
from howsparse.limit.measure import Measured
from howsparse.linalg.rows import sample_rows
from howsparse.methods import Limits, Run, Stages
from howsparse.methods.stages import kept_file, write_limits
from howsparse.risk.curvature import Hessian
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.weights import prunable_weights
from howsparse.tasks import Task

__all__ = ["study"]

_POINTS = 200  # of a curve that is kept
_FACTORS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
_ROW_IMAGES = 10_000  # enough for the size of a row


def study(task: Task, seed: int, run: Run, progress: Progress = lambda stage, done, total: None) -> dict[str, Any]:
    """Train the task's network densely with its l1 term, compute its limit, measure it; kept in the run's folder.

    The limits are left where `howsparse.methods` looks for them, so that pruning to the "limit" costs nothing more.
    """
    stages = Stages(task, seed, run)
    model = task.network(seed)
    stages.train("dense with l1, for the limit", model, l1=task.recipe.l1)
    kept = kept_file(task, model, None, seed, run, "study")
    with one_at_a_time(kept):
        if kept is not None and kept.exists():
            known: dict[str, Any] = json.loads(kept.read_text())
            return known
        found = _computed(task, model, seed, run, kept, progress) | {
            "history": [asdict(stage) for stage in stages.history]
        }
        if kept is not None:
            write_whole(kept, lambda file: file.write_text(json.dumps(found, allow_nan=False)))
        return found


def _computed(
    task: Task, model: nn.Module, seed: int, run: Run, kept: Path | None, progress: Progress
) -> dict[str, Any]:
    answer = assess(
        model,
        task.train_batches(1000, run.images),
        task.test_batches(),
        tolerance=default_tolerance(EmpiricalRisk(model, task.train_batches(1000)))[0],
        population=len(task.train),
        max_products=run.max_products,
        seed=seed,
        keep=None if kept is None else kept.with_suffix(".products"),
        progress=progress,
    )
    limit = answer.limit
    limits = Limits(limit.sparsity, *limit.bracket, limit.upper_bound, limit.certified, limit.num_products)
    write_limits(limits, task, model, None, seed, run)
    return summary(answer, model) | {"rows": row_norms(model, task, run, progress)}


def summary(answer: Assessment, model: nn.Module) -> dict[str, Any]:
    """Numbers and curves, as JSON takes them."""
    limit = answer.limit
    return {
        "num_weights": limit.num_weights,
        "dense_accuracy": answer.on_test.dense.accuracy,
        "dense_loss": answer.on_train.dense.loss,
        "tolerance": limit.tolerance,
        "limit": limit.sparsity,
        "limit_low": limit.bracket[0],
        "limit_high": limit.bracket[1],
        "upper_bound": limit.upper_bound,
        "upper_low": limit.upper_bracket[0],
        "upper_high": limit.upper_bracket[1],
        "certified": limit.certified,
        "measured": answer.on_train.sparsity,
        "measured_by_accuracy": answer.on_test.sparsity_by_accuracy,
        "products": limit.num_products,
        "stopped": limit.stopped,
        "seconds": round(answer.seconds, 3),
        "curves": curves(answer),
        "weights": weight_statistics(limit, model),
        "scaled": scaled_weights(limit),
    }


def curves(answer: Assessment) -> dict[str, Any]:
    """Figure 3: loss and accuracy against sparsity, measured; the loss increase predicted."""
    limit = answer.limit
    few = np.unique(np.linspace(0, len(limit.losses.sparsities) - 1, _POINTS).astype(int))
    return {
        "train": points(answer.on_train),
        "test": points(answer.on_test),
        "predicted": {
            "sparsity": limit.losses.sparsities[few].tolist(),
            "increase": limit.losses.increases[few].tolist(),
        },
    }


def points(measured: Measured) -> dict[str, list[float | None]]:
    return {
        "sparsity": [point.sparsity for point in measured.curve],
        "loss": [point.loss for point in measured.curve],
        "accuracy": [point.accuracy for point in measured.curve],
    }


def weight_statistics(limit: PruningLimit, model: nn.Module) -> dict[str, Any]:
    """Figure 2: how large the weights are, and the squared radius against the density."""
    weights = torch.cat([w.detach().flatten() for w in prunable_weights(model).values()]).cpu().numpy()
    edge = float(np.quantile(np.abs(weights), 0.999))
    counts, edges = np.histogram(weights, bins=101, range=(-edge, edge))
    densities = np.linspace(0, 1, _POINTS + 1).tolist()
    return {
        "histogram": {"counts": counts.tolist(), "low": float(edges[0]), "high": float(edges[-1])},
        "density": densities,
        "squared_radius": [limit.magnitudes.radius(density) ** 2 for density in densities],
    }


def scaled_weights(limit: PruningLimit) -> dict[str, list[float]]:
    """Appendix E.1: the limit had the weights been larger by a factor, the spectrum being what it is.

    Only tolerance / R^2 counts, so that is the limit under a tolerance smaller by the factor's square.
    """
    limits = [limit.at(tolerance=limit.tolerance / factor**2) for factor in _FACTORS]
    return {
        "factor": list(_FACTORS),
        "limit": [scaled.sparsity for scaled in limits],
        "limit_low": [scaled.bracket[0] for scaled in limits],
        "limit_high": [scaled.bracket[1] for scaled in limits],
    }


def row_norms(model: nn.Module, task: Task, run: Run, progress: Progress) -> dict[str, list[float]]:
    """Appendix B: l1 norms of Hessian rows by their weights' magnitude; a quarter as many as the limit's products."""
    images = min(_ROW_IMAGES, len(task.train) if run.images is None else run.images)
    risk, count, done = (
        EmpiricalRisk(model, task.train_batches(1000, images)),
        run.max_products // 4,
        itertools.count(1),
    )
    show = partial(progress, "Hessian rows")
    rows = sample_rows(Hessian(risk), risk.flat_weights(), count, on_row=lambda: show(next(done), count))
    return {"percentile": rows.percentiles.tolist(), "norm": rows.norms.tolist()}
