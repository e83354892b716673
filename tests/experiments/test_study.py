"""A whole run on digits: the study agrees with what the library says of the same network, and is not done twice."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from howsparse import magnitude_mask, prunable_weights, pruning_limit
from howsparse.experiments.compare import Case, find_record, run_whole
from howsparse.experiments.study import study
from howsparse.geometry import Magnitudes, absolute_filter
from howsparse.limit.bracket import solve_bracket
from howsparse.linalg.rows import sample_rows
from howsparse.methods import Run, Stages
from howsparse.pruning.prune import pruned
from howsparse.risk.curvature import Hessian
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.evaluate import evaluate
from howsparse.tasks import load_task


def flat_weights(model: nn.Module) -> Tensor:
    return torch.cat([w.detach().flatten() for w in prunable_weights(model).values()])


def test_a_run_is_one_record_for_all_tables(tmp_path: Path) -> None:
    task = load_task("digits").with_recipe(epochs=6)
    run = Run(tmp_path, max_products=40)
    record = json.loads(json.dumps(run_whole(task, Case("one_shot", "limit", 0), run), allow_nan=False))
    studied = record["study"]

    model = task.network(0)
    Stages(task, 0, run).train("again", model, l1=task.recipe.l1)
    limit = pruning_limit(model, task.train_batches(1000), max_products=40, tolerance=studied["tolerance"])
    assert studied["limit"] == limit.sparsity
    assert (studied["limit_low"], studied["limit_high"]) == limit.bracket
    assert studied["upper_bound"] == limit.upper_bound
    assert record["sparsity"] == pytest.approx(limit.sparsity, abs=1 / 6464)
    with pruned(model, magnitude_mask(model, limit.sparsity)):
        assert record["accuracy"] == evaluate(model, task.test_batches())[1]
    assert studied["dense_accuracy"] == evaluate(model, task.test_batches())[1]

    weights = torch.cat([p.detach().flatten() for p in model.parameters() if p.ndim > 1]).abs().sort().values.double()
    for density, squared in zip(
        studied["weights"]["density"][::20], studied["weights"]["squared_radius"][::20], strict=True
    ):
        smallest = weights[: round((1 - density) * len(weights))]
        assert squared == pytest.approx(float(smallest.square().sum()), rel=0.05, abs=1e-3)
    assert sum(studied["weights"]["histogram"]["counts"]) == pytest.approx(6464, rel=0.01)
    assert studied["curves"]["test"]["sparsity"] == sorted(studied["curves"]["test"]["sparsity"])

    scaled = studied["scaled"]
    thrice = scaled["factor"].index(3.0)
    larger = Magnitudes(3 * flat_weights(model).numpy())
    same_spectrum = solve_bracket(limit.spectrum, larger, limit.tolerance, absolute_filter)
    assert scaled["limit_low"][thrice] == pytest.approx(same_spectrum.low, abs=1e-4)
    assert scaled["limit_high"][thrice] == pytest.approx(same_spectrum.high, abs=1e-4)
    assert scaled["limit"][0] == limit.sparsity

    rows = sample_rows(Hessian(EmpiricalRisk(model, task.train_batches(1000))), flat_weights(model), 10)
    assert studied["rows"] == {"percentile": rows.percentiles.tolist(), "norm": pytest.approx(rows.norms)}

    again = Case("one_shot", "limit", 0)
    assert find_record([record], task, again, run, kind="run") == record
    assert find_record([record], task, again, run) is None
    assert find_record([record], task, Case("one_shot", "limit", 1), run, kind="run") is None
    assert find_record([record], task.with_recipe(epochs=7), again, run, kind="run") is None


def test_a_study_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("digits").with_recipe(epochs=2)
    first = study(task, 0, Run(tmp_path, max_products=32))
    monkeypatch.delattr("howsparse.experiments.study.assess")
    assert study(task, 0, Run(tmp_path, max_products=32)) == json.loads(json.dumps(first))
