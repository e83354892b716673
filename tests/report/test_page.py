"""The report page: its numbers are Python's, it holds nothing but itself, and text of the user stays text."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.browser import browser, missing
from torch import nn

from cli_for_tests import refused, run
from howsparse import InputError, Measured, PruningLimit, certify, measure, pruning_limit
from howsparse.geometry import Magnitudes
from howsparse.limit.goal import Goal
from howsparse.limit.measure import measure_goals
from howsparse.report import page as page_module
from howsparse.report.contents import Contents, page_numbers, tolerance_of_drop
from howsparse.report.live import Scales, needed_densities, radius_curve
from howsparse.report.page import page, write_page
from howsparse.report.page_text import sentence

ANSWERS = Path(page_module.__file__).parent / "template" / "answers.js"
CASES: dict[str, dict[str, Any]] = {
    "hessian": {},
    "ggn": {"curvature": "ggn"},
    "unbounded": {"negative": "unbounded"},
    "two probes": {"probes": 2, "max_products": 80},
    "sample": {"population": 800},
    "samples": {"sample": 16, "max_products": 200},
}
CLOSE = {"samples": 2e-3}  # between the tolerances for which the step to the population is computed
TIMES = (0.05, 0.3, 1.0, 4.0, 20.0)  # tolerances, as multiples of the limit's


@cache
def trained() -> tuple[nn.Module, list[Any], list[Any]]:
    """A small network that has learned something, so that pruning it costs accuracy; training and test batches."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(600, 8, generator=generator)
    targets = (inputs[:, :4] + 0.3 * torch.randn(600, 4, generator=generator)).argmax(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 4))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(80):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs[:400]), targets[:400])
        (loss + 1e-3 * sum(p.abs().sum() for p in model.parameters())).backward()
        optimizer.step()
    batches = list(zip(inputs.split(100), targets.split(100), strict=True))
    return model, batches[:4], batches[4:]


@cache
def computed(case: str) -> Contents:
    model, train, test = trained()
    limit = pruning_limit(model, train, **{"tolerance": 0.05, "max_products": 64} | CASES[case])
    goals = [Goal(max_drop=drop) for drop in (0.005, 0.02, 0.05)]
    measured = measure_goals(model, test, goals, progress=False)[1]
    on_train = measure(model, train, tolerance=limit.tolerance, progress=False)
    return Contents(limit, f"a network, {case}", measured, on_train)


def by_node(contents: Contents, asked: list[tuple[str, float]]) -> list[dict[str, Any]]:
    """What the page's JavaScript answers, with the sentence that it shows."""
    if shutil.which("node") is None:
        pytest.skip("no node")
    program = (
        "const { answers, sentence } = require(process.argv[1]);"
        "const { data, asked } = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        "const found = asked.map(([unit, value]) => answers(data, unit, value));"
        "process.stdout.write(JSON.stringify(found.map((each) => ({ ...each, sentence: sentence(data, each) }))));"
    )
    given = json.dumps({"data": page_numbers(contents), "asked": asked})
    command = ["node", "-e", program, str(ANSWERS)]
    answer = subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout
    found: list[dict[str, Any]] = json.loads(answer)
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_slider_gives_the_numbers_of_python(case: str, one_thread: None) -> None:
    contents = computed(case)
    limit, losses = contents.limit, contents.losses
    assert losses is not None
    tolerances = [limit.tolerance * times for times in TIMES]
    close = CLOSE.get(case, 2e-5)
    for tolerance, found in zip(tolerances, by_node(contents, [("loss", t) for t in tolerances]), strict=True):
        there = limit.at(tolerance=tolerance)
        got = found["limit"]
        assert [got["low"], got["high"]] == pytest.approx(there.bracket, abs=close)
        assert got["resolved"] == there.resolved
        for name in ("quadrature", "probe", "rounding", "data"):
            assert got[name] == pytest.approx(getattr(there.errors, name), abs=close), name
        assert found["predicted"] == pytest.approx(there.predicted, abs=1e-6)
        assert found["measured"]["sparsity"] == losses.within(Goal(tolerance=tolerance))
        if there.resolved:
            assert found["scale"] == pytest.approx(there.scale, rel=50 * close)


def test_points_of_accuracy_are_translated_into_loss_by_what_was_measured(one_thread: None) -> None:
    contents = computed("hessian")
    assert contents.measured is not None
    drops = [0.0, 0.005, 0.02, 0.05, 0.3]
    for drop, found in zip(drops, by_node(contents, [("drop", drop) for drop in drops]), strict=True):
        assert found["measured"]["sparsity"] == contents.measured.within(Goal(max_drop=drop))
        rise = tolerance_of_drop(contents, drop)
        assert found["tolerance"] == pytest.approx(rise, abs=1e-9)
        assert (found["limit"] is None) == (rise <= 0)
        if rise > 0:
            there = contents.limit.at(tolerance=rise)
            assert [found["limit"]["low"], found["limit"]["high"]] == pytest.approx(there.bracket, abs=2e-5)


