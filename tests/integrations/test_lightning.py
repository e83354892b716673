"""The callback for Lightning against hand-written loops, with a real trainer and a small network."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import howsparse
from howsparse.errors import InputError
from howsparse.integrations.lightning import LightningSparsity

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*num_workers:UserWarning", "ignore:.*LeafSpec:FutureWarning"),
]
MEASURED = "howsparse_measured_sparsity"


class Network(pl.LightningModule):  # type: ignore[misc]
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output

    def training_step(self, batch: Any, index: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.5)


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(48, 6, generator=generator)
    return TensorDataset(x, x[:, :3].argmax(1))


def loader(shuffle: bool = False) -> DataLoader[Any]:
    return DataLoader(data(), 16, shuffle=shuffle)


@pytest.fixture
def trainer_of(tmp_path: Path) -> Callable[..., Any]:
    def make(*callbacks: Any, **options: Any) -> Any:
        given = {"max_epochs": 3, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
        return pl.Trainer(callbacks=list(callbacks), default_root_dir=tmp_path, **given | quiet | options)

    return make


def weights(model: nn.Module) -> list[nn.Parameter]:
    return list(howsparse.prunable_weights(model).values())


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def by_hand(model: Any, strength: float | None, proximal: bool = False, epochs: int = 3) -> Any:
    """The training that the trainer is asked for, in a loop of our own."""
    optimizer = model.configure_optimizers()
    if strength is not None:
        howsparse.attach_l1(optimizer, weights(model), strength, proximal=proximal)
    for _ in range(epochs):
        for batch in loader():
            optimizer.zero_grad()
            model.training_step(batch, 0).backward()
            optimizer.step()
    return model


@pytest.mark.parametrize("proximal", [False, True])
def test_the_trained_weights_are_those_of_a_loop_with_attach_l1(trainer_of: Any, proximal: bool) -> None:
    ours, theirs = Network(), by_hand(Network(), 0.1, proximal)
    trainer_of(LightningSparsity(0.1, proximal=proximal)).fit(ours, loader())
    assert same(ours, theirs)
    assert (sum(int((w == 0).sum()) for w in weights(ours)) > 20) == proximal
    dense = by_hand(Network(), None)
    assert sum(w.abs().sum() for w in weights(ours)) < 0.8 * sum(w.abs().sum() for w in weights(dense))


class TwoOptimizers(Network):
    """Each layer has an optimizer of its own; the last is trained with the first."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.layers[i].parameters(), lr=0.05) for i in (0, 4)]

    def training_step(self, batch: Any, index: int) -> Any:
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, index))
        for optimizer in optimizers:
            optimizer.step()


def test_each_of_two_optimizers_gets_the_term_of_its_weights(trainer_of: Any) -> None:
    ours, theirs = TwoOptimizers(), Network()
    trainer_of(LightningSparsity(0.1)).fit(ours, loader())
    optimizer = torch.optim.SGD([*theirs.layers[0].parameters(), *theirs.layers[4].parameters()], lr=0.05)
    howsparse.attach_l1(optimizer, weights(theirs), 0.1)
    for batch in [*loader()] * 3:
        optimizer.zero_grad()
        theirs.training_step(batch, 0).backward()
        optimizer.step()
    assert same(ours, theirs)


def test_it_logs_measured_and_predicted(trainer_of: Any) -> None:
    seen: list[dict[str, float]] = []

    class Reader(pl.Callback):  # type: ignore[misc]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    module, held = Network(), [*loader()]
    trainer = trainer_of(LightningSparsity(batches=held, tolerance=0.05, every=2), Reader(), max_epochs=4)
    trainer.fit(module, loader())
    assert [MEASURED in values for values in seen] == [False, True, True, True]
    assert seen[1] == seen[2]  # of the second epoch, until the fourth
    predicted = howsparse.predict(module, held, tolerance=0.05)
    expected = {
        MEASURED: howsparse.measure(module, held, tolerance=0.05).sparsity,
        "howsparse_predicted_sparsity": predicted.sparsity,
        "howsparse_prediction_holds": float(predicted.holds),
    }
    assert seen[3] == {name: pytest.approx(value, rel=1e-6) for name, value in expected.items()}  # kept as float32


def test_it_stops_at_the_asked_sparsity(trainer_of: Any) -> None:
    trainer = trainer_of(LightningSparsity(batches=loader(), max_drop=0.9, stop_at=0.01, predict=False))
    trainer.fit(Network(), loader())
    assert trainer.current_epoch == 1


class Drawing:
    """A held data set whose every pass draws random numbers from torch, numpy and Python."""

    def __iter__(self) -> Iterator[Any]:
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        yield from loader()


def test_measuring_changes_no_bit_of_a_training_with_dropout_and_batch_norm(trainer_of: Any) -> None:
    plain, watched = Network(0.3), Network(0.3)
    torch.manual_seed(2)
    trainer_of(LightningSparsity(0.01)).fit(plain, loader(shuffle=True))
    torch.manual_seed(2)
    trainer_of(LightningSparsity(0.01, batches=Drawing(), max_rise=0.1)).fit(watched, loader(shuffle=True))
    assert same(plain, watched)
    assert watched.layers.training


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_in_the_optimizer(trainer_of: Any, fails: bool) -> None:
    class Failing(Network):
        def on_train_epoch_end(self) -> None:
            if fails and self.current_epoch == 1:
                raise RuntimeError("stop here")

    module = Failing()
    optimizer = module.configure_optimizers()
    module.configure_optimizers = lambda: optimizer  # type: ignore[method-assign]
    hooks = optimizer._optimizer_step_pre_hooks
    counts: list[int] = []
    optimizer.register_step_post_hook(lambda *_: counts.append(len(hooks)))
    trainer = trainer_of(LightningSparsity(0.1))
    if fails:
        with pytest.raises(RuntimeError, match="stop here"):
            trainer.fit(module, loader())
    else:
        trainer.fit(module, loader())
    assert counts
    assert all(counts)
    assert not hooks


def test_mistakes_are_found_before_the_first_step(trainer_of: Any) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"strength": float("nan")}, "l1 strength nan is not a finite number"),
        ({"batches": []}, "there are no batches to measure on"),
        ({"batches": [(torch.randn(2, 6), torch.tensor([-100, -100]))]}, "-100"),
    ]
    for options, message in cases:
        module = Network()
        with pytest.raises(InputError, match=message):
            trainer_of(LightningSparsity(**options)).fit(module, loader())
        assert same(module, Network())

    class HeadOnly(Network):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.layers[4].parameters(), lr=0.05)

    with pytest.raises(InputError, match=r"no optimizer holds 'layers\.0\.weight'.*; freeze it"):
        trainer_of(LightningSparsity(0.1)).fit(HeadOnly(), loader())
