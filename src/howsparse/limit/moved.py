"""The risk at changed weights: its loss there, and the matrix of its curvature."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.limit.change import Difference
from howsparse.limit.options import Curvature, check_curvature
from howsparse.risk import GGN, EmpiricalRisk, Hessian
from howsparse.risk.losses import Loss, SplitLoss
from howsparse.risk.modes import evaluation_mode

__all__ = ["curvature_of", "difference_risk", "joined_step", "loss_at", "moved"]


def difference_risk(
    model: nn.Module, changed: Difference, batches: Iterable[Any], loss: Loss
) -> tuple[EmpiricalRisk, Tensor]:
    """The risk as a function of the parameters that change, and the step, ``(n,)``.

    Args:
        model: any module; frozen parameters are studied too.
        changed: the difference that a change makes.
        batches: batches that can be read several times.
        loss: ``loss(model, batch)``, mean over the batch.

    Raises:
        InputError: only buffers change, or the data or the loss is not valid.

    >>> changed = Difference({"bias": torch.ones(2)}, {})
    >>> difference_risk(nn.Linear(2, 2), changed, [(torch.eye(2), torch.arange(2))], nn.CrossEntropyLoss())[1]
    tensor([1., 1.])
    """
    if not changed.steps:
        raise InputError("the change leaves every weight as it is and changes only buffers; give changed weights")
    risk = EmpiricalRisk(model, batches, loss, list(changed.steps))
    return risk, joined_step(risk, changed)


def joined_step(risk: EmpiricalRisk, changed: Difference) -> Tensor:
    """The steps of a change as a flat vector ``(n,)``, zero for parameters that it leaves as they are.

    >>> risk = EmpiricalRisk(nn.Linear(1, 2), [(torch.ones(2, 1), torch.arange(2))], names=["weight", "bias"])
    >>> joined_step(risk, Difference({"bias": torch.ones(2)}, {}))
    tensor([0., 0., 1., 1.])
    """
    parts = zip(risk.names, risk.unflatten(risk.flat_weights()), strict=True)
    return risk.flatten([changed.steps.get(name, torch.zeros_like(part)).to(part.dtype) for name, part in parts])


def curvature_of(risk: EmpiricalRisk, curvature: Curvature | None, memory: int | None = 0) -> Hessian | GGN:
    """The matrix of this name; by default the GGN if the loss is a `SplitLoss`, which costs less, else the Hessian.

    Args:
        risk: the empirical risk.
        curvature: "hessian", "ggn" or None.
        memory: bytes for stored graphs, as for `Hessian`; by default none are stored.

    Raises:
        InputError: the name is unknown, or the loss has no GGN.

    >>> risk = EmpiricalRisk(nn.Linear(2, 2), [(torch.eye(2), torch.arange(2))])
    >>> curvature_of(risk, "ggn").positive
    True
    """
    if curvature is None:
        curvature = "ggn" if isinstance(risk.loss, SplitLoss) else "hessian"
    check_curvature(curvature)
    return Hessian(risk, memory) if curvature == "hessian" else GGN(risk, memory)


def loss_at(risk: EmpiricalRisk, step: Tensor | None = None, buffers: Mapping[str, Tensor] | None = None) -> float:
    """The risk at the weights plus ``step``, ``(n,)``, with other values of some buffers.

    >>> risk = EmpiricalRisk(nn.Linear(2, 2, bias=False), [(torch.eye(2), torch.arange(2))])
    >>> round(loss_at(risk, -risk.flat_weights()), 4)
    0.6931
    """
    weights = None if step is None else risk.flat_weights() + step
    if not buffers:
        return risk.value(weights)
    with evaluation_mode(risk.model):  # which restores buffers
        for name, value in buffers.items():
            risk.model.get_buffer(name).copy_(value)
        return EmpiricalRisk(risk.model, risk.all_batches, risk.loss, risk.names).value(weights)


@contextmanager
def moved(risk: EmpiricalRisk, step: Tensor | None) -> Iterator[None]:
    """Compute the risk at its weights plus ``step`` inside the context. The model's own tensors stay as they are.

    >>> risk = EmpiricalRisk(nn.Linear(2, 2, bias=False), [(torch.eye(2), torch.arange(2))])
    >>> with moved(risk, -risk.flat_weights()):
    ...     risk.gradient().tolist()
    [-0.25, 0.25, 0.25, -0.25]
    """
    before = [leaf.data for leaf in risk.leaves]
    try:
        if step is not None:
            for leaf, old, part in zip(risk.leaves, before, risk.unflatten(step), strict=True):
                leaf.data = old + part
        yield
    finally:
        for leaf, old in zip(risk.leaves, before, strict=True):
            leaf.data = old
