"""`Stages`, from which pruning methods are built: trainings of a network under masks, and their history."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from howsparse.limit.options import Answer
from howsparse.limit.result import PruningLimit
from howsparse.methods.limits import limit_of, network_inputs
from howsparse.methods.run import Run, Sparsity, parse_sparsity
from howsparse.methods.ticket import TRAINING, Stage, Ticket, Trained
from howsparse.parallel import from_first
from howsparse.problem import Problem, Training
from howsparse.pruning.masks import Mask
from howsparse.risk import evaluate, select_weights
from howsparse.store import Store
from howsparse.training import Epoch, Schedule, attach_l1, attach_mask, fit, learning_rate_factors
from howsparse.training.checkpoint import discard_unusable, training_key
from howsparse.training.schedule import attach_schedule

__all__ = ["Run", "Sparsity", "Stages", "dense_mask", "parse_sparsity"]

_SAVE_EVERY = 10.0  # smallest number of seconds between two checkpoints


@dataclass
class Stages:
    """The trainings of one run of a method, in order.

    Attributes:
        problem: network, data, loss and training.
        seed: seed of initialisation, batches and masks.
        run: folder, options of limits, and callbacks.

    >>> from howsparse import load_task
    >>> stages = Stages(load_task("digits"), seed=0)
    >>> stages.target(0.9), stages.history
    (0.9, ())
    """

    problem: Problem
    seed: int
    run: Run = field(default_factory=Run)
    _history: list[Stage] = field(default_factory=list)

    @property
    def history(self) -> tuple[Stage, ...]:
        """The trainings so far."""
        return tuple(self._history)

    def train(
        self,
        name: str,
        model: nn.Module,
        mask: Mask | None = None,
        *,
        epochs: int | None = None,
        first: int = 0,
        l1: float = 0.0,
        grow: Callable[[int], Mask] | None = None,
    ) -> Trained:
        """Train ``model`` with the problem's settings, and hold removed weights at zero.

        Args:
            name: name of the stage.
            model: the network; it is trained in place from its present weights.
            mask: weights that stay; by default all.
            epochs: number of epochs; by default the problem's number minus ``first``.
            first: number of the first epoch in the whole training, for rewinding.
            l1: strength of the l1 term, loss per absolute weight.
            grow: ``grow(epoch)`` returns the mask from that epoch on. It must depend only on the model's present state.
                The user's own training loop, if the problem has one, is then called once for each epoch.

        Returns:
            The network's state, the final mask and the history of the epochs.
        """
        mask = dense_mask(model) if mask is None else mask
        epochs = self.problem.epochs - first if epochs is None else epochs
        lesson = _Lesson(name, model, mask, epochs, first, l1, grow)
        options = {"epochs": epochs, "first": first, "l1": l1, "grow": name if grow else None}

        def compute(workspace: Path | None) -> Trained:
            train = self._by_library if isinstance(self.problem.fit, Training) else self._by_own_fit
            return train(lesson, workspace)

        return self.keep(name, model, epochs, options | {"mask": dict(mask)}, compute)

    def fit(
        self,
        name: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        epochs: int,
        workspace: Path | None,
        *,
        first: int = 0,
        factor: Callable[[int], float] = lambda epoch: 1.0,
        before_epoch: Callable[[int], None] = lambda epoch: None,
    ) -> list[Epoch]:
        """Call `howsparse.training.fit` with the problem's data and loss, and a checkpoint in ``workspace``.

        Args:
            name: name of the stage, for progress.
            model: the network; it is trained in place.
            optimizer: holds the parameters to train.
            epochs: number of epochs.
            workspace: folder for the checkpoint; None for no checkpoint.
            first: number of the first epoch in the whole training; batches and ``factor`` use it.
            factor: ``factor(epoch)`` multiplies the learning rate.
            before_epoch: called before each epoch with its number in this stage.

        Returns:
            Loss and accuracy of each epoch.
        """
        batches = self.problem.epoch_batches(self.seed)
        checkpoint = None if workspace is None else workspace / "checkpoint.safetensors"
        about = None if workspace is None else workspace.name
        from_first(partial(discard_unusable, checkpoint, training_key(optimizer, self.seed, about)))
        return fit(
            model,
            optimizer,
            lambda epoch: batches(epoch + first),
            epochs,
            loss=self.problem.loss,
            factor=lambda epoch: factor(epoch + first),
            checkpoint=checkpoint,
            about=about,
            save_every=_SAVE_EVERY,
            before_epoch=before_epoch,
            on_epoch=lambda epoch: self.run.on_epoch(name, epoch),
            seed=self.seed,
        )

    def keep(
        self,
        name: str,
        model: nn.Module,
        epochs: int,
        options: Mapping[str, Any],
        compute: Callable[[Path | None], Trained],
        network: Callable[[], nn.Module] | None = None,
    ) -> Trained:
        """Run a training, or read it from the run's folder, and add it to the history.

        Args:
            name: name of the stage.
            model: the network; it gets the weights at the end of the training.
            epochs: number of epochs of the training.
            options: all options that identify this training among those of this model on the problem's data.
            compute: runs the training, as for `Store.get`.
            network: returns the network to evaluate, if it is not ``model`` itself.

        Returns:
            The training, computed or read.
        """
        settings = {
            key: value for key, value in self.problem.settings().items() if key not in ("epochs", "l1", "network")
        }
        inputs = network_inputs(self.problem, model) | {"problem": settings}
        trained = Store(self.run.folder).get(TRAINING, inputs, {"seed": self.seed, **options}, compute)
        model.load_state_dict(trained.state)
        used = model if network is None else network()
        _, accuracy = evaluate(used, self.problem.test, self.problem.loss)
        seconds, loss = sum(epoch.seconds for epoch in trained.history), trained.history[-1].loss
        stage = Stage(name, trained.mask.sparsity, epochs, loss, accuracy, seconds)
        self._history.append(stage)
        self.run.on_stage(stage, used, trained.mask)
        return trained

    def target(self, sparsity: Sparsity, model: nn.Module | None = None) -> float:
        """The sparsity to prune to, as a fraction.

        Args:
            sparsity: a fraction in [0, 1), or "limit" or "predicted".
            model: the network whose limit is computed. By default this is the dense network, trained with the problem's
                l1 term. Table 3 of the paper uses its limit for every method.

        Returns:
            The fraction of the weights to remove.
        """
        sparsity = parse_sparsity(sparsity)
        if not isinstance(sparsity, Answer):
            return sparsity
        if model is None:
            model = self.problem.initial(self.seed)
            self.train("dense with l1, for the limit", model, l1=self.problem.l1)
        limit = self.limit(model)
        return limit.resolved_sparsity() if sparsity is Answer.LIMIT else limit.checked_prediction()

    def limit(self, model: nn.Module, mask: Mask | None = None) -> PruningLimit:
        """The limit of ``model`` after the last training. The history stores its numbers with this training.

        Args:
            model: the network; it is not changed.
            mask: the weights under study are those that stay under this mask; by default all.

        Returns:
            The limit. Its sparsities are fractions of the weights under study.
        """
        found = limit_of(self.problem, model, mask, self.seed, self.run)
        self._history[-1] = replace(self._history[-1], limits=found.summary())
        return found

    def ticket(self, model: nn.Module, mask: Mask) -> Ticket:
        """Evaluate ``model`` with its present weights, and return the ticket.

        Args:
            model: the network; its removed weights are zero.
            mask: the weights that stay.

        Returns:
            The network with its losses and accuracy, and the history of the trainings.
        """
        loss, _ = evaluate(model, self.problem.study_batches(), self.problem.loss)
        test_loss, accuracy = evaluate(model, self.problem.test, self.problem.loss)
        return Ticket(model, mask, accuracy, loss, test_loss, self.history)

    def _by_library(self, lesson: "_Lesson", workspace: Path | None) -> Trained:
        settings, model = self.problem.fit, lesson.model
        assert isinstance(settings, Training)
        optimizer = settings.optimizer(model)
        if lesson.l1:
            attach_l1(optimizer, settings.penalised(model), lesson.l1, proximal=settings.proximal)
        masking = attach_mask(optimizer, model, lesson.mask)
        factors, set_rate = self._schedule(optimizer, settings.schedule, lesson.first + lesson.epochs)

        def before_epoch(epoch: int) -> None:
            set_rate(epoch + lesson.first)
            if lesson.grow is not None:
                masking.mask = lesson.grow(epoch)

        history = self.fit(
            lesson.name,
            model,
            optimizer,
            lesson.epochs,
            workspace,
            first=lesson.first,
            factor=factors.__getitem__,
            before_epoch=before_epoch,
        )
        before_epoch(lesson.epochs)
        return Trained(model.state_dict(), masking.mask, tuple(history))

    def _schedule(
        self, optimizer: torch.optim.Optimizer, schedule: Schedule, last: int
    ) -> tuple[list[float], Callable[[int], None]]:
        """The factor of the learning rate in each epoch up to ``last``, and a function to call before each epoch."""
        epochs = max(self.problem.epochs, last)
        if schedule.unit == "epoch":
            return learning_rate_factors(schedule, epochs), lambda epoch: None
        return [1.0] * epochs, attach_schedule(optimizer, schedule, epochs, self.problem.num_batches)

    def _by_own_fit(self, lesson: "_Lesson", workspace: Path | None) -> Trained:
        """Train by the user's own loop. Only its result is stored, so an interrupted training starts again."""
        own, model, mask, began = self.problem.fit, lesson.model, lesson.mask, time.perf_counter()
        assert not isinstance(own, Training)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            if lesson.grow is None:
                own(model, mask, l1=lesson.l1, epochs=lesson.epochs, first=lesson.first, seed=self.seed)
            else:
                for epoch in range(lesson.epochs):
                    mask = lesson.grow(epoch)
                    mask.apply_(model)
                    own(model, mask, l1=lesson.l1, epochs=1, first=lesson.first + epoch, seed=self.seed)
                mask = lesson.grow(lesson.epochs)
        mask.apply_(model)
        seconds = time.perf_counter() - began
        loss, accuracy = evaluate(model, self.problem.study_batches(), self.problem.loss)
        done = Epoch(lesson.epochs - 1, loss, accuracy, seconds)
        self.run.on_epoch(lesson.name, done)
        return Trained(model.state_dict(), mask, (done,))


@dataclass(frozen=True)
class _Lesson:
    """The arguments of one training."""

    name: str
    model: nn.Module
    mask: Mask
    epochs: int
    first: int
    l1: float
    grow: Callable[[int], Mask] | None


def dense_mask(model: nn.Module) -> Mask:
    """The mask under which all weights stay."""
    return Mask({name: torch.ones_like(w, dtype=torch.bool) for name, w in select_weights(model, None).items()})
