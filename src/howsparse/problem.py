"""`Problem`: a network, its data, its loss and its training. Pruning methods, studies and sweeps use a problem."""

import inspect
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from howsparse.errors import InputError
from howsparse.identity import describe
from howsparse.pruning.masks import Mask
from howsparse.risk.batches import FirstExamples, SamePasses
from howsparse.risk.counting import counted_examples
from howsparse.risk.losses import Loss, as_loss, cross_entropy
from howsparse.risk.weights import select_weights
from howsparse.store import digest
from howsparse.training import Schedule

__all__ = ["Fit", "Problem", "Training"]


@dataclass(frozen=True)
class Training:
    """Settings for training by SGD with `howsparse.training.fit`.

    Attributes:
        learning_rate: learning rate before the schedule.
        momentum: momentum of SGD.
        weight_decay: weight decay of SGD, for all parameters.
        schedule: the factors of the learning rate in each epoch.
        proximal: form of the l1 term. True: soft-threshold after each step, which gives exact zeros. False: add the
            subgradient to the gradient.
        l1_scope: parameters with an l1 term: "prunable", the weights that can be pruned; "all", also biases and norms.

    >>> sgd = Training(learning_rate=0.1).optimizer(nn.Linear(2, 2))
    >>> sgd.param_groups[0]["momentum"]
    0.9
    """

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = field(default=Schedule())
    proximal: bool = False
    l1_scope: Literal["prunable", "all"] = "prunable"

    def settings(self) -> dict[str, Any]:
        """The fields, for records.

        Returns:
            The values of the fields by name. ``l1_scope`` and the schedule's ``unit`` are left out at their defaults,
            because records that are older than these settings must stay the records of the same training.
        """
        fields = asdict(self)
        if self.l1_scope == "prunable":
            del fields["l1_scope"]
        if self.schedule.unit == "epoch":
            del fields["schedule"]["unit"]
        return fields

    def penalised(self, model: nn.Module) -> list[nn.Parameter]:
        """The parameters of ``model`` with an l1 term.

        Args:
            model: the network to train.

        Returns:
            The parameters that ``l1_scope`` names.
        """
        return list(model.parameters() if self.l1_scope == "all" else select_weights(model, None).values())

    def optimizer(self, model: nn.Module) -> torch.optim.SGD:
        """SGD for all parameters of ``model``.

        Args:
            model: the network to train.

        Returns:
            An optimizer with these settings.
        """
        return torch.optim.SGD(
            model.parameters(), self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )


class Fit(Protocol):
    """The user's own training loop, which trains ``model`` in place.

    Removed weights are set to zero after the call. During training they may have any values; `attach_mask` holds them
    at zero in every step.
    """

    def __call__(self, model: nn.Module, mask: Mask, *, l1: float, epochs: int, first: int, seed: int) -> object:
        """Train for ``epochs`` epochs.

        Args:
            model: the network; train it in place from its present weights.
            mask: the weights that stay; the others are zero.
            l1: strength of the l1 term, 0 for none; `attach_l1` adds it to an optimizer.
            epochs: number of passes over the training data.
            first: number of the first epoch in the whole training, for schedules; above 0 after rewinding.
            seed: seed of all random numbers.
        """


@runtime_checkable
class EpochBatches(Protocol):
    """Training data as a function of seed and epoch."""

    def __call__(self, seed: int, epoch: int) -> Iterable[Any]: ...


