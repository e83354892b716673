"""Pruning in rounds: remove some weights, repair the others, and choose the next weights by their new values."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from howsparse.errors import InputError
from howsparse.pruning.masks import Mask, check_sparsity
from howsparse.pruning.orders import Order, OrderFunction, rank
from howsparse.pruning.repair.least_squares import Inputs, repair_layers
from howsparse.risk.alone import alone
from howsparse.risk.guard import guarded_with_values
from howsparse.risk.losses import Loss, cross_entropy

__all__ = ["repair_path", "repair_rounds", "round_sparsities"]


@alone
def repair_path(
    model: nn.Module,
    sparsities: Sequence[float],
    batches: Iterable[Any],
    *,
    order: str | OrderFunction = "magnitude",
    dense: nn.Module | None = None,
    ridge: float = 1e-3,
    inputs: Inputs = "pruned",
    names: Iterable[str] | None = None,
    loss: Loss = cross_entropy,
    seed: int = 0,
) -> Iterator[Mask]:
    """Prune a model to several sparsities, from small to large, and repair its layers at each.

    One path gives a good network at each of its sparsities. Each step takes the time of one `repair_layers`. At each
    step the order is made anew from the repaired weights, because a weight becomes small if other weights can replace
    it. The goal of every repair is the output of the dense network.

    Args:
        model: any module; it is changed in place. Copy it between two steps to keep a network.
        sparsities: fractions of the weights to remove, in [0, 1), each above the one before.
        batches: calibration batches that can be read several times.
        order: a name in `howsparse.pruning.orders.ORDERS`, or a function that makes an order.
        dense: network whose outputs are the goal; by default ``model`` as it is given.
        ridge: as for `repair_layers`.
        inputs: as for `repair_layers`.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        loss: ``loss(model, batch)``; it calls the model on a batch.
        seed: seed of an order that draws at random.

    Yields:
        The mask of each sparsity, after the model was pruned to it and repaired.

    Raises:
        InputError: a sparsity is outside [0, 1) or not above the one before, or there is none; the order is an `Order`
            that cannot be made anew, or `repair_layers` refuses the model or the data. The model is then as it was
            after the last complete step.

    Source: rounds of pruning, as Han et al. (2015), Learning both weights and connections; the repair is that of
    Frantar and Alistarh (2023).

    >>> model, batches = nn.Linear(10, 4), [(torch.randn(20, 10), torch.zeros(20).long())]
    >>> [(mask.num_kept, int((model.weight != 0).sum())) for mask in repair_path(model, [0.5, 0.75], batches)]
    [(20, 20), (10, 10)]
    """
    if isinstance(order, Order):
        raise InputError("an order that is already made stays the same in all rounds; give its name or its function")
    steps = [check_sparsity(each) for each in sparsities]
    if not steps or any(later <= earlier for earlier, later in pairwise(steps)):
        raise InputError(
            f"the sparsities {steps} do not grow from one to the next; give at least one, in growing order"
        )
    dense = copy.deepcopy(model) if dense is None else dense
    chosen, given = None if names is None else list(names), list(batches)

    def path() -> Iterator[Mask]:
        kept: Mask | None = None
        for step in steps:
            ranked = rank(model, order, given, loss=loss, names=chosen, seed=seed)
            kept = ranked.mask(step) if kept is None else _within(kept, ranked).mask(step)
            repair_layers(model, kept, given, dense=dense, ridge=ridge, inputs=inputs, loss=loss)
            yield kept

    return path()


@alone
@guarded_with_values
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
    """Prune a model to a sparsity in rounds. Each round removes the next weights by an order, and repairs the layers.

    It is a `repair_path` to one sparsity. At large sparsities a few rounds are much better than one. Each round takes
    as long as one `repair_layers`.

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
            anew, or `repair_layers` refuses the model or the data. The model is then as it was.

    Source: as for `repair_path`.

    >>> model = nn.Linear(10, 4)
    >>> mask = repair_rounds(model, 0.75, [(torch.randn(20, 10), torch.zeros(20).long())], rounds=2)
    >>> mask.num_kept, int((model.weight != 0).sum())
    (10, 10)
    """
    steps = round_sparsities(sparsity, rounds)
    path = repair_path(
        model,
        steps,
        batches,
        order=order,
        dense=dense,
        ridge=ridge,
        inputs=inputs,
        names=names,
        loss=loss,
        seed=seed,
    )
    return [*path][-1]


def _within(kept: Mask, order: Order) -> Order:
    """The order, changed so that the weights that are already removed go first."""
    scores = {name: s.masked_fill(~kept[name].to(s.device), -torch.inf) for name, s in order.scores.items()}
    return Order(order.name, scores, order.note)


def round_sparsities(sparsity: float, rounds: int) -> list[float]:
    """The sparsity after each round. Each round removes the same fraction of the weights that are left.

    Args:
        sparsity: that of the last round, in [0, 1).
        rounds: number of rounds, at least 1.

    Returns:
        One sparsity for each round, the last is ``sparsity`` itself. A sparsity of 0 needs one round.

    Raises:
        InputError: the sparsity is outside [0, 1), or there are no rounds.

    >>> [round(each, 6) for each in round_sparsities(0.9, 3)]
    [0.535841, 0.784557, 0.9]
    """
    if rounds < 1:
        raise InputError(f"{rounds} rounds are not enough; use at least 1")
    left = 1 - check_sparsity(sparsity)
    if left == 1:
        return [0.0]
    return [*(1 - left ** (i / rounds) for i in range(1, rounds)), float(sparsity)]
