"""The risk at changed weights: its loss there, and the matrix of its curvature."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.limit.change import Difference
from howsparse.limit.options import Curvature
from howsparse.parallel import summed
from howsparse.risk import GGN, EmpiricalRisk, Hessian
from howsparse.risk.losses import Loss
from howsparse.risk.modes import evaluation_mode

__all__ = ["curvature_of", "difference_risk", "joined_step", "loss_at", "moved"]


def difference_risk(
    model: nn.Module, changed: Difference, batches: Iterable[Any], loss: Loss
) -> tuple[EmpiricalRisk, Tensor]:
    """The risk as a function of the parameters that change, also of frozen ones, and the step, ``(n,)``.

    Raises:
        InputError: only buffers change, or the data or the loss is not valid.
    """
    if not changed.steps:
        raise InputError("the change leaves every weight as it is and changes only buffers; give changed weights")
    with _trainable(model):
        risk = EmpiricalRisk(model, batches, loss, list(changed.steps))
    return risk, joined_step(risk, changed)


def joined_step(risk: EmpiricalRisk, changed: Difference) -> Tensor:
    """The steps of a change as a flat vector ``(n,)``, zero for parameters that it leaves as they are."""
    parts = zip(risk.names, risk.unflatten(risk.flat_weights()), strict=True)
    return risk.flatten([changed.steps.get(name, torch.zeros_like(part)).to(part.dtype) for name, part in parts])


def curvature_of(risk: EmpiricalRisk, curvature: Curvature) -> Hessian | GGN:
    """The matrix of this name, which keeps no graphs.

    Raises:
        InputError: the name is unknown, or the loss has no GGN.
    """
    if curvature not in ("hessian", "ggn"):
        raise InputError(f"curvature '{curvature}' is not known; use 'hessian' or 'ggn'")
    return Hessian(risk, memory=0) if curvature == "hessian" else GGN(risk, memory=0)


def loss_at(risk: EmpiricalRisk, step: Tensor | None = None, buffers: Mapping[str, Tensor] | None = None) -> float:
    """The risk at the weights plus ``step``, ``(n,)``, with other values of some buffers."""
    if buffers:
        with _trainable(risk.model), evaluation_mode(risk.model):  # which restores buffers
            for name, value in buffers.items():
                risk.model.get_buffer(name).copy_(value)
            return loss_at(EmpiricalRisk(risk.model, risk.all_batches, risk.loss, risk.names), step)
    total = 0.0
    with moved(risk, step), risk.standing_in() as call, torch.no_grad():
        for batch, share in risk.on_device():
            total += share * float(call(risk.loss, batch))
    return summed([total], risk.device)[0]


@contextmanager
def moved(risk: EmpiricalRisk, step: Tensor | None) -> Iterator[None]:
    """Compute the risk at its weights plus ``step`` inside the context. The model's own tensors stay as they are."""
    before = [leaf.data for leaf in risk.leaves]
    try:
        if step is not None:
            for leaf, old, part in zip(risk.leaves, before, risk.unflatten(step), strict=True):
                leaf.data = old + part
        yield
    finally:
        for leaf, old in zip(risk.leaves, before, strict=True):
            leaf.data = old


@contextmanager
def _trainable(model: nn.Module) -> Iterator[None]:
    """Let frozen parameters be studied inside the context."""
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    try:
        for p in frozen:
            p.requires_grad_(True)
        yield
    finally:
        for p in frozen:
            p.requires_grad_(False)
