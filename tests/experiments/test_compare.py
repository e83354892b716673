"""Comparisons: which cases there are, which are run, and what a table makes of their records."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from howsparse.errors import InputError
from howsparse.experiments import compare as module
from howsparse.experiments.compare import Case, cases, compare, run_case
from howsparse.experiments.summary import rows, tables
from howsparse.limit.options import LimitOptions
from howsparse.methods import Run, Sparsity
from howsparse.records import CaseKey, CaseRecord, provenance, settings_hash
from methods_for_tests import small

RUN = Run(limit=LimitOptions(max_products=32))
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


@pytest.mark.parametrize("method", ["magic", "dense:fraction=1", "lottery_ticket:fraction=much"])
def test_cases_are_checked_before_any_is_run(method: str) -> None:
    with pytest.raises(InputError, match=r"magic|dense has no option|does not take"):
        cases(["dense", method], [0.9], 1)


def test_a_record_says_what_came_out() -> None:
    record = run_case(small(), RANDOM, RUN)
    assert CaseRecord.model_validate_json(json.dumps(record.model_dump(mode="json"), allow_nan=False)) == record
    assert (record.kind, record.key.problem, record.key.method) == ("method", "digits", "random")
    assert (record.key.target, record.key.seed, record.key.data) == (0.9, 0, small().data)
    assert (record.key.examples, record.key.limit) == (None, LimitOptions(max_products=32))
    assert record.settings["epochs"] == 5
    assert record.sparsity == pytest.approx(1 - 646 / 6464)
    assert record.accuracy is not None
    assert 0 <= record.accuracy <= 1
    assert (record.epochs, record.trainings) == (5, 1)
    assert [stage.name for stage in record.history] == ["training"]
    assert record.training_seconds == pytest.approx(record.history[0].seconds, abs=1e-3)


def test_a_word_is_the_same_sparsity_for_every_method(tmp_path: Path) -> None:
    run, task = Run(tmp_path, limit=LimitOptions(max_products=320, curvature="ggn")), small()
    records = [run_case(task, Case(name, "limit", 0), run) for name in ("one_shot", "random", "gradual")]
    assert len({record.sparsity for record in records}) == 1
    assert records[0].sparsity is not None
    assert 0.1 < records[0].sparsity < 0.999
    assert [record.epochs for record in records] == [5, 5, 5]  # what the word took is not the method's


def test_a_method_that_the_network_does_not_suit_is_recorded() -> None:
    record = run_case(small(), Case("smart_ratio", 0.9, 0), RUN)
    assert record.refused == "smart_ratio is for networks with convolutions, and this one has none; use another method"
    assert (record.key.method, record.key.target, record.key.seed) == ("smart_ratio", 0.9, 0)
    assert record.accuracy is None


def test_compare_runs_what_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    task, told, run = small(), [], []
    first = list(compare(task, [DENSE, RANDOM], RUN, [], lambda case, known: told.append((case.method, known))))
    assert told == [("dense", False), ("random", False)]
    assert [new for _, new in first] == [True, True]
    recorded = [record for record, _ in first]

    def pretend(task: object, case: Case, run_: Run) -> str:
        run.append(case)
        return "run"

    monkeypatch.setattr(module, "run_case", pretend)
    other = Case("random", 0.9, 1)
    again = list(compare(task, [RANDOM, other, DENSE], RUN, recorded))
    assert run == [other]
    assert again == [(recorded[1], False), ("run", True), (recorded[0], False)]
    for changed in (small(l1=0.5), small(epochs=6), small(images=299), small(augment=True), small(momentum=0.5)):
        run.clear()
        list(compare(changed, [RANDOM], RUN, recorded))
        assert run == [RANDOM]
    for settings in (Run(limit=LimitOptions(max_products=33)), replace(RUN, examples=256)):
        run.clear()
        list(compare(task, [RANDOM], settings, recorded))
        assert run == [RANDOM]


def record(method: str, target: Sparsity, seed: int, **result: object) -> CaseRecord:
    key = CaseKey(
        kind="method", problem="p", settings_hash="s", data="d", examples=None, limit=LimitOptions(), method=method,
        target=target, seed=seed,
    )  # fmt: skip
    about = {"made": provenance(), "kind": "method", "key": key, "hash": key.hash, "settings": {}, "train_examples": 1}
    return CaseRecord.model_validate(about | {"trainings": 2 + seed} | result)


def test_a_sparsity_or_a_method_that_is_given_twice_is_one() -> None:
    assert cases(["random", "random"], ["0.9", "0.90", 0.9, "limit", "limit"], 1) == cases(
        ["random"], [0.9, "limit"], 1
    )


def test_a_record_that_is_there_twice_counts_once() -> None:
    one, other = (record("random", 0.9, seed, accuracy=0.8 + seed / 10, sparsity=0.9) for seed in (0, 1))
    (row,) = rows([one, other, one])
    assert (row.seeds, row.accuracies) == ((0, 1), (0.8, 0.9))


def changed(of: CaseRecord, settings: dict[str, object], **key: object) -> CaseRecord:
    """The same run under other settings, as its problem's settings and key have them."""
    own = of.key.model_copy(update={"settings_hash": settings_hash(settings), **key})
    return of.model_copy(update={"key": own, "hash": own.hash, "settings": settings})


