"""The loop against one written by hand, and resuming against never having stopped."""

import copy
import math
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.files import load_document
from howsparse.risk.weights import prunable_weights
from howsparse.training.l1 import attach_l1
from howsparse.training.loop import Epoch, fit

Batch = tuple[Tensor, Tensor]


pytestmark = pytest.mark.usefixtures("one_thread")


def batches(epoch: int) -> Iterator[Batch]:
    """23 examples, so the last batch is smaller."""
    generator = torch.Generator().manual_seed(100 + epoch)
    for size in (10, 10, 3):
        inputs = torch.randn(size, 6, generator=generator)
        yield inputs, (inputs[:, :3].argmax(1) + torch.randint(2, (size,), generator=generator)) % 3


def network(seed: int = 0, dropout: float = 0.3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def adam_and_l1(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    attach_l1(optimizer, prunable_weights(model).values(), 0.01, proximal=True)
    return optimizer


def factor(epoch: int) -> float:
    return 1 / (1 + epoch)


def bits(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Everything that training changes."""
    state: list[Tensor] = list(model.state_dict().values())
    for entries in optimizer.state_dict()["state"].values():
        state += [torch.as_tensor(value) for value in entries.values() if value is not None]
    return [tensor.detach().clone() for tensor in state]


def epochs_in(checkpoint: Path) -> list[dict[str, float]]:
    fields, _ = load_document(checkpoint, "checkpoint", 1)
    found: list[dict[str, float]] = fields["history"]
    return found


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def results(history: list[Epoch]) -> list[tuple[int, float, float | None]]:
    return [(epoch.epoch, epoch.loss, epoch.accuracy) for epoch in history]


def test_fit_is_the_loop_one_would_write() -> None:
    ours, theirs = network(dropout=0), network(dropout=0)
    our_optimizer = sgd(ours)
    history = fit(ours, our_optimizer, batches, 4, factor=factor)

    their_optimizer = sgd(theirs)
    for epoch in range(4):
        their_optimizer.param_groups[0]["lr"] = 0.1 / (1 + epoch)
        losses: list[float] = []
        right: list[bool] = []
        for inputs, targets in batches(epoch):
            output = theirs(inputs)
            loss = -output.log_softmax(1)[range(len(targets)), targets]
            losses += loss.tolist()
            right += (output.argmax(1) == targets).tolist()
            their_optimizer.zero_grad()
            loss.mean().backward()
            their_optimizer.step()
        assert history[epoch].epoch == epoch
        assert history[epoch].loss == pytest.approx(sum(losses) / 23, rel=1e-5)
        assert history[epoch].accuracy == pytest.approx(sum(right) / 23)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert our_optimizer.param_groups[0]["lr"] == 0.1
    assert ours.training


@pytest.mark.parametrize("make", [sgd, adam_and_l1])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resuming_gives_the_same_bits(
    tmp_path: Path, make: Callable[[nn.Module], torch.optim.Optimizer], stop: int
) -> None:
    whole = network()
    whole_optimizer = make(whole)
    history = fit(whole, whole_optimizer, batches, 5, factor=factor, seed=3)

    first = network()
    fit(first, make(first), batches, stop, factor=factor, checkpoint=tmp_path / "c.pt", seed=3)
    second = network(seed=99)  # what it starts from must not matter
    optimizer = make(second)
    torch.manual_seed(12345)
    resumed = fit(second, optimizer, batches, 5, factor=factor, checkpoint=tmp_path / "c.pt", seed=3)
    assert equal(bits(second, optimizer), bits(whole, whole_optimizer))
    assert results(resumed) == results(history)

    other = network()
    other_optimizer = make(other)
    fit(other, other_optimizer, batches, 5, factor=factor, seed=4)
    assert not equal(bits(other, other_optimizer), bits(whole, whole_optimizer))  # dropout does draw


SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from howsparse import files
torch.set_num_threads(1)
sys.path.insert(0, {folder!r})
from test_loop import batches, bits, factor, network, results, sgd
from howsparse.training.loop import fit

checkpoint, output, die = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def until(epoch):
    for i, batch in enumerate(batches(epoch)):
        if die == "training" and (epoch, i) == (2, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch

save = files.save_file
def save_half(tensors, file, metadata):
    save(tensors, file, metadata)
    if metadata["howsparse"].count('"loss"') == 4:
        os.truncate(file, os.path.getsize(file) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
if die == "saving":
    files.save_file = save_half

model = network(seed=os.getpid() if checkpoint.exists() else 0)
optimizer = sgd(model)
history = fit(model, optimizer, until, 5, factor=factor, checkpoint=checkpoint, seed=3)
torch.save((bits(model, optimizer), results(history)), output)
"""


def test_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    history = fit(model, optimizer, batches, 5, factor=factor, seed=3)

    checkpoint, output = tmp_path / "c.pt", tmp_path / "end.pt"
    script = SCRIPT.format(folder=str(Path(__file__).parent))
    for die, done in (("training", 2), ("saving", 3), ("never", 5)):
        run = subprocess.run(
            [sys.executable, "-c", script, str(checkpoint), str(output), die], capture_output=True, text=True
        )
        assert run.returncode == (0 if die == "never" else -signal.SIGKILL), run.stderr
        assert len(epochs_in(checkpoint)) == done
    end, end_history = torch.load(output, weights_only=True)
    assert equal(end, bits(model, optimizer))
    assert end_history == results(history)


def test_fit_leaves_the_random_state_as_it_was() -> None:
    torch.manual_seed(5)
    model = network()
    state = torch.get_rng_state()
    fit(model, sgd(model), batches, 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_checkpoint_is_there_before_on_epoch(tmp_path: Path) -> None:
    path, seen = tmp_path / "c.pt", []
    model = network()

    def on_epoch(epoch: Epoch) -> None:
        again = network(seed=99)
        optimizer = torch.optim.SGD(again.parameters(), lr=9.0, momentum=0.9)
        assert fit(again, optimizer, batches, 0, checkpoint=path)[-1] == epoch  # nothing is trained
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
        assert optimizer.param_groups[0]["lr"] == 0.1  # not the epoch's own
        seen.append(epoch)

    history = fit(model, sgd(model), batches, 3, factor=factor, checkpoint=path, on_epoch=on_epoch)
    assert seen == history
    assert [epoch.epoch for epoch in history] == [0, 1, 2]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "text", "other"])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path, model = tmp_path / "c.pt", network()
    optimizer = sgd(model)
    fit(model, optimizer, batches, 1, checkpoint=path)
    content, before = path.read_bytes(), bits(model, optimizer)
    if damage == "other":  # a file of torch's, but not a checkpoint
        torch.save({"weight": torch.zeros(3)}, path)
    else:
        damaged = {"truncated": content[: len(content) // 2], "empty": b"", "garbage": bytes(range(1, 255)) * 9}
        path.write_bytes(damaged.get(damage, b"this is a note"))
    with pytest.raises(InputError, match=r"checkpoint .*c\.pt is not a readable file.*; remove it") as caught:
        fit(model, optimizer, batches, 2, checkpoint=path)
    assert "\n" not in str(caught.value)
    assert equal(bits(model, optimizer), before)


def test_no_flipped_bit_of_a_checkpoint_is_used(tmp_path: Path) -> None:
    path, model = tmp_path / "c.pt", network()
    optimizer = sgd(model)
    fit(model, optimizer, batches, 1, checkpoint=path)
    whole, before, places = path.read_bytes(), bits(model, optimizer), random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        place = places.randrange(8 * len(whole))
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            fit(model, optimizer, batches, 0, checkpoint=path)
        except InputError:
            refused += 1
        assert equal(bits(model, optimizer), before)
    assert refused > 190  # a bit in the spaces that fill up the header says nothing


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    path, model = tmp_path / "c.pt", network()
    fit(model, sgd(model), batches, 1, checkpoint=path, seed=3, about={"data": "some"})
    others: list[dict[str, Any]] = [
        {"seed": 4, "about": {"data": "some"}},
        {"seed": 3, "about": {"data": "other"}},
        {"seed": 3},
    ]
    for other in others:
        with pytest.raises(InputError, match=r"c\.pt is the checkpoint of other inputs or options"):
            fit(model, sgd(model), batches, 2, checkpoint=path, **other)
    assert len(fit(model, sgd(model), batches, 2, checkpoint=path, seed=3, about={"data": "some"})) == 2


def test_checkpoint_of_another_model_or_optimizer_is_refused(tmp_path: Path) -> None:
    path, model = tmp_path / "c.pt", network()
    fit(model, sgd(model), batches, 1, checkpoint=path)
    other = nn.Linear(6, 3)
    with pytest.raises(InputError, match=r"c\.pt is of another model") as caught:
        fit(other, sgd(other), batches, 2, checkpoint=path)
    assert "\n" not in str(caught.value)
    part = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"c\.pt is of another model or optimizer"):
        fit(model, part, batches, 2, checkpoint=path)


def test_the_loss_of_an_epoch_is_the_mean_over_labels_that_count() -> None:
    model = network(dropout=0)
    unlabelled = [(x, torch.where(torch.arange(len(y)) < i, -100, y)) for i, (x, y) in enumerate(batches(0))]
    (epoch,) = fit(model, torch.optim.SGD(model.parameters(), lr=0.0), lambda _: unlabelled, 1)
    model = network(dropout=0).train()
    losses = [nn.functional.cross_entropy(model(x), y, reduction="none")[y != -100] for x, y in unlabelled]
    assert epoch.loss == pytest.approx(float(torch.cat(losses).mean().detach()), rel=1e-6)


def test_diverging_training_is_an_input_error(tmp_path: Path) -> None:
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def poisoned(epoch: int) -> Iterator[Batch]:
        for inputs, targets in batches(epoch):
            yield inputs * (math.inf if epoch == 2 else 1), targets

    with pytest.raises(InputError, match=r"training diverged in epoch 3: .*lower the learning rate"):
        fit(model, optimizer, poisoned, 5, factor=factor, checkpoint=tmp_path / "c.pt")
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert len(epochs_in(tmp_path / "c.pt")) == 2  # the last good epoch
    fit(model, optimizer, batches, 0, checkpoint=tmp_path / "c.pt")
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_learning_rates_come_back_for_every_group_even_after_an_interruption() -> None:
    model = network()
    first: dict[str, Any] = {"params": list(model[0].parameters()), "lr": 0.3}
    optimizer = torch.optim.SGD([first, {"params": list(model[4].parameters())}], lr=0.2)
    during: list[list[float]] = []

    def interrupted(epoch: int) -> Iterator[Batch]:
        during.append([group["lr"] for group in optimizer.param_groups])
        yield from batches(epoch)
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, optimizer, interrupted, 3, factor=factor)
    assert during == [[0.3, 0.2], [0.15, 0.1]]
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.2]


def test_an_epoch_without_batches_is_an_error() -> None:
    model = network()
    with pytest.raises(InputError, match="epoch 1 has no batches"):
        fit(model, sgd(model), lambda epoch: iter(()), 1)


class Regression:
    """Mean squared error of dict batches: in one piece, so that nothing is scored."""

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        error: Tensor = model(batch["x"]) - batch["y"]
        return error.square().mean()


class Signs(Regression):
    """The same, split at the output, and scored by signs that are counted on the host."""

    def output(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        output: Tensor = model(batch["x"])
        return output

    def of_output(self, output: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return (output - batch["y"]).square().mean()

    def score(self, output: Tensor, batch: dict[str, Tensor]) -> tuple[int, int]:
        return int((output.sign() == batch["y"].sign()).sum()), batch["y"].numel()


def measurements(epoch: int) -> Iterator[dict[str, Tensor]]:
    """Three targets an example, so that there are more predictions than examples."""
    generator = torch.Generator().manual_seed(epoch)
    for size in (8, 8, 2):
        yield {"x": torch.randn(size, 6, generator=generator), "y": torch.randn(size, 3, generator=generator)}


@pytest.mark.parametrize("loss", [Regression(), Signs()])
def test_any_batches_and_any_loss(loss: Regression) -> None:
    ours, theirs = network(dropout=0), network(dropout=0)
    history = fit(ours, sgd(ours), measurements, 2, loss=loss)
    optimizer = sgd(theirs)
    for epoch in range(2):
        errors, right = 0.0, 0
        for batch in measurements(epoch):
            output = theirs(batch["x"])
            error = (output - batch["y"]).pow(2)
            errors += error.sum().item()
            right += int((output * batch["y"] > 0).sum())
            optimizer.zero_grad()
            (error.sum() / error.numel()).backward()
            optimizer.step()
        assert history[epoch].loss == pytest.approx(errors / (18 * 3), rel=1e-5)
        assert history[epoch].accuracy == (pytest.approx(right / (18 * 3)) if isinstance(loss, Signs) else None)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_history_without_accuracy_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    model = network()
    history = fit(model, sgd(model), measurements, 2, loss=Regression(), checkpoint=tmp_path / "c.pt")
    again = network()
    assert fit(again, sgd(again), measurements, 2, loss=Regression(), checkpoint=tmp_path / "c.pt") == history


def test_a_loss_may_call_any_method_of_the_model() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def encode(self, x: Tensor) -> Tensor:
            output: Tensor = self.layer(x)
            return output

    def loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
        error: Tensor = model.encode(batch["x"]) - batch["y"]
        return error.square().mean()

    torch.manual_seed(0)
    model = Encoder()
    plain = copy.deepcopy(model.layer)
    fit(model, sgd(model), measurements, 3, loss=loss)
    fit(plain, sgd(plain), measurements, 3, loss=Regression())
    assert equal(list(model.parameters()), list(plain.parameters()))
