"""Problems that are no task: dict batches, a loss and a training loop of one's own, from Python and from the shell."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cli_for_tests import refused, run
from howsparse import InputError, Mask, Problem, Training, attach_l1, magnitude_mask, prunable_weights
from howsparse.experiments.sweep import load_sweep
from howsparse.limit.options import LimitOptions
from howsparse.methods import METHODS, Run, Ticket, load_method, lottery_ticket
from howsparse.records import settings_hash
from howsparse.training import Schedule, attach_mask

pytestmark = pytest.mark.usefixtures("one_thread")

Batch = dict[str, Tensor]
WEIGHTS = 5 * 12 + 12 * 3


def data(seed: int, examples: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, 5, generator=generator)
    return [{"x": a, "y": b} for a, b in zip(x.split(50), x[:, :3].argmax(1).split(50), strict=True)]


class Smoothed:
    """Cross-entropy with label smoothing on dict batches."""

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.of_output(self.output(model, batch), batch)

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        output: Tensor = model(batch["x"])
        return output

    def of_output(self, output: Tensor, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(output, batch["y"], label_smoothing=0.1)

    def score(self, output: Tensor, batch: Batch) -> tuple[int, int]:
        return int((output.argmax(1) == batch["y"]).sum()), len(output)


def scoreless(model: nn.Module, batch: Batch) -> Tensor:
    """A plain function: it has a loss and no accuracy."""
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"])


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3))


def adam(model: nn.Module, mask: Mask, *, l1: float, epochs: int, first: int, seed: int) -> None:
    """A loop of one's own, which does not hold the mask."""
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    if l1:
        attach_l1(optimizer, prunable_weights(model).values(), l1, proximal=True)
    for epoch in range(first, first + epochs):
        for batch in data(1000 * seed + epoch, 200):
            optimizer.zero_grad()
            scoreless(model, batch).backward()
            optimizer.step()


def problem(**changes: Any) -> Problem:
    made = Problem(network, data(0, 300), data(1, 100), loss=Smoothed(), epochs=3, l1=1e-3, fit=Training(0.1))
    return replace(made, **changes)


OWN = {"library": {}, "own fit": {"fit": adam}, "no accuracy": {"loss": scoreless}}


@pytest.mark.parametrize("changes", OWN.values(), ids=OWN)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_a_problem(name: str, changes: Mapping[str, Any]) -> None:
    made = problem(**changes)
    if name == "smart_ratio":
        made = replace(made, network=lambda: nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 32, 3), nn.Flatten(),
                                                           nn.Linear(96, 3)))  # fmt: skip
    ticket = load_method(name)(made, 0.75, 0, Run(limit=LimitOptions(max_products=32, tolerance=0.1)))
    weights = prunable_weights(ticket.model)
    assert ticket.mask.keys() == weights.keys()
    assert not any((w[~ticket.mask[key]] != 0).any() for key, w in weights.items())
    assert ticket.mask.sparsity == (0.0 if name == "dense" else pytest.approx(0.75, abs=1 / WEIGHTS))
    assert (ticket.accuracy is None) == ("loss" in changes)
    assert ticket.loss > 0


def test_a_training_loop_of_ones_own_is_told_everything() -> None:
    told: list[dict[str, Any]] = []

    def fit(model: nn.Module, mask: Mask, **given: Any) -> None:
        told.append(given | {"kept": mask.num_kept, "zero": sum(int((w == 0).sum()) for w in weights_of(model))})

    lottery_ticket(problem(fit=fit), 0.75, 3, fraction=0.5, rewind=1)
    assert told == [
        {"l1": 0.0, "epochs": 1, "first": 0, "seed": 3, "kept": 96, "zero": 0},
        {"l1": 0.0, "epochs": 2, "first": 1, "seed": 3, "kept": 96, "zero": 0},
        {"l1": 0.0, "epochs": 2, "first": 1, "seed": 3, "kept": 48, "zero": 48},
        {"l1": 0.0, "epochs": 2, "first": 1, "seed": 3, "kept": 24, "zero": 72},
    ]
    told.clear()
    load_method("one_shot:fine_tune=2")(problem(fit=fit), 0.5)
    assert [(call["l1"], call["epochs"], call["kept"]) for call in told] == [(1e-3, 3, 96), (0.0, 2, 48)]
    told.clear()
    load_method("gradual:end=1")(problem(fit=fit), 0.5)
    assert [(call["first"], call["epochs"]) for call in told] == [(0, 1), (1, 1), (2, 1)]
    assert [call["kept"] for call in told] == [96, 62, 50]  # 0.5 (1 - (1-x)^3) at x = 0, 1/3, 2/3


