"""`SparsityCallback`: an l1 term and measured sparsities in a training by `transformers.Trainer`."""

import math
import warnings
from collections.abc import Iterable
from typing import Any

from howsparse.errors import InputError
from howsparse.integrations.watch import Watch, attach_terms
from howsparse.pruning.orders import Order, OrderFunction
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.training.l1 import L1

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    raise InputError("transformers is not installed; run pip install 'howsparse[huggingface]'") from error

__all__ = ["SparsityCallback"]


class SparsityCallback(TrainerCallback):  # type: ignore[misc]
    r"""Adds an l1 term to a training by `transformers.Trainer`, logs how sparse the model can be pruned, and stops.

    After every ``every`` epochs it logs ``howsparse_measured_sparsity``: the largest sparsity that keeps what you
    allow, found by evaluating pruned models. If ``predict``, it also logs ``howsparse_predicted_sparsity``, and
    ``howsparse_prediction_holds``: 1 if the predicted mask was evaluated and its loss confirms the prediction, else 0.
    The logs are in ``trainer.state.log_history``. With ``trainer``, they also go to wandb, TensorBoard and all other
    callbacks, through ``trainer.log``.

    The term is in the optimizer only while it takes a step. So nothing of it stays after the training, not even after
    an exception. Measuring changes no bit of the training. Gradients are clipped before the term is added.

    With several processes, each must hold all weights (data parallel): all measure, each on its share of the batches.
    Give each process a plain loader of all batches. Sharded weights (FSDP, DeepSpeed ZeRO) are not supported.

    Args:
        strength: :math:`\lambda`, loss per absolute weight; None to watch only.
        proximal: soft-threshold after the step, which makes weights exactly zero, as for `howsparse.attach_l1`.
        batches: held data to measure on, which can be read several times, for example
            ``trainer.get_eval_dataloader()``; None to measure nothing.
        max_drop, tolerance, max_rise: what pruning may cost, as for `howsparse.measure`; by default one point of
            accuracy. The prediction allows the same increase of the loss; with a goal of accuracy, the default of
            `howsparse.limit.predict.predict`.
        every: number of epochs from one measurement to the next.
        stop_at: measured sparsity at which the training stops.
        order: which weights are removed first, as for `howsparse.measure`.
        predict: whether to predict too. This is done for the order "magnitude" only.
        loss: ``loss(model, batch)``, mean over the batch.
        trainer: the trainer whose ``log`` reports the values.

    Raises:
        InputError: an option is not valid. At the start of the training: the optimizer does not hold a weight, or the
            model, the loss and the batches do not fit together.

    >>> callback = SparsityCallback(strength=1e-4, proximal=True)
    >>> SparsityCallback(stop_at=0.9)
    Traceback (most recent call last):
    howsparse.errors.InputError: stop_at needs data to measure on; give batches=...
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
        trainer: Any = None,
    ) -> None:
        self._watch = Watch(batches, max_drop, tolerance, max_rise, every, stop_at, order, predict, loss)
        self._strength, self._proximal, self._trainer = strength, proximal, trainer
        self._terms: list[L1] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find mistakes before the first step.

        Args:
            args: the arguments of the training, of transformers.
            state: its state.
            control: what the trainer does next.
            **kwargs: the model and the optimizer, among others.
        """
        self._attach(kwargs)
        self._detach()
        self._watch.check(kwargs["model"])
        if args.report_to and self._trainer is None and self._watch.batches is not None:
            warnings.warn(
                f"sparsities go to trainer.state.log_history only; give SparsityCallback(..., trainer=trainer), so that"
                f" {', '.join(args.report_to)} gets them",
                stacklevel=2,
            )

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the term for one step.

        Args:
            args: the arguments of the training, of transformers.
            state: its state.
            control: what the trainer does next.
            **kwargs: the model and the optimizer, among others.
        """
        self._attach(kwargs)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the term away after the step.

        Args:
            args: the arguments of the training, of transformers.
            state: its state.
            control: what the trainer does next.
            **kwargs: the model and the optimizer, among others.
        """
        self._detach()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure, log, and stop at the asked sparsity.

        Args:
            args: the arguments of the training, of transformers.
            state: its state.
            control: what the trainer does next.
            **kwargs: the model and the optimizer, among others.
        """
        if not self._watch.due(math.ceil(state.epoch - 1e-6)):
            return
        values = self._watch.values(kwargs["model"])
        if values:
            self._log(values, state, control)
        if self._watch.reached(values):
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove the term from the optimizer.

        Args:
            args: the arguments of the training, of transformers.
            state: its state.
            control: what the trainer does next.
            **kwargs: the model and the optimizer, among others.
        """
        self._detach()

    def _log(self, values: dict[str, float], state: Any, control: Any) -> None:
        if self._trainer is None:
            state.log_history.append(values | {"epoch": state.epoch, "step": state.global_step})
            return
        asked = control.should_log
        self._trainer.log(dict(values))
        control.should_log = asked  # the trainer's own logs of this epoch come next, and log() took back that request

    def _attach(self, given: dict[str, Any]) -> None:
        self._detach()  # an exception within a step may have left the last one
        self._terms = attach_terms([given["optimizer"]], given["model"], self._strength, proximal=self._proximal)

    def _detach(self) -> None:
        for term in self._terms:
            term.remove()
        self._terms = []