def test_the_page_opens_with_the_sentence_that_python_wrote(one_thread: None) -> None:
    whole = computed("hessian")
    assert whole.measured is not None
    assert whole.measured.goal.max_drop is not None
    (found,) = by_node(whole, [("drop", whole.measured.goal.max_drop)])
    assert found["sentence"] == sentence(whole)
    bare = Contents(whole.limit, "the limit alone")
    (found,) = by_node(bare, [("loss", whole.limit.tolerance)])
    assert found["sentence"] == sentence(bare)
    assert found["measured"] is None


def test_tables_hold_the_bounds_of_the_spectrum() -> None:
    spectrum = computed("hessian").limit.spectrum
    scales = Scales(-9.0, 150)
    low, high = needed_densities(spectrum, scales, "wall")
    for i in range(0, 150, 7):
        scale = scales.values[i]

        def factor(x: Any, scale: float = scale) -> Any:
            return abs(x) / (abs(x) + scale)

        assert low[i] == pytest.approx(spectrum.lowest().integrate(factor), abs=1e-12)
        assert high[i] == pytest.approx(spectrum.highest(factor).integrate(factor), abs=1e-5)


def test_the_radius_is_exact_at_knots_and_close_between() -> None:
    magnitudes = Magnitudes(np.random.default_rng(0).standard_normal(200_000))
    at, squares, slopes = radius_curve(magnitudes)
    assert at.size < 600
    assert squares == pytest.approx([magnitudes.radius(1 - s) ** 2 for s in at], rel=1e-9, abs=1e-9)
    from scipy.interpolate import CubicHermiteSpline

    curve = CubicHermiteSpline(at, squares, slopes)
    places = np.random.default_rng(1).uniform(0.02, 1, 400)
    assert curve(places) == pytest.approx([magnitudes.radius(1 - s) ** 2 for s in places], rel=1e-4)


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags:
            self.texts.setdefault(self.tags[-1][0], []).append(data)


EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)> & \u2028 {{numbers}}"


def test_text_of_the_user_stays_text() -> None:
    plain, evil = (Contents(computed("hessian").limit, title) for title in ("plain", EVIL))
    expected, found = Parsed(page(plain)), Parsed(page(evil))
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in expected.tags]
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert EVIL in "".join(found.texts["p"])
    numbers = re.search(r'id="numbers">(.*?)</script>', page(evil), re.DOTALL)
    assert numbers is not None
    assert json.loads(numbers[1])["title"] == EVIL


