"""The paper's tables from records, against means worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from howsparse.cli import main
from howsparse.errors import InputError
from howsparse.paper.render import markdown_table, paper_table
from howsparse.paper.tables import PAPER, TASKS, table
from howsparse.tasks import load_recipe

Record = dict[str, Any]


def record(seed: int, limit: float, measured: float, epochs: int = 200, images: int = 50_000, **more: Any) -> Record:
    studied = {"limit": limit, "limit_low": limit - 0.01, "limit_high": limit + 0.01, "upper_bound": limit - 0.002}
    studied |= {"certified": 0.98, "measured": 0.99, "measured_by_accuracy": measured}
    about = {"kind": "run", "task": "fc5-cifar10", "recipe": {"epochs": epochs}, "seed": seed, "study": studied}
    about |= {"train_images": images}
    return about | {"method": "one_shot", "accuracy": 0.59, "sparsity": 0.983} | more


def test_every_task_of_the_paper_has_a_recipe_and_a_row() -> None:
    assert len(TASKS) == 8
    assert PAPER.keys() == TASKS.keys()
    for name in TASKS:
        assert load_recipe(name).epochs == 200
        assert load_recipe(name).augment


def test_prediction_against_measured() -> None:
    (row,) = table(2, [record(0, 0.97, 0.98), record(1, 0.99, 0.98), record(1, 0.99, 0.98, method="random")])
    assert row["seeds"] == 2
    assert row["limit"] == pytest.approx({"mean": 98.0, "deviation": 2**0.5})
    assert row["measured"] == pytest.approx({"mean": 98.0, "deviation": 0.0})
    assert row["difference"] == pytest.approx({"mean": 0.0, "deviation": 2**0.5})
    assert row["bracket"] == pytest.approx([96.0, 100.0])
    assert row["paper_limit"] == "97.9 ± 0.25"


def test_two_bounds() -> None:
    (row,) = table(1, [record(0, 0.97, 0.98)])
    assert row["difference"]["mean"] == pytest.approx(0.2)
    assert row["difference"]["deviation"] is None
    assert row["paper"] == "0.25 ± 0.09"


def test_methods_with_their_options_count_as_the_method() -> None:
    runs = [record(seed, 0.98, 0.98, method="rare_gems:l2=0.001", accuracy=0.5 + seed / 10) for seed in (0, 1)]
    refused = record(0, 0.98, 0.98, method="smart_ratio", refused="no convolutions")
    del refused["accuracy"], refused["sparsity"]
    (row,) = table(3, [*runs, refused, record(0, 0.98, 0.98, method="dense", accuracy=0.55, sparsity=0.0)])
    assert row["rare_gems"] == pytest.approx({"mean": 55.0, "deviation": 10 / 2**0.5})
    assert row["dense"]["mean"] == pytest.approx(55.0)
    assert row["one_shot"] is None
    assert row["smart_ratio"] is None
    assert row["sparsity"]["mean"] == pytest.approx(98.3)  # dense is not pruned


def test_runs_of_other_settings_are_rows_of_their_own() -> None:
    runs = [record(0, 0.9, 0.9, epochs=3), record(0, 0.98, 0.98), record(0, 0.7, 0.7, task="fc12-cifar10")]
    runs += [record(0, 0.6, 0.6, images=2000), record(0, 0.5, 0.5, images=100_000, task="resnet18-tinyimagenet")]
    rows = table(2, runs)
    assert [(row["task"], row["epochs"], row["images"], row["as_paper"]) for row in rows] == [
        ("fc5-cifar10", 200, 50_000, True),
        ("fc5-cifar10", 200, 2_000, False),
        ("fc5-cifar10", 3, 50_000, False),
        ("fc12-cifar10", 200, 50_000, True),
        ("resnet18-tinyimagenet", 200, 100_000, True),
    ]
    assert [row["limit"]["mean"] for row in rows] == pytest.approx([98.0, 60.0, 90.0, 70.0, 50.0])
    page = markdown_table(paper_table(2, rows)).splitlines()
    assert len({line.count("|") for line in page}) == 1
    ours = [line for line in page if "(paper: " in line]
    assert [line.split("|")[1].strip() for line in ours] == ["fc5-cifar10", "fc12-cifar10", "resnet18-tinyimagenet"]
    others = [line for line in page if "not the paper's" in line]
    assert page == [*page[:2], *ours, *others]  # those of other settings come last, without the paper's numbers
    assert len(others) == 2


def test_records_of_other_kinds_and_tasks_are_left_out() -> None:
    assert table(2, [record(0, 0.9, 0.9, kind="method"), record(0, 0.9, 0.9, task="digits")]) == []
    with pytest.raises(InputError, match="there is no table 4"):
        table(4, [])


@pytest.mark.parametrize("number", ["1", "2", "3"])
def test_on_the_terminal(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text("".join(json.dumps(record(seed, 0.97 + seed / 100, 0.98)) + "\n" for seed in (0, 1)))
    monkeypatch.setattr("sys.argv", ["howsparse", "table", number, "--record", str(file)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "fc5-cifar10" in shown
    assert {"1": "0.20", "2": "97.50 ± 0.71", "3": "59.00"}[number] in shown
