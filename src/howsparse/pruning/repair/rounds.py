"""Pruning in rounds: remove some weights, let the others make it good, and choose the next among the new values."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from howsparse.errors import InputError
from howsparse.pruning.masks import Mask, check_sparsity
from howsparse.pruning.orders import Order, OrderFunction, rank
from howsparse.pruning.repair.least_squares import Inputs, repair_layers
from howsparse.risk.losses import Loss, cross_entropy

__all__ = ["repair_rounds", "round_sparsities"]


def repair_rounds(
    model: nn.Module,
    sparsity: float,
    batches: Iterable[Any],
    *,
    rounds: int = 5,
    order: str | OrderFunction = "magnitude",
    dense: nn.Module | None = None,
    ridge: float = 1e-3,
    inputs: Inputs = "pruned",
    names: Iterable[str] | None = None,
    loss: Loss = cross_entropy,
    seed: int = 0,
) -> Mask:
    """Prune a model to a sparsity in rounds: each removes the next weights by an order, and repairs the layers.

    The order is made anew in each round, from the repaired weights: a weight that another one has replaced becomes
    small. The goal of every repair is the output of the dense network. At large sparsities a few rounds are much better
    than one, and each takes as long as `repair_layers`.

    Args:
        model: any module; it is changed in place.
        sparsity: fraction of the weights to remove, in [0, 1); see `round_sparsities` for the steps.
        batches: calibration batches that can be read several times.
        rounds: number of rounds.
        order: a name in `howsparse.pruning.orders.ORDERS`, or a function that makes an order.
        dense: network whose outputs are the goal; by default ``model`` as it is given.
        ridge: as for `repair_layers`.
        inputs: as for `repair_layers`.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        loss: ``loss(model, batch)``; it calls the model on a batch.
        seed: seed of an order that draws at random.

    Returns:
        The mask of the last round.

    Raises:
        InputError: the sparsity is outside [0, 1), there are no rounds, the order is an `Order` that cannot be made
            anew, or `repair_layers` refuses the model or the data. The model is then as the last whole round left it.

    Source: rounds of pruning, as Han et al. (2015), Learning both weights and connections; the repair is that of
    Frantar and Alistarh (2023).

    >>> model = nn.Linear(10, 4)
    >>> mask = repair_rounds(model, 0.75, [(torch.randn(20, 10), torch.zeros(20).long())], rounds=2)
    >>> mask.num_kept, int((model.weight != 0).sum())
    (10, 10)
    """
    if isinstance(order, Order):
        raise InputError("an order that is already made stays the same in all rounds; give its name or its function")
    dense = copy.deepcopy(model) if dense is None else dense
    chosen = None if names is None else list(names)
    given = list(batches)
    kept: Mask | None = None
    for step in round_sparsities(sparsity, rounds):
        ranked = rank(model, order, given, loss=loss, names=chosen, seed=seed)
        kept = ranked.mask(step) if kept is None else _within(kept, ranked).mask(step)
        repair_layers(model, kept, given, dense=dense, ridge=ridge, inputs=inputs, loss=loss)
    assert kept is not None
    return kept


def _within(kept: Mask, order: Order) -> Order:
    """The order under which the weights that are removed already go first."""
    scores = {name: s.masked_fill(~kept[name].to(s.device), -torch.inf) for name, s in order.scores.items()}
    return Order(order.name, scores, order.note)


def round_sparsities(sparsity: float, rounds: int) -> list[float]:
    """The sparsity after each round. Each round removes the same fraction of the weights that are left.

    Args:
        sparsity: that of the last round, in [0, 1).
        rounds: number of rounds, at least 1.

    Returns:
        One sparsity for each round, the last is ``sparsity`` itself.

    Raises:
        InputError: the sparsity is outside [0, 1), or there are no rounds.

    >>> [round(each, 6) for each in round_sparsities(0.9, 3)]
    [0.535841, 0.784557, 0.9]
    """
    if rounds < 1:
        raise InputError(f"{rounds} rounds are not enough; use at least 1")
    left = 1 - check_sparsity(sparsity)
    return [*(1 - left ** (i / rounds) for i in range(1, rounds)), float(sparsity)]
