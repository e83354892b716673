r"""How much each layer adds to the loss when weights change: by a mask, a merge, quantisation, repair or fine-tuning.

The local model of the change d is :math:`g'd + \tfrac12 d'Hd`, with the gradient g and the curvature H at the unchanged
weights. One product Hd attributes it to layers, :math:`d_l'\bigl(g + \tfrac12 Hd\bigr)_l`. If the change is large, the
local model is wrong. The shares along the path, :math:`d_l'\int_0^1 g_l(w + td)\,dt`, still add up to the measured
change of the loss.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.files import load_document, save_document
from howsparse.limit.change import Change, difference
from howsparse.limit.layer_share import LayerShare
from howsparse.limit.layers import inner_by_layer, layer_sizes
from howsparse.limit.moved import curvature_of, difference_risk, loss_at, moved
from howsparse.limit.options import Curvature
from howsparse.progress import Progress, reporting
from howsparse.risk import GGN, EmpiricalRisk, Hessian
from howsparse.risk.alone import alone
from howsparse.risk.guard import guarded
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.shown import Card, Shown

__all__ = ["Audit", "LayerShare", "audit"]

_VERSION = 1
_STAGES = 4  # loss without the change, loss with it, gradient, product
_POINTS = 8  # gradients along the path, if the local model disagrees with the measurement
_ROUNDING = 32  # a change of the loss below this many units of rounding of the loss is not measured


@dataclass(frozen=True, repr=False)
class Audit(Shown):
    """The change of the loss that a change of the weights causes: predicted for each layer, and measured in total.

    Attributes:
        layers: the changed parameters in the order of the network.
        dense_loss: loss without the change.
        measured: loss with the change minus ``dense_loss``, on the same batches.
        measured_buffers: the part of ``measured`` that changed buffers add to the changed weights.
        buffers: names of the buffers that differ, such as BatchNorm's statistics. The shares leave them out.
        curvature: "hessian" or "ggn".
        points: number of gradients along the path; 0 if the path was not computed.
        rounding: a difference of two losses that is at most this may be only rounding.

    >>> layers = (LayerShare("fc.weight", 4, 4, 0.1, 0.1, 0.3, None),)
    >>> found = Audit(layers, 1.0, 0.5, 0.0, (), "hessian", 0, 1e-6)
    >>> found.predicted, found.measured, found.agrees
    (0.4, 0.5, True)
    """

    layers: tuple[LayerShare, ...]
    dense_loss: float
    measured: float
    measured_buffers: float
    buffers: tuple[str, ...]
    curvature: Curvature
    points: int
    rounding: float

    @property
    def predicted(self) -> float:
        """Predicted change of the loss in the local model, :math:`g'd + \\tfrac12 d'Hd`."""
        return sum(layer.predicted for layer in self.layers)

    @property
    def path(self) -> float | None:
        """Sum of the shares along the path, which approximates the measured change; None if it was not computed."""
        return sum(layer.share for layer in self.layers) if self.points else None

    @property
    def measured_weights(self) -> float:
        """The part of the measured change that the weights make, with the buffers as they were."""
        return self.measured - self.measured_buffers

    @property
    def agrees(self) -> bool:
        """Whether the local model agrees with ``measured_weights``: they differ by at most half of the larger one.

        Two changes that are both within the rounding of the loss agree.
        """
        return _agree(self.predicted, self.measured_weights, self.rounding)

    @property
    def reliable(self) -> bool:
        """Whether the sum of the shown shares agrees with the measurement, by the rule of ``agrees``."""
        return self.agrees if self.path is None else _agree(self.path, self.measured_weights, self.rounding)

    @property
    def worst(self) -> LayerShare:
        """The layer with the largest share."""
        return max(self.layers, key=lambda layer: layer.share)

    def __repr__(self) -> str:
        return f"Audit(worst='{self.worst.name}', measured={self.measured:.4g}, layers={len(self.layers)})"

    def card(self) -> Card:
        """The layers with the largest shares, and the totals.

        Returns:
            The table. It prints as text, and a notebook shows it as HTML.
        """
        first = sorted(self.layers, key=lambda layer: -layer.share)[:10]
        rows = [(layer.name, f"{layer.share:+.4g}") for layer in first]
        total = self.predicted if self.path is None else self.path
        rows += [(f"all {len(self.layers)} layers", f"{total:+.4g}"), ("measured", f"{self.measured:+.4g}")]
        note = "" if self.reliable else "The shares do not add up to what was measured; do not rely on them."
        return Card("Change of the loss by layer", tuple(rows), (note,) if note else ())

    def save(self, path: str | Path) -> None:
        """Write the audit to one file, which `load` reads.

        Args:
            path: path of the file; an existing file is replaced.
        """
        save_document(path, "audit", _VERSION, asdict(self), {})

    @classmethod
    def load(cls, path: str | Path) -> "Audit":
        """Read a file that `save` wrote.

        Args:
            path: path of the file that `save` wrote.

        Returns:
            The audit that was saved.

        Raises:
            InputError: the file does not exist, has other contents, or is damaged.
        """
        fields, _ = load_document(path, "audit", _VERSION)
        layers = tuple(LayerShare(**layer) for layer in fields.pop("layers"))
        return cls(layers=layers, buffers=tuple(fields.pop("buffers")), **fields)


@alone
@guarded
def audit(
    model: nn.Module,
    change: Change,
    batches: Iterable[Any],
    *,
    loss: Loss = cross_entropy,
    curvature: Curvature = "hessian",
    points: int | None = None,
    progress: Progress | bool | None = None,
) -> Audit:
    r"""Divide the change of the loss that a change of the weights causes between the layers, and measure the total.

    The prediction takes one gradient and one product, batch by batch, and keeps no graphs. If the prediction does not
    agree with the measurement, the shares along the path are computed too. They are integrals of the gradient by the
    Gauss-Legendre rule. All parameters that differ count, also biases and norms. The model is not changed.

    Args:
        model: any module.
        change: a mask; new tensors by name (a state dict, or some of its entries); or a module of the same
            architecture. See `difference`.
        batches: batches that can be read several times.
        loss: ``loss(model, batch)``, mean over the batch. The GGN needs a `SplitLoss`, for example `cross_entropy`.
        curvature: "hessian", or "ggn" for the Gauss-Newton matrix.
        points: number of gradients along the path. By default 8 if the local model does not agree with the measurement,
            else none; also none if the loss of the changed model is not finite. 0: never compute the path.
        progress: called as ``progress(stage, done, total)``; by default bars in a terminal and a notebook.

    Returns:
        The shares, and the measured change.

    Raises:
        InputError: the model, the data, the change or an option is not valid; see `EmpiricalRisk` and `difference`.

    Source: the path is that of integrated gradients (Sundararajan et al., 2017), in the weights.

    >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    >>> damaged = {"1.weight": model[1].weight.detach() + 0.1}
    >>> audit(model, damaged, [(torch.eye(4), torch.arange(4))]).worst.name
    '1.weight'
    """
    if points is not None and points < 0:
        raise InputError(f"points {points} is negative; give the number of gradients along the path, or 0 for no path")
    changed = difference(model, change)
    risk, step = difference_risk(model, changed, batches, loss)
    matrix = curvature_of(risk, curvature)
    with reporting(progress) as report:
        local = _local(risk, step, changed.buffers, matrix, curvature, report)
        if points is None:
            points = 0 if local.agrees or not math.isfinite(local.measured_weights) else _POINTS
        return _with_path(local, _path_shares(risk, step, points, report), points) if points else local


def _local(
    risk: EmpiricalRisk,
    step: Tensor,
    buffers: Mapping[str, Tensor],
    matrix: Hessian | GGN,
    curvature: Curvature,
    progress: Progress,
) -> Audit:
    """The measured change, and the shares in the local model."""
    before = loss_at(risk)
    progress("audit", 1, _STAGES)
    weights_only = loss_at(risk, step) - before
    measured = loss_at(risk, step, buffers) - before if buffers else weights_only
    progress("audit", 2, _STAGES)
    return Audit(
        layers=_local_shares(risk, step, matrix, progress),
        dense_loss=before,
        measured=measured,
        measured_buffers=measured - weights_only if buffers else 0.0,
        buffers=tuple(buffers),
        curvature=curvature,
        points=0,
        rounding=_ROUNDING * torch.finfo(step.dtype).eps * abs(before),
    )


def _agree(one: float, other: float, rounding: float) -> bool:
    """Whether two changes of the loss differ by at most half of the larger, or are both within rounding."""
    if not (math.isfinite(one) and math.isfinite(other)):
        return False
    larger = max(abs(one), abs(other))
    return larger <= rounding or abs(one - other) <= larger / 2


def _local_shares(
    risk: EmpiricalRisk, step: Tensor, matrix: Hessian | GGN, progress: Progress
) -> tuple[LayerShare, ...]:
    sizes = layer_sizes(risk)
    first = inner_by_layer(step, risk.gradient(), sizes)
    progress("audit", 3, _STAGES)
    second = inner_by_layer(step, (matrix @ step) / 2, sizes)
    progress("audit", 4, _STAGES)
    weights = risk.flat_weights()
    norms = [math.sqrt(value) for value in inner_by_layer(weights, weights, sizes)]
    moves = [math.sqrt(value) for value in inner_by_layer(step, step, sizes)]
    counts = [int(part.count_nonzero()) for part in step.split(list(sizes.values()))]
    return tuple(
        LayerShare(
            name=name,
            num_weights=size,
            num_changed=counts[i],
            relative_change=moves[i] / norms[i] if norms[i] else math.inf,
            first_order=first[i],
            second_order=second[i],
            path=None,
        )
        for i, (name, size) in enumerate(sizes.items())
    )


def _path_shares(risk: EmpiricalRisk, step: Tensor, points: int, progress: Progress) -> list[float]:
    """Each layer's share of the integral of the gradient along the change, by the Gauss-Legendre rule."""
    sizes = layer_sizes(risk)
    nodes, weights = np.polynomial.legendre.leggauss(points)
    shares = np.zeros(len(sizes))
    for done, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
        with moved(risk, step * float((node + 1) / 2)):
            shares += weight / 2 * np.array(inner_by_layer(step, risk.gradient(), sizes))
        progress("path", done + 1, points)
    return [float(share) for share in shares]


def _with_path(local: Audit, shares: list[float], points: int) -> Audit:
    layers = tuple(replace(layer, path=share) for layer, share in zip(local.layers, shares, strict=True))
    return replace(local, layers=layers, points=points)
