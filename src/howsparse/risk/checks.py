"""Checks of batches, losses and weights, before an empirical risk computes with them."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.risk.batches import same_content
from howsparse.risk.weights import named_weights, select_weights

__all__ = ["check_loss", "checked_first_batch", "studied"]


def checked_first_batch(batches: Iterable[Any]) -> Any:
    """The first batch of batches that can be read several times, and that are the same in every pass."""
    if iter(batches) is batches:
        raise InputError("batches can be read only once; pass a list or a DataLoader, not an iterator or generator")
    first, again = (next(iter(batches), None) for _ in range(2))
    if first is None:
        raise InputError("batches is empty; pass at least one batch of training data")
    if not same_content(first, again):
        raise InputError(
            "batches differ from pass to pass, as those of a shuffling or augmenting loader do;"
            " pass howsparse.SamePasses(loader), or a loader that does neither"
        )
    return first


def check_loss(compute: Callable[[], Tensor]) -> None:
    """Check that a loss is a finite scalar, depends on the weights, and does not change from call to call."""
    loss = compute()
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(f"the loss is {what}, not a scalar tensor; return the mean over the batch")
    if not loss.requires_grad:
        raise InputError("the loss does not depend on the weights; compute it from the model's output, without no_grad")
    if not torch.isfinite(loss):
        raise InputError(
            f"the loss on the first batch is {float(loss.detach())}, not finite; use a model that did not diverge"
        )
    loss, again = loss.detach(), compute().detach()
    if not torch.allclose(loss, again, rtol=1e-4, atol=1e-7):
        raise InputError(
            f"the model's output changes from call to call (loss {float(loss):.6g}, then {float(again):.6g});"
            " switch off dropout or other randomness in evaluation mode"
        )


def studied(model: nn.Module, names: Iterable[str] | None) -> dict[str, nn.Parameter]:
    """The weights under study by name: real and finite."""
    chosen = select_weights(model, None) if names is None else named_weights(model, names)
    for name, p in chosen.items():
        if p.is_complex():
            raise InputError(f"weight '{name}' is complex; give the names of real weights to study")
        if not torch.isfinite(p).all():
            raise InputError(f"weight '{name}' has NaN or infinite entries; load a checkpoint that did not diverge")
    return chosen
