"""The paper's tables from records, against means worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from records_for_tests import run_record

from howsparse.cli import main
from howsparse.errors import InputError
from howsparse.paper.numbers import paper_tasks
from howsparse.paper.render import markdown_table, paper_table
from howsparse.paper.tables import BoundsRow, MethodsRow, PredictionRow, Spread, table
from howsparse.records import CaseRecord
from howsparse.tasks import load_recipe


def near(spread: Spread | None, mean: float, deviation: float | None) -> bool:
    """Whether a spread is this one but for rounding."""
    assert spread is not None
    if deviation is None or spread.deviation is None:
        return spread.mean == pytest.approx(mean) and spread.deviation is deviation
    return spread.mean == pytest.approx(mean) and spread.deviation == pytest.approx(deviation, abs=1e-9)


def test_every_task_of_the_paper_has_a_recipe() -> None:
    assert len(paper_tasks()) == 8
    for name, paper in paper_tasks().items():
        recipe = load_recipe(name)
        assert recipe.epochs == paper.epochs == 200
        assert recipe.augment
    images = [task.images for task in paper_tasks().values()]
    assert images == [50_000] * 6 + [100_000] * 2


def test_prediction_against_measured() -> None:
    runs = [run_record(seed=0, limit=0.97), run_record(seed=1, limit=0.99)]
    (row,) = table(2, [*runs, run_record(seed=1, limit=0.99, method="random")])
    assert isinstance(row, PredictionRow)
    assert row.seeds == 2
    assert near(row.limit, 98.0, 2**0.5)
    assert near(row.measured, 98.0, 0.0)
    assert near(row.difference, 0.0, 2**0.5)
    assert near(row.predicted, 97.5, 0.0)
    assert row.bracket == pytest.approx((96.0, 100.0))
    assert row.paper_limit == "97.9 ± 0.25"


def test_two_bounds() -> None:
    narrow = [
        run_record(seed=seed, limit=0.97, upper=(None, 0.967 + seed / 1000, 0.9675 + seed / 1000)) for seed in (0, 1)
    ]
    (row,) = table(1, narrow)
    assert isinstance(row, BoundsRow)
    assert near(row.difference, 0.225, 0.1 / 2**0.5)
    assert row.bracket == pytest.approx((0.15, 0.3))
    assert not row.trivial
    assert row.paper == "0.25 ± 0.09"


def known(row: BoundsRow) -> str:
    """The cell of the difference as it is printed."""
    return markdown_table(paper_table(1, [row])).splitlines()[2].split("|")[4].strip()


@pytest.mark.parametrize(
    ("upper", "bracket", "trivial", "shown"),
    [
        # 1 - 2 T = 0.94: the end that always holds
        ((0.955, 0.94, 0.9687), (0.13, 3.0), True, "0.13 to 3.00 (paper: 0.25 ± 0.09)"),
        ((0.955, 0.94, 0.97), (0.0, 3.0), True, "at most 3.00 (paper: 0.25 ± 0.09)"),
        ((0.966, 0.963, 0.969), (0.1, 0.7), False, "0.10 to 0.70 (paper: 0.25 ± 0.09)"),
        ((0.968, None, None), None, False, "unknown (paper: 0.25 ± 0.09)"),
    ],
)
def test_a_wide_bracket_of_the_bounds_has_no_mean(
    upper: tuple[float, float | None, float | None],
    bracket: tuple[float, float] | None,
    trivial: bool,
    shown: str,
) -> None:
    (row,) = table(1, [run_record(limit=0.97, upper=upper)])
    assert isinstance(row, BoundsRow)
    assert row.difference is None
    assert row.bracket == (bracket if bracket is None else pytest.approx(bracket))
    assert row.trivial == trivial
    assert known(row) == shown


def test_one_seed_with_a_wide_bracket_leaves_no_mean() -> None:
    narrow, wide = (0.9675, 0.967, 0.968), (0.955, 0.94, 0.969)
    (row,) = table(1, [run_record(seed=0, limit=0.97, upper=narrow), run_record(seed=1, limit=0.97, upper=wide)])
    assert isinstance(row, BoundsRow)
    assert row.difference is None
    assert row.bracket == pytest.approx((0.1, 3.0))


def test_bounds_of_a_limit_that_is_not_resolved_are_unknown() -> None:
    record = run_record(limit=0.7, upper=(0.55, 0.4, 0.7))
    assert record.study is not None
    wide = replace(record.study.answer, limit_low=0.4, limit_high=0.99)
    study = record.study.model_copy(update={"answer": wide})
    (row,) = table(1, [record.model_copy(update={"study": study})])
    assert isinstance(row, BoundsRow)
    assert (row.difference, row.bracket) == (None, None)
    assert known(row) == "unknown (paper: 0.25 ± 0.09)"


def test_methods_with_their_options_count_as_the_method() -> None:
    runs = [run_record(seed=seed, method="rare_gems:l2=0.001", accuracy=0.5 + seed / 10) for seed in (0, 1)]
    refused = run_record(method="smart_ratio", refused="no convolutions", accuracy=None, sparsity=None)
    (row,) = table(3, [*runs, refused, run_record(method="dense", accuracy=0.55, sparsity=0.0)])
    assert isinstance(row, MethodsRow)
    assert near(row.accuracy["rare_gems"], 55.0, 10 / 2**0.5)
    assert near(row.accuracy["dense"], 55.0, None)
    assert row.accuracy["one_shot"] is None
    assert row.accuracy["smart_ratio"] is None
    assert near(row.sparsity, 98.3, 0.0)  # dense is not pruned


def test_methods_that_were_run_at_the_sparsity_of_a_row_are_in_it() -> None:
    def method(name: str, **result: Any) -> CaseRecord:
        return run_record(kind="method", method=name, **result)

    others = [
        method("dense", accuracy=0.55, sparsity=0.0),
        method("lottery_ticket:fraction=0.5", accuracy=0.4, sparsity=0.9835),
        method("random", accuracy=0.1, sparsity=0.5),  # of another sparsity
        run_record(kind="method", method="random", accuracy=0.2, epochs=3),  # of another training
    ]
    (row,) = table(3, [run_record(accuracy=0.6), *others])
    assert isinstance(row, MethodsRow)
    assert near(row.accuracy["one_shot"], 60.0, None)
    assert near(row.accuracy["dense"], 55.0, None)
    assert near(row.accuracy["lottery_ticket"], 40.0, None)
    assert row.accuracy["random"] is None
    assert row.seeds == 1
    page = markdown_table(paper_table(3, [row]))
    assert "40.00 (paper: 38.71 ± 2.25), fraction=0.5" in page
    assert row.as_json()["options"] == {"lottery_ticket": "fraction=0.5"}


def test_runs_of_other_settings_are_rows_of_their_own() -> None:
    runs = [run_record(limit=0.9, epochs=3), run_record(limit=0.98), run_record(limit=0.7, task="fc12-cifar10")]
    runs += [run_record(limit=0.6, images=2000), run_record(limit=0.5, images=100_000, task="resnet18-tinyimagenet")]
    rows = table(2, runs)
    found = [(row.setting.task, row.setting.epochs, row.setting.images, row.setting.as_paper) for row in rows]
    assert found == [
        ("fc5-cifar10", 200, 50_000, True),
        ("fc5-cifar10", 200, 2_000, False),
        ("fc5-cifar10", 3, 50_000, False),
        ("fc12-cifar10", 200, 50_000, True),
        ("resnet18-tinyimagenet", 200, 100_000, True),
    ]
    limits = [row.limit.mean for row in rows if isinstance(row, PredictionRow) and row.limit is not None]
    assert limits == pytest.approx([98.0, 60.0, 90.0, 70.0, 50.0])
    page = markdown_table(paper_table(2, rows)).splitlines()
    assert len({line.count("|") for line in page}) == 1
    ours = [line for line in page if "(paper: " in line]
    assert [line.split("|")[1].strip() for line in ours] == ["fc5-cifar10", "fc12-cifar10", "resnet18-tinyimagenet"]
    others = [line for line in page if "not the paper's" in line]
    assert page == [*page[:2], *ours, *others]  # those of other settings come last, without the paper's numbers
    assert len(others) == 2


def test_records_of_other_kinds_and_tasks_are_left_out() -> None:
    assert table(2, [run_record(kind="method"), run_record(task="digits")]) == []
    with pytest.raises(InputError, match="there is no table 4"):
        table(4, [])


@pytest.mark.parametrize(
    ("number", "key", "mean", "shown"),
    [(1, "difference", 0.2, "0.20 ± 0.00"), (2, "limit", 97.5, "97.50 ± 0.71"), (3, "one_shot", 59.0, "59.00")],
)
def test_on_the_command_line(
    number: int,
    key: str,
    mean: float,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uppers = (0.968, 0.9677, 0.9683), (0.978, 0.9777, 0.9783)
    runs = [run_record(seed=seed, limit=0.97 + seed / 100, upper=uppers[seed]) for seed in (0, 1)]
    file = tmp_path / "runs.jsonl"
    file.write_text("".join(run.model_dump_json() + "\n" for run in runs))
    for json_option in ([], ["--json"]):
        command = ["howsparse", "table", str(number), "--record", str(file), *json_option]
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
    table_text, _, json_text = capsys.readouterr().out.partition("{")
    assert "fc5-cifar10" in table_text
    assert shown in table_text
    (row,) = json.loads("{" + json_text)["rows"]
    assert (row["task"], row["as_paper"], row["seeds"]) == ("fc5-cifar10", True, 2)
    assert row[key]["mean"] == pytest.approx(mean)
