"""`fit`: one training loop for every model, loss and method, with checkpoints that resume to the same bits."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.matmul import fast_matmul
from howsparse.parallel import is_first, sum_, summed
from howsparse.risk.alone import alone_with
from howsparse.risk.batches import batch_length, move
from howsparse.risk.losses import Loss, SplitLoss, cross_entropy
from howsparse.training.checkpoint import Epoch, resume, save, training_key
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


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch_batches: Callable[[int], Iterable[Any]],
    epochs: int,
    *,
    loss: Loss = cross_entropy,
    factor: Callable[[int], float] = lambda epoch: 1.0,
    checkpoint: Path | None = None,
    about: object = None,
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
        checkpoint: file of this training alone, written after each epoch, and resumed from if it exists. It has a
            digest of its contents, and of ``seed`` and ``about``.
        about: what else identifies this training, such as its data and settings: any value that
            `howsparse.store.digest` reads. A checkpoint of another training is refused.
        save_every: least number of seconds between two writings; the last epoch is always written.
        before_epoch: called with each epoch's number; what it changes must depend on that and the model alone.
        on_epoch: called after each epoch, for progress.
        seed: seed of the random numbers that the model itself draws (dropout).

    Returns:
        Loss and accuracy of each epoch, including those in the checkpoint.

    Raises:
        InputError: the training diverged, an epoch is empty, or the checkpoint is damaged or of another training.

    >>> layer = nn.Linear(2, 2)
    >>> sgd = torch.optim.SGD(layer.parameters(), lr=0.5)
    >>> len(fit(layer, sgd, lambda epoch: [(torch.eye(2), torch.tensor([0, 1]))], 20))
    20
    """
    learning_rates = [group["lr"] for group in optimizer.param_groups]
    key = training_key(optimizer, seed, about)
    history = [] if checkpoint is None or not checkpoint.exists() else resume(model, optimizer, checkpoint, key)
    saved, objective = -math.inf, training_loss(model, loss)
    norms = synchronised_norms(objective)
    for epoch in range(len(history), epochs):
        before_epoch(epoch)
        with _learning_rates(optimizer, learning_rates, factor(epoch)), _reproducible(model, 1_000_003 * seed + epoch):
            done = _one_epoch(model, objective, norms, optimizer, epoch_batches(epoch), epoch)
        history.append(done)
        if checkpoint is not None and (epoch == epochs - 1 or time.monotonic() - saved >= save_every):
            save(model, optimizer, history, checkpoint, key)
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
    """Keep other threads out, seed the random numbers and fix the algorithms; restore the random state at the end."""
    device, devices = next(model.parameters()).device, range(torch.cuda.device_count())
    with alone_with(model), fast_matmul(device), same_bits(device), torch.random.fork_rng(devices=devices):
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
    began, batch_count, scored = time.perf_counter(), 0, 0
    count: int | Tensor = 0
    loss_sum, correct = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
    forward, whole = data_parallel(objective), needs_whole_batches(objective)
    for batch in batches:
        share = own_share(batch, whole, getattr(objective.loss, "counted", batch_length))
        part = move(share.batch, device)
        optimizer.zero_grad(set_to_none=True)
        with synchronised(norms, share):
            loss, output = forward(part)
        (loss if share.whole else loss * share.scale).backward()
        optimizer.step()
        batch_count += 1
        if is_first() or not share.whole:
            loss_sum += loss.detach() * share.count
            right, of = _score(objective.loss, output, part)
            correct += right
            count, scored = count + share.count, scored + of
    if batch_count == 0:
        raise InputError(f"epoch {epoch + 1} has no batches; epoch_batches(epoch) must give new ones each time")
    broadcast_buffers(model)
    _check_finite(sum_(loss_sum), epoch)
    counted, scored, right = (int(n) for n in summed([float(count), scored, float(correct)], device))
    accuracy = right / scored if scored else None
    return Epoch(epoch, float(loss_sum) / counted, accuracy, time.perf_counter() - began)


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
