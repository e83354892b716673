"""The report page in a real browser: the slider is moved, the numbers compared with Python's, and pictures taken.

    python -m benchmarks.page [--record results/page.jsonl] [--docs docs] [--only-page]

It trains the digits network, makes its page with `howsparse report`'s functions, opens it in a headless Chromium, and
moves the slider by the keyboard to places from one end to the other, in points of accuracy and in loss. At each place
it compares what the page shows with `PruningLimit.at` and with the measured curves. It then writes pictures into docs:
of the page light, dark, on a phone, and printed, and of what four commands print in a terminal. It also runs axe-core,
which finds faults that keep people from reading a page; the command fetches it by npm into a temporary folder. It needs
Debian's chromium and chromium-driver, and npm. With --only-page, docs/report.md is written from the last record.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.browser import Browser, browser, missing
from benchmarks.commands import own_command
from benchmarks.terminal import COMMANDS, picture
from howsparse.cli.reporting import compute, contents
from howsparse.cli.subject import Subject
from howsparse.files import save_tensors, write_whole
from howsparse.limit.goal import Goal
from howsparse.limit.options import LimitOptions
from howsparse.methods import Run, Stages
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.report.contents import Contents, tolerance_of_drop
from howsparse.report.page import write_page
from howsparse.tasks import load_task
from howsparse.tasks.data import Batches, ShuffledBatches

AXE = "axe-core@4.14.1"
HOME, END, RIGHT, LEFT = "\ue011", "\ue010", "\ue014", "\ue012"  # keys of WebDriver
MOVES = (HOME, RIGHT * 3, RIGHT * 5, RIGHT * 8, END, LEFT * 4)
WITHIN = 5e-5  # four digits of a sparsity
SHOWN = """
const row = (name) => {
  const found = document.getElementById(`answer-${name}`);
  return ["low", "high"].map((end) => (found.dataset[end] === "" ? null : Number(found.dataset[end])));
};
return { unit: state.unit, value: state.value, sentence: document.getElementById("sentence").textContent,
         measured: row("measured"), predicted: row("predicted"), limit: row("limit") };
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, default=Path("results/page.jsonl"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--only-page", action="store_true")
    options = parser.parse_args()
    if not options.only_page:
        measure_page(options.record, options.docs)
    last = list(read_lines(options.record))[-1]
    write_whole(options.docs / "report.md", lambda file: file.write_text(page(last)))


def measure_page(record: Path, docs: Path) -> None:
    """Make the page, compare its numbers, look for faults, take the pictures, and record all this."""
    if missing() is not None:
        raise SystemExit(f"cannot open a page: {missing()}")
    made = provenance(own_command("benchmarks.page"))
    model, shown = digits()
    with tempfile.TemporaryDirectory() as folder, browser() as window:
        file = Path(folder) / "report.html"
        write_page(shown, file)
        window.look(1000, 900)
        found = {"bytes": file.stat().st_size, "ready_ms": ready(window, file)} | compare(shown, window)
        found["axe"] = AXE
        for scheme in ("light", "dark"):
            window.look(1000, 900, scheme=scheme)
            window.open(file)
            found[f"faults_{scheme}"] = faults(window, Path(folder))
        pictures(window, file, docs)
        save_tensors(model.state_dict(), Path(folder) / "digits.safetensors")
        for name, command in COMMANDS.items():
            picture(command, Path(folder), docs / f"terminal-{name}.svg")
    print(json.dumps(found, indent=1))
    append_record(Measurement(kind="page", made=made, network="digits", **found), record)


def digits() -> tuple[nn.Module, Contents]:
    """The network of `howsparse demo`, and its page, with a drop of one point of accuracy."""
    task = load_task("digits")
    model = task.initial(0)
    Stages(task, 0, Run()).train("digits", model, l1=task.l1)
    assert isinstance(task.train, ShuffledBatches)
    typed = "digits --weights digits.safetensors"
    subject = Subject("digits", model, Batches(task.train.images, 128), task.test, typed=typed)
    began = time.perf_counter()
    found = compute(subject, LimitOptions(), Goal(max_drop=0.01), None)
    return model, contents(subject, *found, None, 0, time.perf_counter() - began, f"howsparse report {typed}")


def ready(window: Browser, file: Path) -> float:
    """Milliseconds from the navigation until the charts are drawn and the slider can be moved."""
    window.open(file)
    return float(window.run("return performance.getEntriesByName('ready')[0].startTime"))


def compare(shown: Contents, window: Browser) -> dict[str, Any]:
    """The largest difference between the page's numbers and Python's, over all places of the slider."""
    differences: dict[str, float] = {"measured": 0.0, "predicted": 0.0, "limit": 0.0}
    places = []
    for unit in ("drop", "loss"):
        window.click(f'input[value="{unit}"]')
        for keys in MOVES:
            window.press("#slider", keys)
            page = window.run(SHOWN)
            places.append([unit, page["value"]])
            for name, expected in python_answers(shown, unit, page["value"]):
                got = page[name]
                assert (got[0] is None) == (expected is None), (name, page)
                if expected is not None:
                    off = max(abs(a - b) for a, b in zip(got, expected, strict=True))
                    differences[name] = max(differences[name], off)
    assert max(differences.values()) < WITHIN, differences
    return {"places": places, "largest_differences": differences}


def python_answers(shown: Contents, unit: str, value: float) -> Iterator[tuple[str, tuple[float, float] | None]]:
    """The ends of each answer, by Python; None if the tolerance is not positive."""
    assert shown.measured is not None
    assert shown.losses is not None
    curve, goal = (shown.measured, Goal(max_drop=value)) if unit == "drop" else (shown.losses, Goal(tolerance=value))
    yield "measured", (curve.within(goal),) * 2
    tolerance = tolerance_of_drop(shown, value) if unit == "drop" else value
    there = shown.limit.at(tolerance=tolerance) if tolerance > 0 else None
    yield "predicted", None if there is None else (there.predicted,) * 2
    yield "limit", None if there is None else there.bracket


def faults(window: Browser, folder: Path) -> list[str]:
    """What axe-core finds: "impact: rule", the serious ones among them."""
    file = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not file.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit("no npm; on Debian: apt-get install npm")
        subprocess.run([npm, "install", "--silent", "--no-save", "--prefix", str(folder), AXE], check=True)
    window.run(file.read_text(encoding="utf-8"))
    found = window.wait("const done = arguments[arguments.length - 1]; axe.run().then((r) => done(r.violations));")
    return [f"{each['impact']}: {each['id']}" for each in found]


def pictures(window: Browser, file: Path, docs: Path) -> None:
    """Pictures of the page: light, dark, on a phone, and as it is printed."""
    looks: dict[str, dict[str, Any]] = {
        "light": {"width": 1000, "height": 1000},
        "dark": {"width": 1000, "height": 1000, "scheme": "dark"},
        "narrow": {"width": 390, "height": 1000, "scale": 1.5},
        "printed": {"width": 760, "height": 1075, "media": "print"},
    }
    for name, look in looks.items():
        window.look(**look)
        window.open(file)
        window.picture(docs / f"report-{name}.png")
    window.look(1000, 1000)
    window.open(file)
    window.run("document.getElementById('spectrum').closest('section').scrollIntoView()")
    window.picture(docs / "report-below.png")


def page(line: dict[str, Any]) -> str:
    """The page in docs, from a record."""
    off, places = max(line["largest_differences"].values()), line["places"]
    faults = {*line["faults_light"], *line["faults_dark"]}
    said = f"finds {', '.join(sorted(faults))}" if faults else "finds no fault, in light and in dark"
    return PAGE.format(
        size=line["bytes"] // 1000, ready=line["ready_ms"] / 1000, places=len(places), off=off, said=said,
        axe=line["axe"].replace("@", " "), command=line["made"]["command"],
    )  # fmt: skip


PAGE = """# A page with all answers

`howsparse report` writes one HTML file with all answers for a network, for readers who look before they read. You can
send it, open it from a disk, read it on a phone, and print it. It loads nothing from the internet.

![The page: the answer in a sentence, curves of accuracy and loss, a slider](report-light.png)

## Make one

```
howsparse report mypackage.nets:resnet --weights net.safetensors --data batches.npz --max-drop 1
```

Network, weights and data are named as for `howsparse measure` ([Measure and certify a network](measure.md)). The page
is `report.html`, or the file that `--output` names. `--max-drop` says how many points of accuracy may be lost when the
page opens; `--tolerance` says instead how much the loss may rise. With `--held-out held-out.npz` a sparsity is
certified too. The options of the limit are those of `howsparse limit`. `--keep FOLDER` keeps its products, so that a
command that was stopped goes on where it was.

In Python, a limit writes its page. Give it what you measured and certified, and the page shows that too:

```python
import howsparse

limit = howsparse.pruning_limit(model, train)
measured = howsparse.measure(model, test, max_drop=0.01)
limit.report("report.html", title="My network", measured=measured)
```

For a picture in a notebook or a paper, `limit.plot()` and `measured.plot()` draw with matplotlib and return the axes:

```python
axes = limit.plot()
axes.figure.savefig("limit.png")
measured.plot()
```

## What it shows

- **The answer in one sentence**: how many weights can go while you lose at most what you allow.
- **Two curves against sparsity**: the accuracy, and the rise of the loss. Points are networks that were pruned and
  evaluated. The dashed line is predicted without evaluating any. Below the curves are the answers on the same axis:
  measured, certified, predicted, recoverable, and the limit in its bracket.
- **A slider for what may be lost**, in points of accuracy or in loss. It moves three answers: measured, predicted and
  the limit. The others stay where they were computed: recoverable and the upper bound belong to one rise of the loss,
  and the certificate to the drop that was tested.
- **The spectrum** of the curvature on logarithmic axes, on both sides of 0, with the scale of the limit.
- **Magnitudes, layers, and where the width of the bracket comes from.**
- **How it was computed**: settings, products, seconds, versions, seed, and the command that makes the page again. The
  page has names of files, but no folder of your machine.
- An answer that was not computed is left out, and a line says which command adds it.

Each chart has its numbers in a table below it.

![The page further down: the spectrum and the magnitudes](report-below.png)

## Points of accuracy and loss

The limit and the prediction are about the loss. The page translates a drop of the accuracy into a rise of the loss by
what was measured: it takes the largest measured sparsity at which the accuracy drops by at most this much, and looks up
the rise of the training loss there. The slider shows this rise. If the loss does not rise there, there is no prediction
and no limit, and the page says so. `howsparse report --max-drop` computes the limit for this rise. So all answers are
about the same loss when the page opens.

## How right the numbers are

The page solves the limit's equation again for every position of the slider. The upper end of the bracket needs another
quadrature rule at every scale. So the page holds two tables instead of the rules: the density that is needed for each
scale, and the squared norm of the removed weights for each sparsity (`howsparse.report.live`).

`{command}` makes the page of the digits network, opens it in a headless Chromium, moves the slider by
the keyboard, and compares what the page shows with `PruningLimit.at` and the measured curves. At {places} positions of
the slider, the largest difference is {off:.1g}, as a fraction of the weights. The file has {size} kB. The charts are
drawn and the slider works {ready:.1f} seconds after the page is opened. {axe}, which checks whether people with
disabilities can read a page, {said}. The record is in `results/page.jsonl`.

## In a terminal

The commands print the same answers. These pictures show a terminal of 80 columns.

![howsparse measure](terminal-measure.svg)

![howsparse limit](terminal-limit.svg)

![howsparse prune](terminal-prune.svg)

![howsparse compare](terminal-compare.svg)

## More pictures

![The page with dark colours](report-dark.png)

![The page on a phone](report-narrow.png)

![The first printed page](report-printed.png)
"""


if __name__ == "__main__":
    main()