@dataclass(frozen=True)
class Problem:
    """A network, its data, its loss and its training.

    Attributes:
        network: returns the network at its initialisation; torch's random state is seeded before each call.
        train: training batches that can be read several times (for example a DataLoader), or a function of seed and
            epoch that returns batches.
        test: test batches that can be read several times.
        loss: ``loss(model, batch)``, mean over the batch; accuracies are measured if it has a ``score``.
        fit: settings for the training loop of this library, or the user's own loop (see `Fit`).
        epochs: number of epochs of one training.
        l1: strength of the l1 term, loss per absolute weight, for methods that use it; 2e-5 to 1e-4 in the paper.
        name: name in records and tables.
        study: batches for limits, the same in each pass; by default one fixed pass over ``train``.

    Raises:
        InputError: data can be read only once, ``fit`` has the wrong parameters, or a number is out of range.

    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,))) for _ in range(4)]
    >>> problem = Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=2)
    >>> problem.num_examples
    256
    """

    network: Callable[[], nn.Module]
    train: Iterable[Any] | EpochBatches
    test: Iterable[Any]
    loss: Loss = cross_entropy
    fit: Training | Fit = field(default=Training())
    epochs: int = 30
    l1: float = 1e-4
    name: str = "problem"
    study: Iterable[Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", as_loss(self.loss))
        for name, batches in (("train", self.train), ("test", self.test), ("study", self.study)):
            if batches is not None and not callable(batches) and iter(batches) is batches:
                raise InputError(f"{name} batches can be read only once; pass a list or a DataLoader, not an iterator")
        if not isinstance(self.fit, Training):
            _check_fit(self.fit)
        if not self.epochs > 0:
            raise InputError(f"epochs {self.epochs} is not positive; give the number of epochs of a training")
        if not 0 <= self.l1 < math.inf:
            raise InputError(f"l1 {self.l1:g} is not a number of at least 0; give the strength of the l1 term")

    def initial(self, seed: int = 0) -> nn.Module:
        """The network at its initialisation. The caller's torch random state does not change.

        Args:
            seed: seed of the initialisation.

        Returns:
            A new network; the same seed gives the same weights.

        Raises:
            InputError: the problem's function does not return a `torch.nn.Module`.
        """
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            model = self.network()
        if not isinstance(model, nn.Module):
            raise InputError(f"the network of {self.name} is a {type(model).__name__}; it must be a torch.nn.Module")
        return model

    def epoch_batches(self, seed: int) -> Callable[[int], Iterable[Any]]:
        """A function that returns the training batches of an epoch.

        Args:
            seed: seed of the order and of the augmentation of the examples, where the problem has them.

        Returns:
            A function of the number of the epoch, from 0.
        """
        if callable(self.train):
            return partial(self.train, seed)
        return lambda epoch: self._loader

    def study_batches(self, examples: int | None = None) -> Iterable[Any]:
        """Training batches for limits and measurements, the same in every pass.

        Args:
            examples: number of examples, from the first on; by default all.

        Returns:
            Batches that can be read several times.

        Raises:
            InputError: on reading, if ``examples`` end inside of a batch that cannot be split.
        """
        batches = self._study
        return batches if examples is None else FirstExamples(batches, examples, exact=True)

    @cached_property
    def _study(self) -> Iterable[Any]:
        if self.study is not None:
            return self.study
        return SamePasses(partial(self.train, 0, 0) if callable(self.train) else self.train)

    @property
    def _loader(self) -> Iterable[Any]:
        assert not callable(self.train)
        return self.train

    @property
    def num_batches(self) -> int:
        """Number of training batches in one pass.

        Raises:
            InputError: the training batches have no length.
        """
        try:
            return len(self.train)  # type: ignore[arg-type]
        except TypeError:
            raise InputError(
                f"the training batches of {self.name} have no length, which a schedule by iterations needs;"
                " give a list, a DataLoader or an object with __len__"
            ) from None

    @cached_property
    def num_examples(self) -> int:
        """Number of training examples in one pass, without those whose labels do not count."""
        known = getattr(self._study, "num_examples", None)
        return sum(counted_examples(self.loss, batch) for batch in self._study) if known is None else int(known)

    @cached_property
    def data(self) -> str:
        """Short digest of the training data."""
        known = getattr(self._study, "digest", None)
        if known is not None:
            return str(known)
        state = sha256()
        for batch in self._study:
            state.update(digest(batch).encode())
        return state.hexdigest()[:12]

    def settings(self) -> dict[str, Any]:
        """All settings of a training except the data and the seed, as JSON values, for records.

        Returns:
            The settings by name.
        """
        settings = {
            "network": describe(self.network),
            "epochs": self.epochs,
            "l1": self.l1,
            "loss": describe(self.loss),
            "fit": describe(self.fit),
            "train": _batches(self.train),
        }
        plain: dict[str, Any] = json.loads(json.dumps(settings))
        return plain


def _batches(train: object) -> dict[str, Any]:
    """How training batches are made; their content has a digest of its own."""
    if isinstance(train, list | tuple):
        return {"name": "list"}
    if callable(train):
        made: dict[str, Any] = describe(train)
        return made
    return {"name": type(train).__qualname__, "batch_size": getattr(train, "batch_size", None)}


def _check_fit(fit: Fit) -> None:
    try:
        inspect.signature(fit).bind(None, None, l1=0.0, epochs=1, first=0, seed=0)
    except TypeError as error:
        raise InputError(
            f"fit has the wrong parameters: {error}; write it as fit(model, mask, *, l1, epochs, first, seed)"
        ) from error
