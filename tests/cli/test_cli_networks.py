import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cli_for_tests import refused, run
from howsparse import directional_limit
from howsparse.cli.terminal import free_name, ticker

KEYS = {
    "num_weights", "tolerance", "curvature", "limit", "limit_low", "limit_high", "upper_bound", "predicted",
    "measured", "dense_accuracy", "pruned_accuracy", "products", "seconds",
}  # fmt: skip

PROBES = ("--probes", "24", "--max-products", "1000")  # 112 weights need many for a narrow bracket

FACTORY = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))

def frozen():
    return net().requires_grad_(False)

def weightless():
    return nn.BatchNorm1d(4)

class Dropping(nn.Linear):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5)

def dropping():
    return Dropping(4, 3)

def empty():
    return []

def once():
    return iter([(torch.zeros(300, 4), torch.zeros(300, dtype=torch.long))])

def odd():
    return [(torch.zeros(32, 4), torch.zeros(32, dtype=torch.long), torch.ones(3))] * 2

def first(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of models, data, and weights."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynets.py").write_text(FACTORY)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "mynets", raising=False)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, 4)).astype(np.float32)
    targets = inputs[:, :3].argmax(1)
    np.savez(
        "data.npz", inputs=inputs[:300], targets=targets[:300], test_inputs=inputs[300:], test_targets=targets[300:]
    )
    import mynets  # type: ignore[import-not-found]

    save_file(mynets.net().state_dict(), "good.safetensors")
    return tmp_path


def test_demo_answers_in_json_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "demo.png"
    assert run("demo", "--json", "--output", str(picture), monkeypatch=monkeypatch) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() >= KEYS
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert 0.9 < answer["limit_low"] <= answer["limit"] <= answer["limit_high"] < 0.97
    assert abs(answer["predicted"] - answer["measured"]) < 0.02
    assert answer["dense_accuracy"] > 0.95
    assert answer["pruned_accuracy"] > answer["dense_accuracy"] - 0.01
    assert run("demo", "--output", str(picture), monkeypatch=monkeypatch) == 2
    assert "exists" in capsys.readouterr().err


def test_limit_says_its_cost_before_it_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("limit", "mynets:net", "--weights", "good.safetensors", "--data", "data.npz", "--max-products", "40")
    monkeypatch.setattr("howsparse.cli.cost._WORTH_SAYING", 0.0)
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    assert "the limit takes at most 40 products" in capsys.readouterr().err
    monkeypatch.setattr("howsparse.limit.cost.available_memory", lambda device: 1 << 20)
    assert "but 1 MiB are free" in refused(*arguments, monkeypatch=monkeypatch, capsys=capsys)


