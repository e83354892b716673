"""First order: weights whose removal changes the loss least, by the gradient alone, go first."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from howsparse.pruning.orders.order import Order, make_order, risk_for
from howsparse.risk.losses import Loss, cross_entropy

__all__ = ["gradient"]


def gradient(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = cross_entropy,
    names: Iterable[str] | None = None,
    seed: int = 0,
) -> Order:
    r"""The order of :math:`|g_i w_i|`, where g is the gradient of the mean loss over all batches.

    Removing weight i changes the loss by :math:`-g_i w_i` to first order. In a network that is trained to a minimum,
    the gradient is small and noisy; `curvature` is then the better choice.

    Args:
        model: any module; it is not changed.
        batches: batches that can be read several times.
        loss: ``loss(model, batch)``, mean over the batch.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        seed: not used.

    Returns:
        Scores are :math:`|g_i w_i|`, in units of the loss.

    Raises:
        InputError: there are no batches, the model has no prunable weight, a name is unknown, or the loss is not
            usable.

    Source: Molchanov et al. (2017), Pruning convolutional neural networks for resource efficient inference.

    >>> import torch
    >>> gradient(nn.Linear(2, 2), [(torch.eye(2), torch.tensor([0, 1]))]).mask(0.5).num_kept
    2
    """
    risk = risk_for("gradient", model, batches, loss, names)
    slopes = risk.unflatten(risk.gradient())
    scores = {
        name: (slope * leaf.detach()).abs() for name, slope, leaf in zip(risk.names, slopes, risk.leaves, strict=True)
    }
    return make_order("gradient", model, scores, f"|gradient times weight|, {risk.num_examples:,} examples")
