"""Curvature: weights whose removal alone raises the loss least, by the diagonal of the GGN, go first."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from howsparse.pruning.orders.diagonal import ggn_diagonal
from howsparse.pruning.orders.order import Order, make_order, risk_for
from howsparse.risk.losses import Loss, cross_entropy

__all__ = ["curvature"]


def curvature(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = cross_entropy,
    names: Iterable[str] | None = None,
    seed: int = 0,
    examples: int = 256,
) -> Order:
    r"""Optimal brain damage: the order of :math:`\tfrac12 h_i w_i^2`, where h is the diagonal of the GGN.

    This is the predicted rise of the loss if weight i alone is removed. The diagonal is exact or a sampled estimate
    (see `ggn_diagonal`); the order's note says which.

    Args:
        model: any module; it is not changed.
        batches: batches that can be read several times.
        loss: ``loss(model, batch)``, mean over the batch; the GGN needs a `SplitLoss`.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        seed: seed of the sampled estimate.
        examples: number of examples that are used: the first ones. The cost is proportional to it.

    Returns:
        Scores are :math:`\tfrac12 h_i w_i^2`, in units of the loss.

    Raises:
        InputError: there are no batches, the model has no prunable weight, a name is unknown, or the loss has no GGN.

    Source: LeCun et al. (1990), Optimal brain damage, with the Gauss-Newton matrix in place of the Hessian.

    >>> import torch
    >>> order = curvature(nn.Linear(2, 2), [(torch.eye(2), torch.tensor([0, 1]))])
    >>> order.note
    'exact diagonal from per-example gradients, 2 examples, 2 outputs'
    """
    risk = risk_for("curvature", model, batches, loss, names, examples)
    diagonal = ggn_diagonal(risk, seed=seed)
    parts = risk.unflatten(diagonal.values)
    scores = {
        name: h * leaf.detach().square() / 2 for name, h, leaf in zip(risk.names, parts, risk.leaves, strict=True)
    }
    return make_order("curvature", model, scores, diagonal.note)