def weights_of(model: nn.Module) -> list[nn.Parameter]:
    return list(prunable_weights(model).values())


def test_the_library_trains_as_a_loop_by_hand(tmp_path: Path) -> None:
    made = problem()
    ticket = load_method("one_shot")(made, 0.5, 0, Run(tmp_path))
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        for batch in data(0, 300):
            loss = Smoothed()(model, batch) + 1e-3 * sum(w.abs().sum() for w in weights_of(model))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    magnitude_mask(model, 0.5).apply_(model)
    for ours, theirs in zip(ticket.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_library_trains_as_the_authors_code_by_hand() -> None:
    """Eq. 2 with the term on all parameters, and a warm-up and a cosine that take a step in each iteration."""
    schedule = Schedule("cosine", warmup_epochs=1, unit="iteration")
    made = problem(fit=Training(0.1, schedule=schedule, l1_scope="all"))
    ticket = load_method("one_shot")(made, 0.0, 0, Run())
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    steps = len(data(0, 300))
    for i, batch in enumerate(data(0, 300) * 3):
        optimizer.param_groups[0]["lr"] = 0.1 * ((i + 1) / steps if i < steps else (1 + math.cos(math.pi * i / 3)) / 2)
        loss = Smoothed()(model, batch) + 1e-3 * sum(w.abs().sum() for w in model.parameters())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for ours, theirs in zip(ticket.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_settings_at_their_defaults_do_not_change_the_key_of_older_records() -> None:
    fields = Training().settings()
    assert set(fields) == {"learning_rate", "momentum", "weight_decay", "schedule", "proximal"}
    assert set(fields["schedule"]) == {"kind", "warmup_epochs", "milestones", "gamma"}
    changed = Training(l1_scope="all", schedule=Schedule(unit="iteration")).settings()
    assert (changed["l1_scope"], changed["schedule"]["unit"]) == ("all", "iteration")


def test_a_schedule_by_iterations_needs_the_number_of_batches() -> None:
    def forever(seed: int, epoch: int) -> Any:
        return data(0, 300)

    made = problem(train=forever, fit=Training(schedule=Schedule(unit="iteration")))
    with pytest.raises(InputError, match="have no length, which a schedule by iterations needs"):
        load_method("dense")(made, 0.0, 0, Run())


def test_a_shuffling_loader_gives_the_same_bits_and_the_same_study(tmp_path: Path) -> None:
    x = torch.cat([batch["x"] for batch in data(0, 300)])
    examples = torch.utils.data.TensorDataset(x, x[:, :3].argmax(1))
    loader = torch.utils.data.DataLoader(examples, 64, shuffle=True)
    made = Problem(network, loader, loader, epochs=2)
    first, again = list(made.study_batches()), list(made.study_batches())
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(torch.cat([inputs for inputs, _ in first]), x)
    assert [len(targets) for _, targets in made.study_batches(100)] == [64, 36]
    torch.manual_seed(1)
    one = lottery_ticket(made, 0.5, fraction=0.5)
    torch.manual_seed(2)
    two = lottery_ticket(Problem(network, loader, loader, epochs=2), 0.5, fraction=0.5)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))


