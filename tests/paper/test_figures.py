"""The paper's figures: what is drawn is what the records say."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from records_for_tests import iteration_records, run_record

from howsparse.cli import main
from howsparse.errors import InputError
from howsparse.paper.figures import FIGURES, iterations_figure, paper_figure, runs_figure
from howsparse.paper.numbers import paper_tasks
from howsparse.records import Record
from howsparse.report.plots import ACCENT, FAINT, INK, SHADE


def titles(figure: Figure) -> list[str]:
    return [place.get_suptitle() for place in figure.subfigs]


def written(path: Path, records: Sequence[Record]) -> Path:
    path.write_text("".join(record.model_dump_json() + "\n" for record in records))
    return path


def test_every_task_with_a_run_has_its_panels() -> None:
    records = [run_record(task=name, images=task.images) for name, task in reversed(paper_tasks().items())]
    for name, axes in {"2": 2, "3": 2, "rows": 1, "magnitudes": 1}.items():
        figure = runs_figure(name, records)
        assert [title.split("\n")[0] for title in titles(figure)] == [task.title for task in paper_tasks().values()]
        assert [len(place.axes) for place in figure.subfigs] == [axes] * 8


def test_other_than_the_papers_runs_say_so_and_are_not_mixed_in() -> None:
    short = run_record(epochs=2)
    few = run_record(task="resnet18-tinyimagenet", images=2_000)
    whole = run_record(task="resnet50-tinyimagenet", images=100_000)
    assert titles(runs_figure("3", [short, few, whole])) == ["ResNet50 / TinyImageNet\n200 epochs, 100,000 images"]
    assert titles(runs_figure("3", [short, few])) == [
        "FC5 / CIFAR-10\n2 epochs, 50,000 images: not the paper's",
        "ResNet18 / TinyImageNet\n200 epochs, 2,000 images: not the paper's",
    ]
    (only,) = titles(runs_figure("3", [short, run_record()]))
    assert only == "FC5 / CIFAR-10\n200 epochs, 50,000 images"


def test_curves_and_limits_are_the_records() -> None:
    (place,) = runs_figure("3", [run_record(limit=0.97), run_record(seed=1, limit=0.5)]).subfigs
    above, below = place.axes
    assert list(above.lines[0].get_xdata()) == [0.0, 0.5, 0.9]  # type: ignore[arg-type]
    assert list(above.lines[0].get_ydata()) == [1.0, 1.05, 3.0]  # type: ignore[arg-type]
    for axes in (above, below):
        upright = [float(line.get_xdata()[0]) for line in axes.lines if line.get_color() == ACCENT]  # type: ignore[index, arg-type]
        assert upright == [0.97, 0.5]
    assert "97.00, 50.00 %" in above.get_title(loc="right")


def test_a_row_that_is_zero_is_counted_and_not_drawn() -> None:
    ((axes,),) = (place.axes for place in runs_figure("rows", [run_record()]).subfigs)
    assert list(axes.lines[0].get_ydata()) == [1.0, 2.0]  # type: ignore[arg-type]
    assert axes.get_title(loc="right") == "1 of 3 rows are zero"


def test_iterations_above_and_below() -> None:
    (place,) = iterations_figure(iteration_records()).subfigs
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
def test_nothing_to_draw_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to draw"):
        paper_figure(name, [tmp_path / "missing.jsonl"])


def test_no_such_figure() -> None:
    with pytest.raises(InputError, match="there is no figure '1'; choose from: 2, 3, 4, rows, magnitudes"):
        paper_figure("1", [])


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = written(tmp_path / "a.jsonl", [run_record()])
    iterations = written(tmp_path / "b.jsonl", iteration_records())

    def figure(name: str, *more: str) -> object:
        given = ["--record", str(runs), "--record", str(iterations)]
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
