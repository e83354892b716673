"""All repairs by name, with one signature: they prune a model to a sparsity and repair it."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from howsparse.errors import InputError
from howsparse.pruning.masks import Mask
from howsparse.pruning.orders import Order, OrderFunction, rank
from howsparse.pruning.repair.batchnorm import repair_batchnorm
from howsparse.pruning.repair.gauss_newton import repair_globally
from howsparse.pruning.repair.least_squares import repair_layers
from howsparse.pruning.repair.rounds import repair_rounds
from howsparse.risk.alone import alone
from howsparse.risk.guard import guarded_with_values
from howsparse.risk.losses import Loss, cross_entropy

__all__ = ["REPAIRS", "Repair", "as_repair", "continue_repair", "prune_and_repair", "start_of"]


class Repair(Protocol):
    """A function that prunes a model in place to a sparsity, repairs it, and returns the mask.

    >>> by_forward_passes: Repair = REPAIRS["rounds"]
    >>> as_repair(by_forward_passes) is by_forward_passes
    True
    """

    def __call__(
        self,
        model: nn.Module,
        sparsity: float,
        batches: Iterable[Any],
        *,
        order: str | Order | OrderFunction,
        names: Iterable[str] | None,
        loss: Loss,
        seed: int,
    ) -> Mask: ...


@dataclass(frozen=True)
class _Choice:
    """What chooses the weights to remove."""

    order: str | Order | OrderFunction
    names: Iterable[str] | None
    loss: Loss
    seed: int


Start = Callable[[nn.Module, float, list[Any], nn.Module, _Choice], Mask]  # model, sparsity, examples, dense network
Step = Callable[[nn.Module, Mask, list[Any], nn.Module, Loss], object]  # model, mask, examples, dense network, loss


def _by_layers(model: nn.Module, mask: Mask, batches: list[Any], dense: nn.Module, loss: Loss) -> None:
    repair_layers(model, mask, batches, dense=dense, loss=loss)


def _by_statistics(model: nn.Module, mask: Mask, batches: list[Any], dense: nn.Module, loss: Loss) -> None:
    repair_batchnorm(model, batches, loss=loss)


def _together(model: nn.Module, mask: Mask, batches: list[Any], dense: nn.Module, loss: Loss) -> None:
    repair_globally(model, mask, batches, dense=dense, loss=loss)


def _once(model: nn.Module, sparsity: float, batches: list[Any], dense: nn.Module, choice: _Choice) -> Mask:
    return rank(model, choice.order, batches, loss=choice.loss, names=choice.names, seed=choice.seed).mask(sparsity)


def _in_rounds(model: nn.Module, sparsity: float, batches: list[Any], dense: nn.Module, choice: _Choice) -> Mask:
    if isinstance(choice.order, Order):
        raise InputError("rounds need an order that can be made anew; give its name or its function")
    return repair_rounds(
        model,
        sparsity,
        batches,
        order=choice.order,
        dense=dense,
        names=choice.names,
        loss=choice.loss,
        seed=choice.seed,
    )


def _after(start: Start, *steps: Step) -> Repair:
    """The mask of a start, then the steps."""

    def repair(
        model: nn.Module,
        sparsity: float,
        batches: Iterable[Any],
        *,
        order: str | Order | OrderFunction,
        names: Iterable[str] | None,
        loss: Loss,
        seed: int,
    ) -> Mask:
        given, dense = list(batches), copy.deepcopy(model)
        mask = start(model, sparsity, given, dense, _Choice(order, names, loss, seed))
        mask.apply_(model)
        for step in steps:
            step(model, mask, given, dense, loss)
        return mask

    return repair


_STEPS: dict[str, Step] = {"global": _together}  # what follows a "+" in a name

REPAIRS: dict[str, Repair] = {
    "none": _after(_once),
    "batchnorm": _after(_once, _by_statistics),
    "layers": _after(_once, _by_layers),
    "rounds": _after(_in_rounds),
    "global": _after(_once, _together),
    "layers+global": _after(_once, _by_layers, _together),
    "rounds+global": _after(_in_rounds, _together),
}


def as_repair(repair: str | Repair) -> Repair:
    """The repair with a name, or the function that is given.

    Args:
        repair: a name in `REPAIRS`, or a function with the same signature as those.

    Returns:
        The function that repairs.

    Raises:
        InputError: the name is unknown.

    >>> as_repair("layers") is REPAIRS["layers"]
    True
    """
    if not isinstance(repair, str):
        return repair
    if repair not in REPAIRS:
        raise InputError(f"repair '{repair}' is not known; use one of {', '.join(REPAIRS)}")
    return REPAIRS[repair]


def start_of(repair: str) -> str | None:
    """The repair with which another repair begins; None if it does not begin with one.

    Args:
        repair: a name in `REPAIRS`.

    Returns:
        A name in `REPAIRS`, or None.

    >>> start_of("rounds+global"), start_of("global")
    ('rounds', None)
    """
    start = repair.rpartition("+")[0]
    return start if start in REPAIRS else None


@alone
@guarded_with_values
def continue_repair(
    model: nn.Module,
    mask: Mask,
    batches: Iterable[Any],
    *,
    repair: str,
    dense: nn.Module,
    loss: Loss = cross_entropy,
) -> None:
    """Continue a repair after its start. The model then equals the result of the whole repair of ``dense``.

    Args:
        model: a model that was pruned and repaired by `start_of` the repair; it is changed in place.
        mask: its mask.
        batches: the same calibration batches.
        repair: a name in `REPAIRS` that has a start.
        dense: the network before pruning.
        loss: ``loss(model, batch)``.

    Raises:
        InputError: the repair has no start, or refuses the model or the data. The model is then as it was.

    >>> import torch
    >>> dense, batches = nn.Linear(10, 4), [(torch.randn(20, 10), torch.zeros(20).long())]
    >>> whole, parts = copy.deepcopy(dense), copy.deepcopy(dense)
    >>> mask = prune_and_repair(whole, 0.75, batches, repair="layers+global")
    >>> mask = prune_and_repair(parts, 0.75, batches, repair="layers")
    >>> continue_repair(parts, mask, batches, repair="layers+global", dense=dense)
    >>> torch.equal(whole.weight, parts.weight)
    True
    """
    if start_of(repair) is None:
        raise InputError(f"repair '{repair}' does not go on from another one; use prune_and_repair")
    _STEPS[repair.rpartition("+")[2]](model, mask, list(batches), dense, loss)


@alone
@guarded_with_values
def prune_and_repair(
    model: nn.Module,
    sparsity: float,
    batches: Iterable[Any],
    *,
    repair: str | Repair = "rounds",
    order: str | Order | OrderFunction = "magnitude",
    names: Iterable[str] | None = None,
    loss: Loss = cross_entropy,
    seed: int = 0,
) -> Mask:
    """Prune a model in place to a sparsity by an order, and repair the weights that stay.

    The repairs by name:

    - ``none``: neither the weights that stay nor the biases change.
    - ``batchnorm``: `repair_batchnorm`, only for a network with BatchNorm.
    - ``layers``: `repair_layers`, least squares of each layer's weights.
    - ``rounds``: `repair_rounds`, which alternates between an order and ``layers``.
    - ``global``: `repair_globally`, all kept weights together.
    - ``layers+global`` and ``rounds+global``: one after the other.

    Args:
        model: any module; it is changed in place.
        sparsity: fraction of the weights to remove, in [0, 1).
        batches: calibration batches that can be read several times, of a few hundred to a few thousand examples.
        repair: a name in `REPAIRS`, or a function with the same signature as those.
        order: a name in `howsparse.pruning.orders.ORDERS`, an order, or a function that makes one. Rounds make the
            order anew each time, so they do not accept an `Order` object.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        loss: ``loss(model, batch)``.
        seed: seed of an order that draws at random.

    Returns:
        The mask. The weights that it removes are zero in the model.

    Raises:
        InputError: the repair or the order is unknown, or refuses the model, the sparsity or the data. The model is
            then as it was.

    >>> import torch
    >>> model, batches = nn.Linear(10, 4), [(torch.randn(20, 10), torch.zeros(20).long())]
    >>> prune_and_repair(model, 0.75, batches, repair="layers").num_kept
    10
    """
    chosen = as_repair(repair)
    return chosen(model, sparsity, batches, order=order, names=names, loss=loss, seed=seed)