def test_settings_and_data_tell_problems_apart() -> None:
    made = problem()
    assert settings_hash(made.settings()) == settings_hash(problem(train=data(5, 300)).settings())
    assert made.data != problem(train=data(5, 300)).data
    others = [
        problem(**c) for c in ({"epochs": 4}, {"l1": 0.0}, {"fit": adam}, {"loss": scoreless}, {"network": nn.Module})
    ]
    hashes = {settings_hash(other.settings()) for other in [made, *others]}
    assert len(hashes) == 6
    json.dumps(made.settings(), allow_nan=False)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"train": iter([])}, "train batches can be read only once"),
    ({"test": iter([])}, "test batches can be read only once"),
    ({"fit": lambda model, mask: None}, "write it as fit(model, mask, *, l1, epochs, first, seed)"),
    ({"epochs": 0}, "epochs 0 is not positive"),
    ({"l1": -1.0}, "l1 -1 is not a number of at least 0"),
    ({"l1": float("nan")}, "l1 nan is not a number of at least 0"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_a_mistake_is_one_line_before_any_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        problem(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


MODULE = """
from test_problem import problem as made

problem = made(name="mine")

def lazily():
    import no_such_package
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return tmp_path


def test_compare_on_the_command_line_is_compare_in_python(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "compare",
        "my_module:problem",
        "--methods",
        "all",
        "--sparsities",
        "0.8,0.9",
        "--seeds",
        "1",
        "--json",
    )
    quick = ("--max-products", "32", "--tolerance", "0.1", "--epochs", "5")
    assert run(*arguments, *quick, monkeypatch=monkeypatch) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["problem"], answer["epochs"]) == ("mine", 5)
    rows = {(row["method"], row["target"]): row for row in answer["rows"]}
    assert {method for method, _ in rows} == set(METHODS)
    assert "convolutions" in rows["smart_ratio", 0.8]["refused"]
    made, limit = problem(epochs=5), LimitOptions(max_products=32, tolerance=0.1)
    for name in ("lottery_ticket", "limit_guided", "one_shot", "random"):
        ticket = load_method(name)(made, 0.9, 0, Run(limit=limit))
        assert rows[name, 0.9]["accuracy"] == ticket.accuracy
        assert rows[name, 0.9]["sparsity"] == ticket.mask.sparsity


def test_other_commands_take_a_problem_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = "tasks: [{task: 'my_module:problem', recipe: {epochs: 2}}]\nmethods: [random]\nsparsities: [0.5]\n"
    Path("sweep.yaml").write_text(sweep)
    for arguments in (
        ("train", "my_module:problem", "--output", "w.safetensors", "--json"),
        (
            "limit",
            "my_module:problem",
            "--weights",
            "w.safetensors",
            "--max-products",
            "32",
            "--tolerance",
            "0.1",
            "--json",
        ),
        ("run", "my_module:problem", "--record", "r.jsonl", "--max-products", "32", "--tolerance", "0.1", "--json"),
        ("sweep", "sweep.yaml", "--record", "s.jsonl", "--json"),
    ):
        assert run(*arguments, monkeypatch=monkeypatch) == 0, capsys.readouterr().err
    outputs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert outputs[1]["num_weights"] == WEIGHTS
    assert outputs[2]["key"]["problem"] == "mine"
    assert outputs[3]["runs"] == 1


WRONG = [
    (("compare", "my_module:absent"), "module 'my_module' has no 'absent'"),
    (("compare", "my_module:lazily"), "the package 'no_such_package' is missing; install it in this environment"),
    (("compare", "json:dumps"), "'json:dumps' cannot be called without arguments"),
    (
        ("compare", "my_module:problem", "--data", "x"),
        "--data is for tasks, but 'my_module:problem' is a problem with its own data",
    ),
    (("train", "my_module:problem", "--proximal", "--output", "o"), "has no field 'proximal' to change"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_name_is_one_line(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = refused(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert message in said
    assert said.count("\n") == 1


def test_the_path_of_imports_is_put_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    before = list(sys.path)
    run("compare", "my_module:absent", monkeypatch=monkeypatch)
    assert sys.path == before


def test_a_fit_that_holds_the_mask_and_one_that_does_not_end_with_the_same_zeros() -> None:
    def holding(model: nn.Module, mask: Mask, *, l1: float, epochs: int, first: int, seed: int) -> None:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        attach_mask(optimizer, model, mask)
        for batch in data(0, 100):
            scoreless(model, batch).backward()
            optimizer.step()

    for fit in (holding, adam):
        ticket = load_method("random")(problem(fit=fit), 0.9)
        assert sum(int((w != 0).sum()) for w in weights_of(ticket.model)) == ticket.mask.num_kept


class Weighted(Smoothed):
    """A loss with an attribute."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def of_output(self, output: Tensor, batch: Batch) -> Tensor:
        return self.factor * super().of_output(output, batch)


class Negated(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


def test_a_changed_attribute_closure_or_network_is_another_training(tmp_path: Path) -> None:
    """Whatever changes, what the folder gives is what a run without a folder gives."""

    def fit_with(learning_rate: float) -> Any:
        def fit(model: nn.Module, mask: Mask, *, l1: float, epochs: int, first: int, seed: int) -> None:
            optimizer = torch.optim.SGD(model.parameters(), learning_rate)
            for batch in data(0, 100):
                optimizer.zero_grad()
                scoreless(model, batch).backward()
                optimizer.step()

        return fit

    changes: list[dict[str, Any]] = [
        *({"loss": Weighted(factor)} for factor in (1.0, 0.5)),
        *({"fit": fit_with(rate)} for rate in (0.1, 0.2)),
        *({"network": network} for network in (lambda: nn.Linear(5, 3), lambda: Negated(5, 3))),
    ]
    losses = []
    for change in changes:
        found = load_method("dense")(problem(**change), 0.0, 0, Run(tmp_path))
        alone = load_method("dense")(problem(**change), 0.0, 0)
        assert (found.loss, found.accuracy) == (alone.loss, alone.accuracy)
        losses.append(found.loss)
    assert len(set(losses)) == len(changes)


def test_every_method_leaves_frozen_weights_alone() -> None:
    def frozen() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 12).requires_grad_(False), nn.ReLU(), nn.Linear(12, 3))

    run = Run(limit=LimitOptions(max_products=32, tolerance=0.1))
    for name in sorted(set(METHODS) - {"smart_ratio"}):
        made = problem(network=frozen)
        ticket = load_method(name)(made, 0.5, 0, run)
        assert list(ticket.mask) == ["2.weight"], name
        before = made.initial(0).get_parameter("0.weight")
        assert torch.equal(ticket.model.get_parameter("0.weight"), before), name


def test_the_random_state_is_left_as_it_was() -> None:
    def seeding(model: nn.Module, mask: Mask, **_: object) -> None:
        torch.manual_seed(7)
        with torch.no_grad():
            for w in weights_of(model):
                w.add_(torch.randn(w.shape))

    torch.manual_seed(3)
    before = torch.get_rng_state()
    for changes in ({"fit": seeding}, {}):
        load_method("random")(problem(**changes), 0.5)
        assert torch.equal(torch.get_rng_state(), before)


def test_a_ticket_of_another_network_is_refused(tmp_path: Path) -> None:
    load_method("random")(problem(), 0.5).save(tmp_path / "t.safetensors")
    with pytest.raises(InputError, match="is a ticket of another network") as caught:
        Ticket.load(tmp_path / "t.safetensors", nn.Linear(2, 2))
    assert "\n" not in str(caught.value)


def test_a_sweep_and_a_limit_check_before_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = "tasks: [{task: 'my_module:problem', recipe: {learning_rate: 2}}]\nmethods: [random]\nsparsities: [0.5]\n"
    Path("sweep.yaml").write_text(sweep)
    with pytest.raises(InputError, match="has no field 'learning_rate' to change; change epochs or l1"):
        load_sweep(Path("sweep.yaml"))
    assert run("limit", "my_module:problem", monkeypatch=monkeypatch) == 2
    assert "give --weights FILE; `howsparse train my_module:problem" in capsys.readouterr().err
