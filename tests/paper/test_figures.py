"""The paper's figures: what is drawn is what the records say."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from howsparse.cli import main
from howsparse.errors import InputError
from howsparse.experiments.compare import Case, run_whole
from howsparse.methods import Run
from howsparse.paper.figures import FIGURES, paper_figure
from howsparse.paper.tables import TASKS
from howsparse.report.plots import ACCENT, FAINT, INK, SHADE
from howsparse.tasks import load_task

Record = dict[str, Any]


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """A real run, on digits."""
    run = Run(tmp_path_factory.mktemp("runs"), max_products=32)
    record = run_whole(load_task("digits").with_recipe(epochs=8), Case("one_shot", "limit", 0), run)
    return dict(json.loads(json.dumps(record)))


def as_run_of(task: str, studied: Record, seed: int = 0, epochs: int = 200, images: int = 50_000) -> Record:
    record = copy.deepcopy(studied)
    record["recipe"]["epochs"] = epochs
    return record | {"task": task, "seed": seed, "train_images": images}


def iterations() -> list[Record]:
    def steps(needed: float) -> list[dict[str, float]]:
        return [
            {"density": 0.8**k, "needed": needed, "needed_low": needed - 0.1, "needed_high": needed + 0.1, "stays": 0.8}
            for k in range(5)
        ]

    methods = {"lottery_ticket": 0.4, "rare_gems without l2": 0.3, "rare_gems with l2 0.001": 0.2}
    about = {"kind": "iteration", "task": "digits", "epochs": 5}
    return [about | {"method": method, "steps": steps(needed)} for method, needed in methods.items()]


def titles(figure: Figure) -> list[str]:
    return [place.get_suptitle() for place in figure.subfigs]


def test_every_task_with_a_run_has_its_panels(studied: Record) -> None:
    records = [
        as_run_of(task, studied, images=100_000 if task.endswith("tinyimagenet") else 50_000)
        for task in reversed(TASKS)
    ]
    for name, axes in {"2": 2, "3": 2, "rows": 1, "magnitudes": 1}.items():
        figure = paper_figure(name, records)
        assert [title.split("\n")[0] for title in titles(figure)] == list(TASKS.values())
        assert [len(place.axes) for place in figure.subfigs] == [axes] * 8


def test_other_than_the_papers_runs_say_so_and_are_not_mixed_in(studied: Record) -> None:
    short = as_run_of("fc5-cifar10", studied, epochs=2)
    few = as_run_of("resnet18-tinyimagenet", studied, images=2_000)
    whole = as_run_of("resnet50-tinyimagenet", studied, images=100_000)
    assert titles(paper_figure("3", [short, few, whole])) == ["ResNet50 / TinyImageNet\n200 epochs, 100,000 images"]
    assert titles(paper_figure("3", [short, few])) == [
        "FC5 / CIFAR-10\n2 epochs, 50,000 images: not the paper's",
        "ResNet18 / TinyImageNet\n200 epochs, 2,000 images: not the paper's",
    ]
    (only,) = titles(paper_figure("3", [short, as_run_of("fc5-cifar10", studied)]))
    assert only == "FC5 / CIFAR-10\n200 epochs, 50,000 images"


def test_curves_and_limits_are_the_records(studied: Record) -> None:
    other = as_run_of("fc5-cifar10", studied, seed=1)
    other["study"]["limit"] = 0.5
    (place,) = paper_figure("3", [as_run_of("fc5-cifar10", studied), other]).subfigs
    above, below = place.axes
    loss = above.lines[0]
    assert list(loss.get_xdata()) == studied["study"]["curves"]["train"]["sparsity"]  # type: ignore[arg-type]
    assert list(loss.get_ydata()) == studied["study"]["curves"]["train"]["loss"]  # type: ignore[arg-type]
    for axes in (above, below):
        upright = [float(line.get_xdata()[0]) for line in axes.lines if line.get_color() == ACCENT]  # type: ignore[index, arg-type]
        assert upright == [studied["study"]["limit"], 0.5]
    assert f"{100 * studied['study']['limit']:.2f}, 50.00 %" in above.get_title(loc="right")


def test_a_row_that_is_zero_is_counted_and_not_drawn(studied: Record) -> None:
    record = as_run_of("fc5-cifar10", studied)
    record["study"]["rows"] = {"percentile": [25.0, 50.0, 75.0], "norm": [0.0, 1.0, 2.0]}
    ((axes,),) = (place.axes for place in paper_figure("rows", [record]).subfigs)
    assert list(axes.lines[0].get_ydata()) == [1.0, 2.0]  # type: ignore[arg-type]
    assert axes.get_title(loc="right") == "1 of 3 rows are zero"


def test_iterations_above_and_below(studied: Record) -> None:
    (place,) = paper_figure("4", [*iterations(), studied]).subfigs
    above, below = place.axes
    assert [float(line.get_ydata()[0]) for line in above.lines] == pytest.approx([40, 80])  # type: ignore[index, arg-type]
    assert [float(line.get_ydata()[0]) for line in below.lines] == pytest.approx([30, 20, 80])  # type: ignore[index, arg-type]
    assert len({line.get_linestyle() for line in below.lines}) == 3  # told apart without colour


def test_what_is_drawn_over_one_another_differs_in_grey() -> None:
    def grey(colour: str) -> float:
        return float(np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)))

    shades = sorted(map(grey, (INK, ACCENT, SHADE)))
    assert np.diff(shades).min() > 0.15
    assert grey(FAINT) - grey(INK) > 0.25


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_to_draw_is_one_line(name: str) -> None:
    with pytest.raises(InputError, match="nothing to draw"):
        paper_figure(name, [])


def test_no_such_figure() -> None:
    with pytest.raises(InputError, match="there is no figure '1'; choose from: 2, 3, 4, rows, magnitudes"):
        paper_figure("1", [])


def test_on_the_command_line(
    studied: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(as_run_of("fc5-cifar10", studied)) + "\n")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(record) + "\n" for record in iterations()))

    def figure(name: str, *more: str) -> object:
        given = ["--record", str(tmp_path / "a.jsonl"), "--record", str(tmp_path / "b.jsonl")]
        monkeypatch.setattr("sys.argv", ["howsparse", "figure", name, *given, "--output", str(tmp_path / "f.1"), *more])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code

    for name in FIGURES:
        assert figure(name, "--force") == 0
    first = {file: (tmp_path / file).read_bytes() for file in ("f.1.pdf", "f.1.png")}
    assert first["f.1.pdf"].startswith(b"%PDF")
    assert first["f.1.png"].startswith(b"\x89PNG")
    assert figure("magnitudes", "--force") == 0
    assert {file: (tmp_path / file).read_bytes() for file in first} == first
    assert figure("magnitudes") == 2
    assert "--force" in capsys.readouterr().err