def test_limit_of_any_module(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("limit", "mynets:net", "--weights", "good.safetensors", "--data", "data.npz", "--max-products", "40")
    assert run(*arguments, "--json", "--record", "runs.jsonl", monkeypatch=monkeypatch) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() >= KEYS
    assert answer["num_weights"] == 4 * 16 + 16 * 3
    assert answer["products"] <= 40
    recorded = json.loads(Path("runs.jsonl").read_text())
    assert all(answer[name] == value for name, value in recorded["answer"].items())
    assert recorded["made"]["versions"]["torch"] in (torch.__version__, torch.__version__.partition("+")[0])
    assert run(*arguments, "--curvature", "ggn", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr()
    first, *_, last = shown.out.splitlines()
    assert first.startswith("How sparse can this network be pruned? 112 weights")
    assert "(measured; this is the answer)" in shown.out
    measured = round(answer["measured"] * 112)
    assert last.startswith("next: howsparse prune mynets:net --weights good.safetensors --data data.npz --sparsity ")
    kept = float(last.split("--sparsity ")[1].split()[0])
    assert round(kept * 112) == measured
    assert "has rank" not in shown.err


def test_the_directional_limit_is_that_of_the_library(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("limit", "mynets:net", "--weights", "good.safetensors", "--data", "data.npz", "--tolerance", "0.02")
    products = ("--max-products", "100")
    assert run(*arguments, *products, "--directional", "--json", monkeypatch=monkeypatch) == 0
    answer = json.loads(capsys.readouterr().out)
    import mynets

    with np.load("data.npz") as arrays:
        batches = [(torch.from_numpy(arrays["inputs"]), torch.from_numpy(arrays["targets"]))]
    found = directional_limit(mynets.net(), batches, tolerance=0.02, max_products=100)
    assert answer["directional_low"] == pytest.approx(found.low, abs=0.03)  # the same up to batches and threads
    assert answer["directional_high"] == pytest.approx(found.high, abs=0.03)
    assert 0 < answer["directional_low"] <= answer["directional_high"] <= 1
    assert 0 < answer["directional_products"] <= 100
    assert run(*arguments, *products, "--directional", monkeypatch=monkeypatch) == 0
    low, high = (f"{100 * answer[f'directional_{end}']:.1f} %" for end in ("low", "high"))
    assert f"directional  {low} to {high}, if a random subspace adapts" in capsys.readouterr().out
    assert run(*arguments, *products, "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["directional_low"] is None
    said = refused(*arguments, "--max-products", "40", "--directional", monkeypatch=monkeypatch, capsys=capsys)
    assert "max_products 40 is too few for a directional limit; use at least 64" in said


def test_too_few_images_for_the_gauss_newton_matrix(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load("data.npz") as arrays:
        few = {name: array[:12] for name, array in arrays.items()}
    np.savez("few.npz", **few)
    arguments = ("limit", "mynets:net", "--weights", "good.safetensors", "--data", "few.npz", "--tolerance", "0.01")
    assert run(*arguments, "--curvature", "ggn", monkeypatch=monkeypatch) == 0
    assert "has rank 24 at most" in capsys.readouterr().err


@pytest.mark.parametrize("sparsity", ["0.75", "predicted", "measured", "limit"])
def test_prune_writes_exact_zeros(
    sparsity: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("prune", "mynets:net", "--weights", "good.safetensors", "--data", "data.npz", *PROBES)
    outputs = ("--output", "pruned.safetensors", "--mask", "mask.safetensors", "--sparsity", sparsity, "--json")
    assert run(*arguments, *outputs, monkeypatch=monkeypatch) == 0
    answer = json.loads(capsys.readouterr().out)
    before, after, mask = (load_file(f"{name}.safetensors") for name in ("good", "pruned", "mask"))
    removed = sum(int((~mask[name].bool()).sum()) for name in mask)
    assert removed == round(answer["pruned_sparsity"] * 112)
    for name, tensor in after.items():
        kept = mask.get(name, torch.ones_like(tensor)).bool()
        assert torch.equal(tensor, torch.where(kept, before[name], 0.0))
    if sparsity == "0.75":
        assert removed == 84
    else:
        assert answer["pruned_sparsity"] == pytest.approx(answer[sparsity], abs=0.5 / 112)


def test_demo_finds_a_free_name(tmp_path: Path) -> None:
    assert free_name(tmp_path / "a.png") == tmp_path / "a.png"
    (tmp_path / "a.png").touch()
    (tmp_path / "a-2.png").touch()
    assert free_name(tmp_path / "a.png") == tmp_path / "a-3.png"


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 10.0, 61.0, 61.0, 100.0, 130.0, 130.0])
    monkeypatch.setattr("howsparse.cli.terminal.time.monotonic", lambda: next(clock))
    tick = ticker(every=60.0)
    for text in ("too soon", "first", "too soon", "second"):
        tick(text)
    assert capsys.readouterr().err == "first\nsecond\n"


class RunsCode:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("was-run"),)


def bad_files() -> None:
    with Path("code.pt").open("wb") as file:
        pickle.dump(RunsCode(), file)
    save_file({"other.weight": torch.zeros(2)}, "wrong.safetensors")
    import mynets

    state = mynets.net().state_dict()
    save_file(state | {"0.weight": torch.zeros(5, 4)}, "shape.safetensors")
    save_file(state | {"0.weight": torch.full((16, 4), float("nan"))}, "nan.safetensors")
    Path("garbage.safetensors").write_bytes(b"not a file of tensors")
    np.savez("nothing.npz", targets=np.zeros(3))
    np.savez("uneven.npz", inputs=np.zeros((3, 4)), targets=np.zeros(2))
    torch.save([1, 2], "list.pt")


DATA = ("--data", "data.npz")
BAD = [
    (("limit", "no-such-task"), "no task is called 'no-such-task'"),
    (("limit", "digits"), "give --weights"),
    (("limit", "digits", "--weights", "absent.safetensors"), "no weights file at absent.safetensors"),
    (("limit", "mynets:net"), "--data is missing; give an .npz file"),
    (("limit", "mynets:absent", *DATA), "module 'mynets' has no 'absent'"),
    (("limit", "absent_module:net", *DATA), "cannot import 'absent_module'"),
    (("limit", "mynets:number", *DATA), "is a int; it must be a torch.nn.Module"),
    (("limit", "mynets:weightless", *DATA), "no prunable weights"),
    (("limit", "mynets:frozen", *DATA), "frozen"),
    (("limit", "mynets:dropping", *DATA), "changes from call to call"),
    (("limit", "mynets:net", "--data", "mynets:empty"), "batches is empty"),
    (("limit", "mynets:net", "--data", "mynets:once"), "read only once"),
    (("limit", "mynets:net", "--data", "mynets:number"), "not batches"),
    (("limit", "mynets:net", "--data", "mynets:odd", "--loss", "mynets:first", "--images", "1"), "cannot be split"),
    (("limit", "mynets:net", "--data", "absent.npz"), "no data file at absent.npz"),
    (("limit", "mynets:net", "--data", "nothing.npz"), "no array 'inputs'"),
    (("limit", "mynets:net", "--data", "uneven.npz"), "3 inputs, 2 targets"),
    (("limit", "mynets:net", *DATA, "--weights", "wrong.safetensors"), "not a state dict of this model: it lacks"),
    (("limit", "mynets:net", *DATA, "--weights", "shape.safetensors"), "(5, 4) in the file, (16, 4) in the model"),
    (("limit", "mynets:net", *DATA, "--weights", "nan.safetensors"), "'0.weight' has NaN"),
    (("limit", "mynets:net", *DATA, "--weights", "garbage.safetensors"), "not a readable weights file"),
    (("limit", "mynets:net", *DATA, "--weights", "code.pt"), "could run code"),
    (("limit", "mynets:net", *DATA, "--weights", "list.pt"), "does not hold a state dict"),
    (("limit", "mynets:net", *DATA, "--tolerance", "-1"), "tolerance -1 is not positive"),
    (("limit", "mynets:net", *DATA, "--curvature", "fisher"), "use 'hessian' or 'ggn'"),
    (("limit", "mynets:net", *DATA, "--max-products", "3"), "too few"),
    (("limit", "mynets:net", *DATA, "--plot", "/proc/none/plot.png"), "cannot write to"),
    (("prune", "mynets:net", *DATA, "--output", "out.safetensors", "--sparsity", "1.0"), "outside [0, 1)"),
    (("prune", "mynets:net", *DATA, "--output", "out.safetensors", "--sparsity", "-0.1"), "outside [0, 1)"),
    (("prune", "mynets:net", *DATA, "--output", "out.safetensors", "--sparsity", "most"), "neither a fraction nor"),
    (("prune", "mynets:net", *DATA, "--output", "out.safetensors", "--sparsity", "limit"), "limit is not resolved"),
    (("prune", "mynets:net", *DATA, "--output", "good.safetensors"), "good.safetensors exists"),
    (("train", "digits", "--output", "good.safetensors"), "good.safetensors exists"),
    (("train", "fc5-cifar10", "--output", "new.safetensors", "--data", "no/such/folder"), "no/such/folder"),
    (("limit",), "Missing argument"),
    (("limit", "digits", "--no-such-option"), "No such option"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_gets_one_clear_line_and_exit_code_2(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad_files()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    said = refused(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert message in said
    if message not in ("Missing argument", "No such option"):  # those are the option parser's own, in a box
        assert said.startswith("howsparse: ")
        assert said.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_train_resumes_after_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C after the second epoch, then the same command: the bits of a run that was never stopped."""
    from howsparse.training import loop

    def arguments(name: str) -> tuple[str, ...]:
        return "train", "digits", "--epochs", "4", "--output", name, "--folder", f"kept-{name}"

    monkeypatch.chdir(tmp_path)

    assert run(*arguments("whole.safetensors"), monkeypatch=monkeypatch) == 0
    one_epoch = loop._one_epoch

    def interrupted(*rest: object) -> object:
        if rest[-1] == 2:
            raise KeyboardInterrupt
        return one_epoch(*rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_one_epoch", interrupted)
        assert run(*arguments("parts.safetensors"), monkeypatch=monkeypatch) == 130
    assert "to continue from" in capsys.readouterr().err
    assert not (tmp_path / "parts.safetensors").exists()
    assert run(*arguments("parts.safetensors"), monkeypatch=monkeypatch) == 0
    assert (tmp_path / "parts.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not list(tmp_path.rglob("*.unfinished"))
    assert (
        run(
            "train",
            "digits",
            "--epochs",
            "4",
            "--output",
            "other.safetensors",
            "--l1",
            "0.1",
            "--folder",
            "kept-parts.safetensors",
            monkeypatch=monkeypatch,
        )
        == 0
    )
    assert (tmp_path / "other.safetensors").read_bytes() != (tmp_path / "whole.safetensors").read_bytes()


def test_runs_as_a_module_and_keeps_stdout_for_the_answer(folder: Path) -> None:
    command = [sys.executable, "-m", "howsparse", "limit", "mynets:net", "--data", "data.npz", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["num_weights"] == 112
