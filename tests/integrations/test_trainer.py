"""The callback for `transformers.Trainer` against hand-written loops, with a real trainer and a tiny BERT."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import howsparse
from howsparse.errors import InputError
from howsparse.integrations.trainer import SparsityCallback
from howsparse.integrations.watch import Watch
from pretrained_for_tests import batches_for, tiny

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning"),
]
MEASURED = "howsparse_measured_sparsity"
EXAMPLES, SIZE = 12, 4


def classifier(dropout: float = 0.0) -> nn.Module:
    model = tiny("text", torch.float32)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return model


def examples() -> list[dict[str, Tensor]]:
    (batch,) = batches_for("text", (EXAMPLES,))
    return [{name: tensor[i] for name, tensor in batch.items()} for i in range(EXAMPLES)]


def held() -> list[dict[str, Tensor]]:
    return batches_for("text", (8, 8))


@pytest.fixture
def trainer_of(tmp_path: Path) -> Callable[..., Any]:
    def make(model: nn.Module, *callbacks: TrainerCallback, optimizer: Any = None, **options: Any) -> Any:
        given = {
            "num_train_epochs": 2,
            "per_device_train_batch_size": SIZE,
            "learning_rate": 0.01,
            "lr_scheduler_type": "constant",
            "train_sampling_strategy": "sequential",
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
        }
        arguments = TrainingArguments(str(tmp_path), **given | options)
        return Trainer(
            model, arguments, train_dataset=examples(), callbacks=list(callbacks), optimizers=(optimizer, None)
        )

    return make


def weights(model: nn.Module) -> list[nn.Parameter]:
    return list(howsparse.prunable_weights(model).values())


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)


def by_hand(model: nn.Module, strength: float | None, proximal: bool, epochs: int = 2) -> nn.Module:
    """The training that the trainer is asked for, in a loop of our own."""
    optimizer = sgd(model)
    if strength is not None:
        howsparse.attach_l1(optimizer, weights(model), strength, proximal=proximal)
    data = examples()
    for start in [*range(0, EXAMPLES, SIZE)] * epochs:
        batch = {name: torch.stack([example[name] for example in data[start : start + SIZE]]) for name in data[0]}
        model.train()
        model.zero_grad()
        model(**batch).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


@pytest.mark.parametrize("proximal", [False, True])
def test_the_trained_weights_are_those_of_a_loop_with_attach_l1(trainer_of: Any, proximal: bool) -> None:
    ours, theirs = classifier(), by_hand(classifier(), 0.5, proximal)
    trainer_of(ours, SparsityCallback(0.5, proximal=proximal), optimizer=sgd(ours)).train()
    assert same(ours, theirs)
    zeros = sum(int((w == 0).sum()) for w in weights(ours))
    assert (zeros > 20) == proximal
    dense = by_hand(classifier(), None, proximal)
    assert sum(w.abs().sum() for w in weights(ours)) < 0.95 * sum(w.abs().sum() for w in weights(dense))


def test_gradient_accumulation_adds_the_term_once_a_step(trainer_of: Any) -> None:
    steps: list[int] = []
    ours = classifier()
    optimizer = sgd(ours)
    callback = SparsityCallback(0.05)
    trainer = trainer_of(ours, callback, optimizer=optimizer, gradient_accumulation_steps=3)
    optimizer.register_step_pre_hook(lambda *_: steps.append(len(optimizer._optimizer_step_pre_hooks)))
    trainer.train()
    assert steps == [2, 2]


def test_a_second_training_has_no_term(trainer_of: Any) -> None:
    ours, theirs = classifier(), by_hand(classifier(), None, False)
    optimizer = sgd(ours)
    start = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    trainer_of(ours, SparsityCallback(0.5), optimizer=optimizer).train()
    assert not same(ours, theirs)
    ours.load_state_dict(start)
    optimizer.state.clear()
    trainer_of(ours, optimizer=optimizer).train()
    assert same(ours, theirs)


@pytest.mark.parametrize("at", ["on_step_begin", "on_pre_optimizer_step", "step"])
def test_an_exception_leaves_no_term_in_the_next_training(trainer_of: Any, at: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("stop here")

    ours, theirs = classifier(), by_hand(classifier(), 0.05, False)
    start = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    optimizer, callback, other = sgd(ours), SparsityCallback(0.05), TrainerCallback()
    handle = optimizer.register_step_pre_hook(fail) if at == "step" else None
    if handle is None:
        setattr(other, at, fail)
    trainer = trainer_of(ours, callback, other, optimizer=optimizer)
    with pytest.raises(RuntimeError, match="stop here"):
        trainer.train()
    if handle is not None:
        handle.remove()
    ours.load_state_dict(start)
    optimizer.state.clear()
    trainer_of(ours, callback, optimizer=optimizer).train()
    assert same(ours, theirs)  # the term was added once, not twice
    assert not optimizer._optimizer_step_pre_hooks


class Reporter(TrainerCallback):  # type: ignore[misc]
    """What wandb and TensorBoard get: calls of ``on_log``, before callbacks that were added later."""

    def __init__(self) -> None:
        self.logs: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logs.append(dict(logs))


def test_logs_reach_reporters_and_the_trainers_own_logs_stay(trainer_of: Any) -> None:
    model, reporter = classifier(), Reporter()
    trainer = trainer_of(model, reporter, logging_strategy="epoch", num_train_epochs=4)
    trainer.add_callback(SparsityCallback(batches=held(), every=2, predict=False, max_drop=0.2, trainer=trainer))
    trainer.train()
    logged = [log for log in trainer.state.log_history if MEASURED in log]
    assert [(log["epoch"], log["step"]) for log in logged] == [(2.0, 6), (4.0, 12)]
    assert [log[MEASURED] for log in reporter.logs if MEASURED in log] == [log[MEASURED] for log in logged]
    assert sum("loss" in log for log in reporter.logs) == 4
    assert logged[-1][MEASURED] == howsparse.measure(model, held(), max_drop=0.2).sparsity


def test_without_a_trainer_the_history_has_the_values(trainer_of: Any) -> None:
    model = classifier()
    trainer = trainer_of(model, SparsityCallback(batches=held(), tolerance=0.5))
    trainer.train()
    logged = [log for log in trainer.state.log_history if MEASURED in log]
    assert [(log["epoch"], log["step"]) for log in logged] == [(1.0, 3), (2.0, 6)]
    assert logged[-1][MEASURED] == howsparse.measure(model, held(), tolerance=0.5).sparsity
    predicted = howsparse.predict(model, held(), tolerance=0.5)
    assert logged[-1]["howsparse_predicted_sparsity"] == predicted.sparsity
    assert logged[-1]["howsparse_prediction_holds"] == predicted.holds


def test_reporters_that_would_get_nothing_are_named(trainer_of: Any) -> None:
    trainer = trainer_of(classifier(), SparsityCallback(batches=held(), predict=False))
    trainer.args.report_to = ["wandb"]
    with pytest.warns(UserWarning, match="trainer=trainer.*wandb gets them"):
        trainer.train()


def test_it_stops_at_the_asked_sparsity(trainer_of: Any) -> None:
    callback = SparsityCallback(0.3, proximal=True, batches=held(), max_drop=0.9, stop_at=0.01, predict=False)
    trainer = trainer_of(classifier(), callback, num_train_epochs=5)
    trainer.train()
    assert trainer.state.epoch == 1.0


class Shuffled:
    """A held data set whose every pass draws random numbers from torch, numpy and Python."""

    def __iter__(self) -> Iterator[Any]:
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        yield from held()


@pytest.mark.parametrize("own_loader", [False, True])
def test_measuring_changes_no_bit_of_a_training_with_dropout(trainer_of: Any, own_loader: bool) -> None:
    plain, watched = classifier(0.3), classifier(0.3)
    trainer_of(plain, SparsityCallback(0.01), train_sampling_strategy="random").train()
    trainer = trainer_of(watched, train_sampling_strategy="random")
    batches = trainer.get_eval_dataloader(examples()) if own_loader else Shuffled()
    trainer.add_callback(SparsityCallback(0.01, batches=batches, tolerance=0.5))
    trainer.train()
    assert same(plain, watched)
    assert any(MEASURED in log for log in trainer.state.log_history)
    assert watched.training


def test_a_frozen_part_has_no_term(trainer_of: Any) -> None:
    model = classifier()
    embedding = model.get_input_embeddings().requires_grad_(False).weight  # type: ignore[operator]
    before = embedding.clone()
    trainer_of(model, SparsityCallback(0.5)).train()
    assert torch.equal(embedding, before)


def test_mistakes_are_found_before_the_first_step(trainer_of: Any) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"strength": -1.0}, "l1 strength -1 is negative"),
        ({"batches": []}, "there are no batches to measure on"),
        ({"batches": [{"input_ids": torch.zeros(1, 2, dtype=torch.long), "labels": torch.tensor([-100])}]}, "-100"),
    ]
    for options, message in cases:
        model = classifier()
        with pytest.raises(InputError, match=message):
            trainer_of(model, SparsityCallback(**options)).train()
        assert same(model, classifier())
    refused: list[tuple[dict[str, Any], str]] = [
        ({"batches": iter(held())}, "can be read only once"),
        ({"batches": held(), "order": "size"}, "order 'size' is not known"),
        ({"batches": held(), "stop_at": 90}, "stop_at=90 is not a sparsity"),
        ({"batches": held(), "max_drop": 0.1, "tolerance": 0.1}, "2 goals are given; give exactly one"),
    ]
    for options, message in refused:
        with pytest.raises(InputError, match=message):
            SparsityCallback(**options)


@pytest.mark.parametrize("goal", [{"tolerance": 0.1}, {"max_drop": 0.1}, {"max_rise": 0.1}])
def test_a_loss_that_is_not_finite_is_not_measured(goal: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Threshold(float("inf"), float("nan")))
    watch = Watch([(torch.ones(3, 4), torch.tensor([0, 1, 1]))], **goal)
    with pytest.warns(UserWarning, match="the loss of the dense network is nan"):
        assert watch.values(model) == {}


def test_a_training_that_diverges_goes_on_with_a_warning(trainer_of: Any) -> None:
    model = classifier()
    callback = SparsityCallback(batches=held())
    trainer = trainer_of(model, callback, optimizer=torch.optim.SGD(model.parameters(), lr=float("inf")))
    with pytest.warns(UserWarning, match="howsparse did not measure: a weight is not finite"):
        trainer.train()
    assert trainer.state.epoch == 2.0
