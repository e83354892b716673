"""`fit`: one training loop for every task and method, with checkpoints that resume to the same bits."""

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.files import save_checkpoint
from howsparse.matmul import fast_matmul
from howsparse.parallel import mean_gradients_, rank, same_buffers_, sum_, world_size
from howsparse.training.forward import Forward, fast_forward, same_bits

__all__ = ["Epoch", "fit"]

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Epoch:
    """What one pass over the data gave: mean training loss and accuracy (in training mode), seconds taken."""

    epoch: int
    loss: float
    accuracy: float
    seconds: float


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch_batches: Callable[[int], Iterable[Batch]],
    epochs: int,
    *,
    rate: Callable[[int], float] = lambda epoch: 1.0,
    checkpoint: Path | None = None,
    save_every: float = 0.0,
    before_epoch: Callable[[int], None] = lambda epoch: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    seed: int = 0,
    identity: str = "",
) -> list[Epoch]:
    """Train with cross-entropy and return the history; on a GPU compiled, and in bfloat16 under autocast.

    An epoch depends on nothing but the state it starts from, ``seed`` and its number, so a run that resumes from
    ``checkpoint`` ends in the same bits as one that was never stopped.

    Args:
        model: trained in place; left in training mode.
        optimizer: holds the parameters to train; l1 terms and masks hang on it as hooks.
        epoch_batches: ``epoch_batches(e)`` yields the ``(input, target)`` batches of epoch ``e``.
        epochs: how many epochs in all, those in the checkpoint included.
        rate: ``rate(e)`` multiplies the optimizer's learning rates in epoch ``e``.
        checkpoint: file that is written whole after each epoch, and resumed from if it is there.
        save_every: seconds that pass at least between two writings; the last epoch's is always written.
        before_epoch: called as each begins; what it changes must follow from the model's state and the number.
        on_epoch: called after each, for progress.
        seed: for random numbers the model itself draws (dropout).
        identity: names the training; a checkpoint of another name is refused.

    Raises:
        InputError: the training diverged, or the checkpoint belongs to another model.
    """
    base_rates = [group["lr"] for group in optimizer.param_groups]
    history = _resume(model, optimizer, checkpoint, identity)
    saved, forward, device = -math.inf, fast_forward(model), next(model.parameters()).device
    for epoch in range(len(history), epochs):
        before_epoch(epoch)
        for group, base in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = base * rate(epoch)
        try:
            devices = range(torch.cuda.device_count())
            with fast_matmul(device), same_bits(device), torch.random.fork_rng(devices=devices):
                torch.manual_seed(1_000_003 * seed + epoch)
                done = _one_epoch(model, forward, optimizer, epoch_batches(epoch), epoch)
        finally:
            for group, base in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = base
        history.append(done)
        if checkpoint is not None and (epoch == epochs - 1 or time.monotonic() - saved >= save_every):
            _save(model, optimizer, history, checkpoint, identity)
            saved = time.monotonic()
        on_epoch(done)
    return history


def _one_epoch(
    model: nn.Module,
    forward: Forward,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    epoch: int,
) -> Epoch:
    model.train()
    device = next(model.parameters()).device
    began, count = time.perf_counter(), 0
    loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
    own = slice(rank(), None, world_size())
    for all_inputs, all_targets in batches:
        inputs, targets = all_inputs[own].to(device), all_targets[own].to(device)
        optimizer.zero_grad(set_to_none=True)
        if len(targets):  # a process may have none of a last, small batch
            output = forward(inputs)
            loss = nn.functional.cross_entropy(output, targets)
            loss.backward()
            loss_sum += loss.detach() * len(targets)
            correct += (output.detach().argmax(-1) == targets).sum()
        mean_gradients_(model, len(targets) / len(all_targets))
        optimizer.step()
        count += len(all_targets)
    same_buffers_(model)
    loss_sum, correct = sum_(torch.stack([loss_sum, correct]))
    if count == 0:
        raise InputError(f"epoch {epoch + 1} has no batches; epoch_batches(epoch) must give new ones each time")
    if not torch.isfinite(loss_sum):
        raise InputError(
            f"training diverged in epoch {epoch + 1}: the loss is {float(loss_sum)}; lower the learning rate"
        )
    return Epoch(epoch, float(loss_sum) / count, float(correct) / count, time.perf_counter() - began)


def _save(model: nn.Module, optimizer: torch.optim.Optimizer, history: list[Epoch], path: Path, identity: str) -> None:
    """The history travels as JSON, so that the file loads with ``weights_only``."""
    state: dict[str, object] = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "identity": identity,
        "history": json.dumps([asdict(epoch) for epoch in history]),
    }
    save_checkpoint(state, path)


def _resume(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path | None, identity: str) -> list[Epoch]:
    if path is None or not path.exists():
        return []
    state = torch.load(path, weights_only=True, map_location="cpu")
    if state.get("identity") != identity:
        raise InputError(f"checkpoint {path} is of another training; remove it, or choose another --output")
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"checkpoint {path} is of another model or optimizer: {reason}") from error
    return [Epoch(**epoch) for epoch in json.loads(state["history"])]