def test_runs_that_differ_in_more_than_method_sparsity_and_seed_are_in_different_tables() -> None:
    plain = record("random", 0.9, 0, accuracy=0.8, sparsity=0.9)
    short = changed(plain, {"epochs": 5, "l1": 0.0})
    found = tables(
        [
            short,
            changed(short, short.settings, seed=1),
            changed(plain, {"epochs": 9, "l1": 0.0}),
            changed(plain, short.settings, examples=100),
            changed(plain, short.settings, limit=LimitOptions(max_products=64)),
            changed(plain, short.settings, data="other"),
            changed(plain, {}, problem="alone"),
        ]
    )
    assert [len(rows[0].seeds) for _, rows in found] == [2, 1, 1, 1, 1, 1]
    titles = [title for title, _ in found]
    assert len(set(titles)) == 6
    assert titles[1] == f"p, epochs 9, data d, images all, max_products {LimitOptions().max_products}"
    assert titles[-1] == "alone"


def test_rows_are_means_over_seeds() -> None:
    found = rows(
        [
            record("random", 0.9, 0, accuracy=0.80, sparsity=0.90, epochs=10, test_loss=1.0),
            record("random", "limit", 0, accuracy=0.70, sparsity=0.94, epochs=10),
            record("random", 0.9, 1, accuracy=0.86, sparsity=0.90, epochs=10, test_loss=2.0),
            record("random", "limit", 1, accuracy=0.74, sparsity=0.96, epochs=20),
            record("random", 0.9, 2, accuracy=0.83, sparsity=0.90, epochs=10, test_loss=3.0),
            record("dense", 0.0, 0, accuracy=0.95, sparsity=0.0, epochs=10),
            record("smart_ratio", 0.9, 0, refused="no convolution"),
            record("gradual", 0.9, 0, sparsity=0.9, epochs=10, test_loss=0.5),
        ]
    )
    assert [(row.method, row.target) for row in found] == [
        ("random", 0.9),
        ("random", "limit"),
        ("dense", 0.0),
        ("smart_ratio", 0.9),
        ("gradual", 0.9),
    ]
    fixed, limit, dense, refused, scoreless = found
    assert fixed.seeds == (0, 1, 2)
    assert fixed.accuracies == (0.80, 0.86, 0.83)
    assert fixed.accuracy == pytest.approx(0.83)
    assert fixed.accuracy_deviation == pytest.approx(0.03)  # of a sample: 0.0018 / 2 under the root
    assert (fixed.epochs, fixed.trainings, fixed.test_loss) == (10, 3, 2.0)
    assert limit.sparsity == pytest.approx(0.95)
    assert limit.accuracy == pytest.approx(0.72)
    assert limit.accuracy_deviation == pytest.approx(0.0282842712)
    assert limit.epochs == 15
    assert (dense.accuracy, dense.accuracy_deviation) == (0.95, None)
    assert (refused.refused, refused.accuracy, refused.seeds) == ("no convolution", None, ())
    assert (scoreless.accuracy, scoreless.accuracies, scoreless.test_loss) == (None, (), 0.5)
    json.dumps([asdict(row) for row in found], allow_nan=False)
