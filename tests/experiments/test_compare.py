"""Comparisons: which cases there are, which are run, and what a table makes of their records."""

import json
from pathlib import Path
from typing import Any

import pytest

from howsparse.errors import InputError
from howsparse.experiments import compare as module
from howsparse.experiments.compare import Case, cases, compare, rows, run_case
from howsparse.methods import Run, Sparsity
from methods_for_tests import small

RUN = Run(max_products=32)
RANDOM, DENSE = Case("random", 0.9, 0), Case("dense", 0.0, 0)


def test_cases_are_all_methods_sparsities_and_seeds() -> None:
    targets: list[Sparsity] = [0.5, "limit"]
    found = cases(iter(["random:layers=erk", "dense"]), iter(targets), 2)
    assert found == [
        Case("random:layers=erk", 0.5, 0),
        Case("random:layers=erk", "limit", 0),
        Case("dense", 0.0, 0),  # one for every sparsity
        Case("random:layers=erk", 0.5, 1),
        Case("random:layers=erk", "limit", 1),
        Case("dense", 0.0, 1),
    ]


@pytest.mark.parametrize("method", ["magic", "dense:rate=1", "lottery_ticket:rate=much"])
def test_cases_are_checked_before_any_is_run(method: str) -> None:
    with pytest.raises(InputError, match=r"magic|dense has no option|takes a value such as"):
        cases(["dense", method], [0.9], 1)


def test_a_record_says_what_came_out() -> None:
    record = json.loads(json.dumps(run_case(small(), RANDOM, RUN), allow_nan=False))
    assert (record["kind"], record["task"], record["method"]) == ("method", "digits", "random")
    assert (record["target"], record["seed"], record["data"]) == (0.9, 0, small().train.digest)
    assert (record["limit_images"], record["limit_max_products"]) == (None, 32)
    assert record["recipe"]["epochs"] == 5
    assert record["sparsity"] == pytest.approx(1 - 646 / 6464)
    assert 0 <= record["accuracy"] <= 1
    assert (record["epochs"], record["trainings"]) == (5, 1)
    assert [stage["name"] for stage in record["history"]] == ["training"]
    assert record["training_seconds"] == pytest.approx(record["history"][0]["seconds"], abs=1e-3)


def test_a_word_is_the_same_sparsity_for_every_method(tmp_path: Path) -> None:
    run, task = Run(tmp_path, max_products=32), small()
    records = [run_case(task, Case(name, "limit", 0), run) for name in ("one_shot", "random", "gradual")]
    assert len({record["sparsity"] for record in records}) == 1
    assert 0.1 < records[0]["sparsity"] < 0.999
    assert [record["epochs"] for record in records] == [5, 5, 5]  # what the word took is not the method's


def test_a_method_that_the_network_does_not_suit_is_recorded() -> None:
    record = run_case(small(), Case("smart_ratio", 0.9, 0), RUN)
    assert record["refused"] == "smart_ratio is for networks with convolutions, and this one has none"
    assert (record["method"], record["target"], record["seed"]) == ("smart_ratio", 0.9, 0)
    assert "accuracy" not in record


def test_compare_runs_what_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    task, told, run = small(), [], []
    first = list(compare(task, [DENSE, RANDOM], RUN, [], lambda case, known: told.append((case.method, known))))
    assert told == [("dense", False), ("random", False)]
    assert [new for _, new in first] == [True, True]
    recorded = [json.loads(json.dumps(record | {"commit": "abc"})) for record, _ in first]

    def pretend(task: object, case: Case, run_: Run) -> dict[str, Any]:
        run.append(case)
        return {}

    monkeypatch.setattr(module, "run_case", pretend)
    other = Case("random", 0.9, 1)
    again = list(compare(task, [RANDOM, other, DENSE], RUN, recorded))
    assert run == [other]
    assert again == [(recorded[1], False), ({}, True), (recorded[0], False)]
    for changed in (small(l1=0.5), small(epochs=6)):
        run.clear()
        list(compare(changed, [RANDOM], RUN, recorded))
        assert run == [RANDOM]
    for settings in (Run(max_products=33), Run(images=256, max_products=32)):
        run.clear()
        list(compare(task, [RANDOM], settings, recorded))
        assert run == [RANDOM]


def record(method: str, target: Sparsity, seed: int, accuracy: float, sparsity: float, epochs: int) -> dict[str, Any]:
    return {
        "method": method,
        "target": target,
        "seed": seed,
        "accuracy": accuracy,
        "sparsity": sparsity,
        "epochs": epochs,
        "trainings": 2 + seed,
    }


def test_rows_are_means_over_seeds() -> None:
    found = rows(
        [
            record("random", 0.9, 0, 0.80, 0.90, 10),
            record("random", "limit", 0, 0.70, 0.94, 10),
            record("random", 0.9, 1, 0.86, 0.90, 10),
            record("random", "limit", 1, 0.74, 0.96, 20),
            record("random", 0.9, 2, 0.83, 0.90, 10),
            record("dense", 0.0, 0, 0.95, 0.0, 10),
            {"method": "smart_ratio", "target": 0.9, "seed": 0, "refused": "no convolution"},
        ]
    )
    assert [(row["method"], row["target"]) for row in found] == [
        ("random", 0.9),
        ("random", "limit"),
        ("dense", 0.0),
        ("smart_ratio", 0.9),
    ]
    fixed, limit, dense, refused = found
    assert fixed["seeds"] == [0, 1, 2]
    assert fixed["accuracies"] == [0.80, 0.86, 0.83]
    assert fixed["accuracy"] == pytest.approx(0.83)
    assert fixed["accuracy_deviation"] == pytest.approx(0.03)  # of a sample: 0.0018 / 2 under the root
    assert (fixed["epochs"], fixed["trainings"]) == (10, 3)
    assert limit["sparsity"] == pytest.approx(0.95)
    assert limit["accuracy"] == pytest.approx(0.72)
    assert limit["accuracy_deviation"] == pytest.approx(0.0282842712)
    assert limit["epochs"] == 15
    assert (dense["accuracy"], dense["accuracy_deviation"]) == (0.95, None)
    assert refused == {"method": "smart_ratio", "target": 0.9, "refused": "no convolution"}
    json.dumps(found, allow_nan=False)
