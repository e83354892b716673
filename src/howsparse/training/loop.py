"""`fit`: one training loop for every model, loss and method, with checkpoints that resume to the same bits."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.files import save_checkpoint
from howsparse.matmul import fast_matmul
from howsparse.parallel import sum_, summed
from howsparse.risk.batches import move
from howsparse.risk.losses import Loss, SplitLoss, cross_entropy
from howsparse.training.data_parallel import (
    Norm,
    broadcast_buffers,
    data_parallel,
    needs_whole_batches,
    own_share,
    synchronised,
    synchronised_norms,
)
from howsparse.training.forward import TrainingLoss, same_bits, training_loss

__all__ = ["Epoch", "fit"]


@dataclass(frozen=True)
class Epoch:
    """The results of one pass over the training data.

    Attributes:
        epoch: number of the epoch, from 0.
        loss: mean training loss of the model in training mode.
        accuracy: training accuracy of the model in training mode; None if the loss has no ``score``.
        seconds: time of the epoch, in seconds.
    """

    epoch: int
    loss: float
    accuracy: float | None
    seconds: float


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch_batches: Callable[[int], Iterable[Any]],
    epochs: int,
    *,
    loss: Loss = cross_entropy,
    factor: Callable[[int], float] = lambda epoch: 1.0,
    checkpoint: Path | None = None,
    save_every: float = 0.0,
    before_epoch: Callable[[int], None] = lambda epoch: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    seed: int = 0,
) -> list[Epoch]:
    """Train a model. On a GPU it is compiled and computes in bfloat16 with autocast.

    An epoch depends only on the state it starts from, on ``seed`` and on its number. A training that resumes from
    ``checkpoint`` therefore ends in the same bits as one that was never stopped.

    Several processes give the answer of one: each computes its own examples of a batch, and gradients are averaged.
    With BatchNorm on CPUs, or fewer examples than processes, every process computes the whole batch.

    Args:
        model: the network; it is trained in place, and is in training mode afterwards.
        optimizer: holds the parameters to train; l1 terms and masks are attached to it as hooks.
        epoch_batches: ``epoch_batches(e)`` yields the batches of epoch ``e``, in any form that ``loss`` reads.
        epochs: total number of epochs, including those in the checkpoint.
        loss: mean loss of a model on a batch; see `howsparse.risk.losses`.
        factor: ``factor(e)`` multiplies the optimizer's learning rates in epoch ``e``.
        checkpoint: file of this training alone, written after each epoch, and resumed from if it exists.
        save_every: least number of seconds between two writings; the last epoch is always written.
        before_epoch: called with each epoch's number; what it changes must depend on that and the model alone.
        on_epoch: called after each epoch, for progress.
        seed: seed of the random numbers that the model itself draws (dropout).

    Returns:
        Loss and accuracy of each epoch, including those in the checkpoint.

    Raises:
        InputError: the training diverged, an epoch is empty, or the checkpoint is damaged or of another model.

    >>> layer = nn.Linear(2, 2)
    >>> sgd = torch.optim.SGD(layer.parameters(), lr=0.5)
    >>> len(fit(layer, sgd, lambda epoch: [(torch.eye(2), torch.tensor([0, 1]))], 20))
    20
    """
    learning_rates = [group["lr"] for group in optimizer.param_groups]
    history = [] if checkpoint is None or not checkpoint.exists() else _resume(model, optimizer, checkpoint)
    saved, objective = -math.inf, training_loss(model, loss)
    norms = synchronised_norms(objective)
    for epoch in range(len(history), epochs):
        before_epoch(epoch)
        with _learning_rates(optimizer, learning_rates, factor(epoch)), _reproducible(model, 1_000_003 * seed + epoch):
            done = _one_epoch(model, objective, norms, optimizer, epoch_batches(epoch), epoch)
        history.append(done)
        if checkpoint is not None and (epoch == epochs - 1 or time.monotonic() - saved >= save_every):
            _save(model, optimizer, history, checkpoint)
            saved = time.monotonic()
        on_epoch(done)
    return history


@contextmanager
def _learning_rates(optimizer: torch.optim.Optimizer, learning_rates: list[float], factor: float) -> Iterator[None]:
    """Multiply the learning rates by ``factor`` inside the context, and restore them at its end."""
    for group, learning_rate in zip(optimizer.param_groups, learning_rates, strict=True):
        group["lr"] = learning_rate * factor
    try:
        yield
    finally:
        for group, learning_rate in zip(optimizer.param_groups, learning_rates, strict=True):
            group["lr"] = learning_rate


@contextmanager
def _reproducible(model: nn.Module, seed: int) -> Iterator[None]:
    """Seed the random numbers and fix the algorithms inside the context; restore the random state at its end."""
    device, devices = next(model.parameters()).device, range(torch.cuda.device_count())
    with fast_matmul(device), same_bits(device), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _one_epoch(
    model: nn.Module,
    objective: TrainingLoss,
    norms: list[Norm],
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Any],
    epoch: int,
) -> Epoch:
    model.train()
    device = next(model.parameters()).device
    began, batch_count, count, scored = time.perf_counter(), 0, 0, 0
    loss_sum, correct = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
    forward, whole = data_parallel(objective), needs_whole_batches(objective)
    for batch in batches:
        share = own_share(batch, whole)
        part = move(share.batch, device)
        optimizer.zero_grad(set_to_none=True)
        with synchronised(norms, share):
            loss, output = forward(part)
        (loss if share.scale == 1 else loss * share.scale).backward()
        optimizer.step()
        batch_count += 1
        if share.count:
            loss_sum += loss.detach() * share.count
            right, of = _score(objective.loss, output, part)
            correct += right
            count, scored = count + share.count, scored + of
    if batch_count == 0:
        raise InputError(f"epoch {epoch + 1} has no batches; epoch_batches(epoch) must give new ones each time")
    broadcast_buffers(model)
    _check_finite(sum_(loss_sum), epoch)
    count, scored, right = (int(n) for n in summed([count, scored, float(correct)], device))
    accuracy = right / scored if scored else None
    return Epoch(epoch, float(loss_sum) / count, accuracy, time.perf_counter() - began)


def _score(loss: Loss, output: Tensor | None, batch: Any) -> tuple[Tensor | int, int]:
    """Correct predictions, if possible without waiting for the device, and of how many; (0, 0) if not scored."""
    if output is None or not isinstance(loss, SplitLoss):
        return 0, 0
    if hasattr(loss, "correct"):
        correct: Tensor = loss.correct(output, batch)
        return correct.sum(), correct.numel()
    if hasattr(loss, "score"):
        right, of = loss.score(output, batch)
        return right, int(of)
    return 0, 0


def _check_finite(loss_sum: Tensor, epoch: int) -> None:
    if not torch.isfinite(loss_sum):
        raise InputError(
            f"training diverged in epoch {epoch + 1}: the loss is {float(loss_sum)}; lower the learning rate"
        )


def _save(model: nn.Module, optimizer: torch.optim.Optimizer, history: list[Epoch], path: Path) -> None:
    """Write a checkpoint. The history is JSON text, so that the file loads with ``weights_only``."""
    state: dict[str, object] = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": json.dumps([asdict(epoch) for epoch in history]),
    }
    save_checkpoint(state, path)


def _resume(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> list[Epoch]:
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        history = [Epoch(**epoch) for epoch in json.loads(state["history"])]
        model_state, optimizer_state = state["model"], state["optimizer"]
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        raise InputError(f"checkpoint {path} is damaged ({type(error).__name__}); remove it to start anew") from error
    try:
        model.load_state_dict(model_state)
        optimizer.load_state_dict(optimizer_state)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"checkpoint {path} is of another model or optimizer: {reason}") from error
    return history
