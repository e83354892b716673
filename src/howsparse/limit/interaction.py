r"""The interaction of two changes of the weights: their common effect on the loss minus the effect of each alone.

In the local model, the changes p and q together change the loss by :math:`g'(p + q) + \tfrac12 (p + q)'H(p + q)`. This
is the effect of p alone, plus the effect of q alone, plus the interaction :math:`p'Hq`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.limit.change import Change, Difference, difference
from howsparse.limit.layers import inner_by_layer, layer_sizes
from howsparse.limit.moved import curvature_of, difference_risk, joined_step, loss_at
from howsparse.limit.options import Curvature
from howsparse.pruning.masks import Mask
from howsparse.risk.alone import alone
from howsparse.risk.guard import guarded
from howsparse.risk.losses import Loss, cross_entropy

__all__ = ["Interaction", "interaction"]


@dataclass(frozen=True)
class Interaction:
    """Two changes of the loss and their interaction, predicted and measured. As a float, it is ``predicted``.

    Attributes:
        layers: the interaction's share of each changed parameter, by name: the mean of :math:`p_l'(Hq)_l` and
            :math:`q_l'(Hp)_l`. The shares add up to :math:`p'Hq`.
        first: predicted change of the loss by the first change alone.
        second: predicted change of the loss by the second change alone.
        measured_first: measured change of the loss by the first change alone.
        measured_second: measured change of the loss by the second change alone.
        measured_together: measured change of the loss by both.

    >>> both = Interaction((("a", 0.25), ("b", 0.25)), 1.0, 2.0, 1.0, 2.0, 3.75)
    >>> float(both), both.together, both.measured
    (0.5, 3.5, 0.75)
    """

    layers: tuple[tuple[str, float], ...]
    first: float
    second: float
    measured_first: float
    measured_second: float
    measured_together: float

    @property
    def predicted(self) -> float:
        """The interaction in the local model, :math:`p'Hq`."""
        return sum(share for _, share in self.layers)

    @property
    def together(self) -> float:
        """Predicted change of the loss by both: first, second and interaction."""
        return self.first + self.second + self.predicted

    @property
    def measured(self) -> float:
        """Measured change by both, minus the measured changes by each alone."""
        return self.measured_together - self.measured_first - self.measured_second

    def __float__(self) -> float:
        return self.predicted


@alone
@guarded
def interaction(
    model: nn.Module,
    first: Change,
    second: Change,
    batches: Iterable[Any],
    *,
    loss: Loss = cross_entropy,
    curvature: Curvature = "hessian",
) -> Interaction:
    """Predict and measure the interaction of two changes of the weights, with two products.

    "Both" are the weights plus both differences. Buffers that differ are left as they are. The model is not changed.

    Args:
        model: any module.
        first: a change, as for `audit`.
        second: another change.
        batches: batches that can be read several times.
        loss: ``loss(model, batch)``, mean over the batch.
        curvature: "hessian", or "ggn" for the Gauss-Newton matrix.

    Returns:
        The interaction, its shares by layer, and the changes of the loss.

    Raises:
        InputError: two masks remove the same weight, or an argument is not valid; see `audit`.

    >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    >>> one, other = ({name: model.get_parameter(name).detach() * 0.9} for name in ("0.weight", "1.weight"))
    >>> both = interaction(model, one, other, [(torch.eye(4), torch.arange(4))])
    >>> [name for name, _ in both.layers]
    ['0.weight', '1.weight']
    """
    one, other = difference(model, first), difference(model, second)
    if isinstance(first, Mask) and isinstance(second, Mask):
        _check_apart(one, other)
    union = Difference(other.steps | one.steps, {})
    order = [name for name in dict.fromkeys([*_in_order(model), *union.steps]) if name in union.steps]
    risk, _ = difference_risk(model, Difference({name: union.steps[name] for name in order}, {}), batches, loss)
    matrix, gradient, sizes = curvature_of(risk, curvature), risk.gradient(), layer_sizes(risk)
    p, q = joined_step(risk, one), joined_step(risk, other)
    curved_p, curved_q = matrix @ p, matrix @ q
    halves = zip(inner_by_layer(p, curved_q, sizes), inner_by_layer(q, curved_p, sizes), strict=True)
    before = loss_at(risk)
    return Interaction(
        layers=tuple((name, (a + b) / 2) for name, (a, b) in zip(sizes, halves, strict=True)),
        first=_inner(p, gradient + curved_p / 2),
        second=_inner(q, gradient + curved_q / 2),
        measured_first=loss_at(risk, p) - before,
        measured_second=loss_at(risk, q) - before,
        measured_together=loss_at(risk, p + q) - before,
    )


def _inner(left: Tensor, right: Tensor) -> float:
    return float(torch.dot(left.double(), right.double()))


def _in_order(model: nn.Module) -> list[str]:
    return [name.removesuffix("_orig") for name, _ in model.named_parameters()]


def _check_apart(one: Difference, other: Difference) -> None:
    for name in one.steps.keys() & other.steps.keys():
        twice = int(((one.steps[name] != 0) & (other.steps[name] != 0)).sum())
        if twice:
            raise InputError(
                f"both masks remove the same {twice} weights of '{name}'; remove each weight in one of the masks only"
            )
