"""A whole run on digits: the study agrees with what the library says of the same network, and is not done twice."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from howsparse import magnitude_mask, prunable_weights, pruning_limit
from howsparse.experiments.compare import Case, case_key, find_record, run_case
from howsparse.experiments.study import study
from howsparse.geometry import Magnitudes, absolute_filter
from howsparse.limit.bracket import solve_bracket
from howsparse.limit.options import LimitOptions
from howsparse.linalg.rows import sample_rows
from howsparse.methods import Run, Stages
from howsparse.pruning.prune import pruned
from howsparse.risk.curvature import Hessian
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.evaluate import evaluate
from howsparse.tasks import load_task

RESOLVING = LimitOptions(max_products=48, curvature="ggn")  # a bracket of less than ten points


def flat_weights(model: nn.Module) -> Tensor:
    return torch.cat([w.detach().flatten() for w in prunable_weights(model).values()])


def test_a_run_is_one_record_for_all_tables(tmp_path: Path) -> None:
    task = load_task("digits", epochs=6)
    run = Run(tmp_path, limit=RESOLVING)
    made = run_case(task, Case("one_shot", "limit", 0), run, whole=True)
    record = json.loads(json.dumps(made.model_dump(mode="json"), allow_nan=False))
    studied = record["study"]
    answer = studied["answer"]

    model = task.initial(0)
    Stages(task, 0, run).train("again", model, l1=task.l1)
    limit = pruning_limit(model, task.study_batches(), options=RESOLVING, tolerance=answer["tolerance"])
    assert limit.resolved
    assert answer["limit"] == limit.sparsity
    assert (answer["limit_low"], answer["limit_high"]) == limit.bracket
    assert (answer["upper_low"], answer["upper_high"]) == limit.upper_bracket
    assert answer["upper_bound"] is None  # 38 products leave the lower end of U's bracket at 1 - 2 T
    assert math.isnan(limit.upper_bound)
    assert record["sparsity"] == pytest.approx(limit.sparsity, abs=1 / 6464)
    with pruned(model, magnitude_mask(model, limit.sparsity)):
        assert record["accuracy"] == evaluate(model, task.test)[1]
    assert studied["dense_accuracy"] == evaluate(model, task.test)[1]

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
    widths = [high - low for low, high in zip(scaled["limit_low"], scaled["limit_high"], strict=True)]
    assert [middle is None for middle in scaled["limit"]] == [width > 0.1 for width in widths]
    assert scaled["limit"][-1] is None

    rows = sample_rows(Hessian(EmpiricalRisk(model, task.study_batches())), flat_weights(model), 12)
    assert studied["rows"] == {"percentile": rows.percentiles.tolist(), "norm": pytest.approx(rows.norms)}

    again = Case("one_shot", "limit", 0)
    assert find_record([made], case_key(task, again, run, "run")) == made
    others = [
        case_key(task, again, run, "method"),
        case_key(task, Case("one_shot", "limit", 1), run, "run"),
        case_key(load_task("digits", epochs=7), again, run, "run"),
        case_key(task, again, replace(run, examples=1000), "run"),
        case_key(task, again, replace(run, limit=replace(RESOLVING, precision=0.1)), "run"),
    ]
    assert [find_record([made], key) for key in others] == [None] * len(others)


def test_a_study_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("digits", epochs=2)
    run = Run(tmp_path, limit=LimitOptions(max_products=32))
    first = study(task, 0, run)
    monkeypatch.delattr("howsparse.experiments.study.limit_of")
    assert study(task, 0, run) == first


def test_a_sample_has_one_target_whatever_ran_before(tmp_path: Path) -> None:
    """With a sample of the examples, study and methods find the same limit, in either order."""
    task, run = load_task("digits", epochs=2), Run(examples=1100, limit=RESOLVING)
    alone = run_case(task, Case("random", "limit", 0), replace(run, folder=tmp_path / "alone"))
    after = replace(run, folder=tmp_path / "after")
    studied = study(task, 0, after)
    assert studied.answer.error_data is not None
    assert studied.answer.error_data > 0
    assert run_case(task, Case("random", "limit", 0), after).sparsity == alone.sparsity
    assert alone.sparsity == pytest.approx(studied.answer.limit, abs=1 / 6464)
