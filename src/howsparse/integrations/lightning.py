"""`LightningSparsity`: an l1 term and measured sparsities in a training by Lightning."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from howsparse.errors import InputError
from howsparse.integrations.watch import Watch, attach_terms
from howsparse.pruning.orders import Order, OrderFunction
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.training.l1 import L1

__all__ = ["LightningSparsity"]


def _callback_classes() -> tuple[type, ...]:
    """The class of callbacks of each installed package of Lightning; each package accepts only its own."""
    found: list[type] = []
    for package in ("lightning.pytorch", "pytorch_lightning"):
        try:
            found.append(import_module(package).Callback)
        except ModuleNotFoundError:
            continue
    if not found:
        raise InputError("Lightning is not installed; run pip install 'howsparse[lightning]'")
    return tuple(found)


class LightningSparsity(*_callback_classes()):  # type: ignore[misc]
    r"""Adds an l1 term to a training by Lightning, logs how sparse the module can be pruned, and stops.

    It does what `howsparse.integrations.trainer.SparsityCallback` does, and logs under the same names with
    ``pl_module.log``. It works with ``import lightning.pytorch`` and with ``import pytorch_lightning``.

    The term is in the module's optimizers from the start of the training to its end, even if it ends by an exception.
    Measuring changes no bit of the training. Gradients are clipped before the term is added.

    With several processes, each must hold all weights (data parallel): all measure, each on its share of the batches.
    Give each process a plain loader of all batches. Sharded weights (FSDP, DeepSpeed ZeRO) are not supported.

    Args:
        strength: :math:`\lambda`, loss per absolute weight; None to watch only.
        proximal: soft-threshold after the step, which makes weights exactly zero, as for `howsparse.attach_l1`.
        batches: held data to measure on, which can be read several times; None to measure nothing.
        max_drop, tolerance, max_rise: what pruning may cost, as for `howsparse.measure`; by default one point of
            accuracy.
        every: number of epochs from one measurement to the next.
        stop_at: measured sparsity at which the training stops.
        order: which weights are removed first, as for `howsparse.measure`.
        predict: whether to predict too. This is done for the order "magnitude" only.
        loss: ``loss(module, batch)``, mean over the batch; cross-entropy calls the module's ``forward`` with the input.

    Raises:
        InputError: an option is not valid. At the start of the training: no optimizer holds one of the weights, or the
            module, the loss and the batches do not fit together.

    >>> callback = LightningSparsity(1e-4, proximal=True)
    >>> LightningSparsity(every=0)
    Traceback (most recent call last):
    howsparse.errors.InputError: every=0 is not a number of epochs; give an integer of at least 1
    """

    def __init__(
        self,
        strength: float | None = None,
        *,
        proximal: bool = False,
        batches: Iterable[Any] | None = None,
        max_drop: float | None = None,
        tolerance: float | None = None,
        max_rise: float | None = None,
        every: int = 1,
        stop_at: float | None = None,
        order: str | Order | OrderFunction = "magnitude",
        predict: bool = True,
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__()
        self._watch = Watch(batches, max_drop, tolerance, max_rise, every, stop_at, order, predict, loss)
        self._strength, self._proximal = strength, proximal
        self._terms: list[L1] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Add the term, and find mistakes before the first step.

        Args:
            trainer: Lightning's trainer.
            pl_module: the module in training.
        """
        self._watch.check(pl_module)
        self._detach()
        self._terms = attach_terms(trainer.optimizers, pl_module, self._strength, proximal=self._proximal)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure, log, and stop at the asked sparsity.

        Args:
            trainer: Lightning's trainer.
            pl_module: the module in training.
        """
        if not self._watch.due(trainer.current_epoch + 1):
            return
        values = self._watch.values(pl_module)
        for name, value in values.items():
            pl_module.log(name, value, batch_size=1, sync_dist=True)
        if self._watch.reached(values):
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the term away.

        Args:
            trainer: Lightning's trainer.
            pl_module: the module in training.
        """
        self._detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Take the term away.

        Args:
            trainer: Lightning's trainer.
            pl_module: the module in training.
            exception: what ended the training.
        """
        self._detach()

    def _detach(self) -> None:
        for term in self._terms:
            term.remove()
        self._terms = []