def test_the_page_holds_all_that_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_page(computed("hessian"), file)
    text = file.read_text()
    assert file.stat().st_size < 400_000
    assert set(re.findall(r"https?://[^\"' )]*", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    parsed = Parsed(text)
    assert not [tag for tag, attributes in parsed.tags if attributes.keys() & {"src", "href", "action"}]
    policy = next(a["content"] for tag, a in parsed.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    with pytest.raises(InputError, match="exists"):
        write_page(computed("hessian"), file)
    with pytest.raises(InputError, match=r"not an \.html file"):
        write_page(computed("hessian"), tmp_path / "report.pdf")


def test_a_limit_writes_its_page(tmp_path: Path, one_thread: None) -> None:
    contents = computed("hessian")
    model, train, test = trained()
    held_out = [(x, y) for x, y in zip(*(torch.cat(part) for part in zip(*train, strict=True)), strict=True)]
    unseen = [(torch.stack([x + 1e-3 for x, _ in held_out]), torch.stack([y for _, y in held_out]))]
    certificate = certify(model, unseen, max_drop=0.05, progress=False)
    contents.limit.report(tmp_path / "a.html", title="mine", measured=contents.measured, certificate=certificate)
    text = (tmp_path / "a.html").read_text()
    assert certificate.sentence.replace("'", "&#x27;") in text
    assert "howsparse.certify" not in text
    contents.limit.report(tmp_path / "b.html")
    assert "howsparse.certify" in (tmp_path / "b.html").read_text()
    other = measure(model, test, max_drop=0.01, order="random", progress=False)
    with pytest.raises(InputError, match="magnitude order"):
        contents.limit.report(tmp_path / "c.html", measured=other)
    assert not (tmp_path / "c.html").exists()


NETS = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 4))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module, weights and data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynets.py").write_text(NETS)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "mynets", raising=False)
    model, train, test = trained()
    torch.save(model.state_dict(), tmp_path / "net.pt")
    (inputs, targets), (others, labels) = (map(torch.cat, zip(*batches, strict=True)) for batches in (train, test))
    arrays = {"inputs": inputs, "targets": targets, "test_inputs": others, "test_targets": labels}
    np.savez("data.npz", allow_pickle=False, **{name: array.numpy() for name, array in arrays.items()})
    generator = torch.Generator().manual_seed(9)
    inputs = torch.randn(800, 8, generator=generator)
    np.savez("held.npz", inputs=inputs.numpy(), targets=inputs[:, :4].argmax(1).numpy())
    return tmp_path


def test_the_command_measures_computes_and_certifies(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    common = ("mynets:net", "--weights", str(folder / "net.pt"), "--data", "data.npz", "--max-products", "64")
    assert run("report", *common, "--max-drop", "4", "--held-out", "held.npz", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    text = (folder / "report.html").read_text()
    assert "of the weights can go while the accuracy drops by at most 4 points." in said
    assert said.strip() in text.replace("\u00a0", " ")
    assert str(folder) not in text
    assert "--weights net.pt --data data.npz" in text
    numbers = re.search(r'id="numbers">(.*?)</script>', text, re.DOTALL)
    assert numbers is not None
    data = json.loads(numbers[1])
    assert data["certificate"]["drop"] == 0.04
    assert data["recoverable"]["tolerance"] == data["tolerance"], "the limit is for the rise at the allowed drop"
    at = data["train"]["sparsity"].index(pytest.approx(by_goal(data), abs=1e-12))
    assert data["train"]["loss"][at] - data["train"]["loss"][0] == pytest.approx(data["tolerance"], rel=1e-4)
    told = refused("report", *common, monkeypatch=monkeypatch, capsys=capsys)
    assert "report.html" in told
    told = refused("report", *common, "--output", "page.txt", monkeypatch=monkeypatch, capsys=capsys)
    assert "not an .html file" in told


def by_goal(data: dict[str, Any]) -> float:
    """The measured sparsity for the goal with which a page opens."""
    measured = data["measured"]
    pairs = zip(measured["sparsity"], measured["accuracy"], strict=True)
    return float(max(s for s, a in pairs if a >= measured["accuracy"][0] - data["start"]["value"] - 1e-12))


DOCS = Path(__file__).parents[2] / "docs" / "report.md"


@pytest.mark.skipif(not DOCS.exists(), reason="not a checkout")
def test_the_page_on_pages_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    model, train, test = trained()
    names: dict[str, Any] = {"model": model, "train": train, "test": test}
    for code in (code for language, code in found if language == "python"):
        exec(code.replace("(model, train)", "(model, train, max_products=32)"), names)
    assert (folder / "report.html").stat().st_size > (folder / "limit.png").stat().st_size > 1000
    (folder / "report.html").unlink()
    ((_, command),) = [block for block in found if block[0] == ""]
    mine = {"mypackage.nets:resnet": "mynets:net", "net.safetensors": "net.pt", "batches.npz": "data.npz"}
    typed = [mine.get(word, word) for word in command.split()]
    assert run(*typed[1:], "--max-products", "32", monkeypatch=monkeypatch) == 0
    assert (folder / "report.html").exists()


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_page_in_a_browser(tmp_path: Path, one_thread: None) -> None:
    contents = computed("hessian")
    write_page(contents, tmp_path / "report.html")
    with browser() as window:
        window.look(390, 800)
        window.open(tmp_path / "report.html")
        shown: Callable[[], dict[str, Any]] = lambda: window.run(SHOWN)  # noqa: E731
        assert shown()["sentence"] == sentence(contents)
        assert shown()["wide"] <= 390, "nothing is wider than the screen of a phone"
        window.press("#slider", "\ue014" * 2)  # to the right
        check(contents, shown())
        window.click('input[value="loss"]')
        window.press("#slider", "\ue012" * 5)  # to the left
        check(contents, shown())
        assert shown()["said"].startswith("loss +")


SHOWN = """
const row = (name) => ["low", "high"].map((end) => Number(document.getElementById(`answer-${name}`).dataset[end]));
return {
  sentence: document.getElementById("sentence").textContent, wide: document.documentElement.scrollWidth,
  said: document.getElementById("slider").getAttribute("aria-valuetext"), unit: state.unit, value: state.value,
  measured: row("measured"), predicted: row("predicted"), limit: row("limit"),
};
"""


def check(contents: Contents, shown: dict[str, Any]) -> None:
    """The numbers on the page are those that Python computes for the place of the slider."""
    assert contents.measured is not None
    assert contents.losses is not None
    by_drop = shown["unit"] == "drop"
    tolerance = tolerance_of_drop(contents, shown["value"]) if by_drop else shown["value"]
    there = contents.limit.at(tolerance=tolerance)
    assert shown["limit"] == pytest.approx(there.bracket, abs=5e-5)
    assert shown["predicted"] == pytest.approx([there.predicted] * 2, abs=5e-5)
    curve: Measured = contents.measured if by_drop else contents.losses
    goal = Goal(max_drop=shown["value"]) if by_drop else Goal(tolerance=shown["value"])
    assert shown["measured"] == pytest.approx([curve.within(goal)] * 2, abs=5e-5)


def test_a_saved_limit_has_the_same_page(tmp_path: Path) -> None:
    limit = computed("sample").limit
    limit.save(tmp_path / "limit.safetensors")
    loaded = PruningLimit.load(tmp_path / "limit.safetensors")
    assert page(Contents(loaded, "one")) == page(Contents(limit, "one"))
