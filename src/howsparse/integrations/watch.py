"""The common part of the callbacks for training libraries: the l1 term, and sparsities measured during a training."""

import random
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from howsparse.errors import InputError
from howsparse.limit.goal import goal_of
from howsparse.limit.measure import Measured, measure
from howsparse.limit.predict import predict
from howsparse.pruning.orders import ORDERS, Order, OrderFunction
from howsparse.risk.evaluate import evaluate
from howsparse.risk.losses import Loss, as_loss, cross_entropy
from howsparse.risk.metrics import as_metric
from howsparse.risk.weights import select_weights
from howsparse.training.l1 import L1, attach_l1, unwrapped

__all__ = ["HOLDS", "MEASURED", "PREDICTED", "Watch", "attach_terms", "random_state_kept"]

MEASURED = "howsparse_measured_sparsity"
PREDICTED = "howsparse_predicted_sparsity"
HOLDS = "howsparse_prediction_holds"


@dataclass(frozen=True)
class Watch:
    """What to measure during a training, how often, and at which sparsity to stop.

    Attributes:
        batches: held data to measure on, which can be read several times; None to measure nothing.
        max_drop, tolerance, max_rise: what pruning may cost, as for `howsparse.measure`.
        every: number of epochs from one measurement to the next.
        stop_at: measured sparsity at which the training stops; None for never.
        order: which weights are removed first, as for `howsparse.measure`.
        predict: whether to predict too, if the order is "magnitude".
        loss: ``loss(model, batch)``, mean over the batch.

    Raises:
        InputError: a value is not valid, or something asks for a measurement and there are no batches.

    >>> model = nn.Linear(2, 2, bias=False)
    >>> model.weight.data = torch.tensor([[4.0, 0.1], [0.1, 4.0]])
    >>> watch = Watch([(torch.eye(2), torch.tensor([0, 1]))], stop_at=0.5, predict=False)
    >>> watch.values(model)
    {'howsparse_measured_sparsity': 0.5}
    >>> watch.reached(watch.values(model))
    True
    """

    batches: Iterable[Any] | None = None
    max_drop: float | None = None
    tolerance: float | None = None
    max_rise: float | None = None
    every: int = 1
    stop_at: float | None = None
    order: str | Order | OrderFunction = "magnitude"
    predict: bool = True
    loss: Loss = cross_entropy

    def __post_init__(self) -> None:
        goal_of(self.max_drop, self.tolerance, self.max_rise)
        if self.every < 1:
            raise InputError(f"every={self.every} is not a number of epochs; give an integer of at least 1")
        if self.stop_at is not None and not 0 < self.stop_at < 1:
            raise InputError(f"stop_at={self.stop_at:g} is not a sparsity; give a number between 0 and 1")
        if isinstance(self.order, str) and self.order not in ORDERS:
            raise InputError(f"order '{self.order}' is not known; use one of {', '.join(ORDERS)}")
        if isinstance(self.batches, Iterator):
            raise InputError("the batches can be read only once; give a list or a DataLoader")
        if self.batches is None and self.stop_at is not None:
            raise InputError("stop_at needs data to measure on; give batches=...")

    def check(self, model: nn.Module) -> None:
        """Try the model on the first batch, so that a mistake is found before the training begins.

        Raises:
            InputError: the model has no weights to prune, or the model, the loss and the batches do not fit together.
        """
        select_weights(model, None)
        if self.batches is None:
            return
        with random_state_kept():
            first = next(iter(self.batches), None)
            if first is None:
                raise InputError("there are no batches to measure on; give at least one")
            loss = as_loss(self.loss, model)
            goal_of(self.max_drop, self.tolerance, self.max_rise, has_metric=as_metric(None, loss) is not None)
            evaluate(model, [first], loss)

    def due(self, epochs: int) -> bool:
        """Whether to measure after this number of epochs."""
        return self.batches is not None and epochs % self.every == 0

    def values(self, model: nn.Module) -> dict[str, float]:
        """The sparsities of the model as it is now, by the names under which they are logged.

        The model and the random state are the same before and after. If the model cannot be measured, for example
        because its weights are not finite, a warning says why, and there are no values.
        """
        if self.batches is None:
            return {}
        with random_state_kept():
            try:
                return self._values(model, self.batches)
            except InputError as error:
                warnings.warn(f"howsparse did not measure: {error}", stacklevel=2)
                return {}

    def reached(self, values: dict[str, float]) -> bool:
        """Whether the measured sparsity is the one at which the training stops."""
        return self.stop_at is not None and values.get(MEASURED, 0.0) >= self.stop_at

    def _values(self, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        if not all(bool(w.isfinite().all()) for w in select_weights(model, None).values()):
            raise InputError("a weight is not finite, so the training has diverged; reduce the learning rate")
        measured = measure(
            model,
            batches,
            max_drop=self.max_drop,
            tolerance=self.tolerance,
            max_rise=self.max_rise,
            progress=False,
            order=self.order,
            loss=self.loss,
        )
        values = {MEASURED: measured.sparsity}
        allowed = _tolerance(measured)
        if self.predict and self.order == "magnitude" and (allowed is None or allowed > 0):
            prediction = predict(model, batches, tolerance=allowed, loss=self.loss, progress=False)
            values |= {PREDICTED: prediction.sparsity, HOLDS: float(prediction.holds)}
        return values


def _tolerance(measured: Measured) -> float | None:
    """The loss increase that the goal of a measurement allows; None if it is a goal of the metric."""
    goal = measured.goal
    return goal.tolerance if goal.max_rise is None else goal.max_rise * measured.dense.loss


def attach_terms(
    optimizers: Iterable[Any], model: nn.Module, strength: float | None, *, proximal: bool = False
) -> list[L1]:
    """Add an l1 term for the prunable weights of a model to the optimizers that hold them.

    Args:
        optimizers: torch optimizers or wrappers of these; each gets the term for the weights that it holds.
        model: any module; its frozen weights get no term.
        strength: loss per absolute weight; None for no term.
        proximal: as for `attach_l1`.

    Returns:
        The terms, to be removed after the training.

    Raises:
        InputError: no optimizer holds one of the weights, or as for `attach_l1`.

    >>> model = nn.Linear(2, 2)
    >>> [term.penalty() for term in attach_terms([torch.optim.SGD(model.parameters())], model, 0.0)]
    [0.0]
    """
    if strength is None:
        return []
    weights, inner = select_weights(model, None), [unwrapped(optimizer) for optimizer in optimizers]
    held = [{id(p) for group in optimizer.param_groups for p in group["params"]} for optimizer in inner]
    missing = [name for name, w in weights.items() if not any(id(w) in ids for ids in held)]
    if missing:
        raise InputError(
            f"no optimizer holds '{missing[0]}', which the l1 term is for; freeze it (requires_grad=False) or train it"
        )
    parts = [[w for w in weights.values() if id(w) in ids] for ids in held]
    return [
        attach_l1(optimizer, part, strength, proximal=proximal)
        for optimizer, part in zip(inner, parts, strict=True)
        if part
    ]


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the random states of torch, numpy and Python at the end of the context.

    >>> torch.manual_seed(0) and None
    >>> with random_state_kept():
    ...     inside = torch.rand(1)
    >>> bool(inside == torch.rand(1))
    True
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what older code draws from
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
