"""A problem: a network, its data, its loss, and how it is trained. Every pruning method, study and sweep takes one."""

import inspect
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from howsparse.errors import InputError
from howsparse.pruning.masks import Mask
from howsparse.risk.batches import FirstExamples, SamePasses, batch_length
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.store import digest
from howsparse.training import Schedule

__all__ = ["Fit", "Problem", "Training"]


@dataclass(frozen=True)
class Training:
    """Training by SGD with the library's own loop.

    Attributes:
        learning_rate: before the schedule.
        momentum: of SGD.
        weight_decay: of SGD, on all parameters.
        schedule: what the learning rate is multiplied by in each epoch.
        proximal: whether the l1 term shrinks weights after each step (to exact zeros), instead of joining the gradient.
    """

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = field(default=Schedule())
    proximal: bool = False

    def optimizer(self, model: nn.Module) -> torch.optim.SGD:
        """SGD for all parameters of ``model``; l1 terms and masks are attached to it."""
        return torch.optim.SGD(
            model.parameters(), self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )


class Fit(Protocol):
    """A training loop of one's own: it trains ``model`` in place.

    Removed weights may take any values while it trains; they are set to zero afterwards. `attach_mask` holds them at
    zero through every step.
    """

    def __call__(self, model: nn.Module, mask: Mask, *, l1: float, epochs: int, first: int, seed: int) -> object:
        """Train for ``epochs`` epochs.

        Args:
            model: in place, from the weights it has.
            mask: the weights that stay; the others are zero.
            l1: strength of the l1 term, 0 for none; `attach_l1` adds it to an optimizer.
            epochs: passes over the training data.
            first: epoch of the whole training to start in, for schedules; 0 unless a method rewinds or goes on.
            seed: of everything random.
        """


@runtime_checkable
class EpochBatches(Protocol):
    """Training data that differ from epoch to epoch, as a function of seed and epoch."""

    def __call__(self, seed: int, epoch: int) -> Iterable[Any]: ...


@dataclass(frozen=True)
class Problem:
    """A network, its data, its loss, and how it is trained.

    Attributes:
        network: makes the network at its initialisation; torch's random state is seeded before each call.
        train: training batches: re-iterable (a DataLoader, shuffled or not), or a function of seed and epoch.
        test: re-iterable batches to test on.
        loss: ``loss(model, batch)``, the mean over the batch; accuracies need a loss that can score predictions.
        fit: how to train: settings of the library's own loop, or a function of one's own (see `Fit`).
        epochs: of one training.
        l1: strength of the l1 term for the methods that train with one; the paper's lie between 2e-5 and 1e-4.
        name: in records and tables.
        study: re-iterable batches for limits, each pass the same; unless given, one fixed pass over ``train``.

    Raises:
        InputError: data that can be read only once, or a ``fit`` that does not take what it is given.

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
        for name, batches in (("train", self.train), ("test", self.test), ("study", self.study)):
            if batches is not None and not callable(batches) and iter(batches) is batches:
                raise InputError(f"{name} batches can be read only once; pass a list or a DataLoader, not an iterator")
        if not isinstance(self.fit, Training):
            _check_fit(self.fit)
        if not self.epochs > 0 or not self.l1 >= 0:
            raise InputError(f"epochs {self.epochs} must be positive, and l1 {self.l1:g} must not be negative")

    def initial(self, seed: int = 0) -> nn.Module:
        """The network at its initialisation; torch's own random state is left as it was."""
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            model = self.network()
        if not isinstance(model, nn.Module):
            raise InputError(f"the network of {self.name} is a {type(model).__name__}, not a torch.nn.Module")
        return model

    def epoch_batches(self, seed: int) -> Callable[[int], Iterable[Any]]:
        """The training batches of each epoch, as a function of its number."""
        if callable(self.train):
            return partial(self.train, seed)
        return lambda epoch: self._loader

    def study_batches(self, examples: int | None = None) -> Iterable[Any]:
        """Training batches of which every pass is the same, for limits and measurements.

        Args:
            examples: take the first so many; all unless given.
        """
        batches = self._study
        return batches if examples is None else FirstExamples(batches, examples)

    @cached_property
    def _study(self) -> Iterable[Any]:
        if self.study is not None:
            return self.study
        return SamePasses(partial(self.train, 0, 0) if callable(self.train) else lambda: self._loader)

    @property
    def _loader(self) -> Iterable[Any]:
        assert not callable(self.train)
        return self.train

    @cached_property
    def num_examples(self) -> int:
        """Training examples of one pass."""
        known = getattr(self._study, "num_examples", None)
        return sum(batch_length(batch) for batch in self._study) if known is None else int(known)

    @cached_property
    def data(self) -> str:
        """Short fingerprint of the training data."""
        known = getattr(self._study, "digest", None)
        if known is not None:
            return str(known)
        state = sha256()
        for batch in self._study:
            state.update(digest(batch).encode())
        return state.hexdigest()[:12]

    def settings(self) -> dict[str, Any]:
        """What decides a training besides the data and the seed, as JSON takes it; records hold it."""
        settings = {
            "network": describe(self.network),
            "epochs": self.epochs,
            "l1": self.l1,
            "loss": describe(self.loss),
            "fit": describe(self.fit),
            "train": describe(self.train),
        }
        plain: dict[str, Any] = json.loads(json.dumps(settings))
        return plain


def describe(thing: object) -> Any:
    """A name for a function, a class or an object, with its settings, as JSON takes it.

    A function or class from outside of this package is named with a digest of its source, so that a changed one counts
    as another.
    """
    own = getattr(thing, "settings", None)
    if callable(own):
        return own()
    if isinstance(thing, partial):
        return {"name": describe(thing.func), "arguments": [repr(a) for a in thing.args], **_texts(thing.keywords)}
    if isinstance(thing, Training | Schedule):
        return asdict(thing)
    if inspect.isroutine(thing) or inspect.isclass(thing):
        return _named(thing)
    size = getattr(thing, "batch_size", None)
    return _named(type(thing)) | ({} if size is None else {"batch_size": size})


def _named(thing: Any) -> dict[str, str]:
    named = {"name": f"{thing.__module__}.{thing.__qualname__}"}
    if thing.__module__.partition(".")[0] in ("howsparse", "torch", "builtins"):
        return named
    try:
        source = inspect.getsource(thing)
    except (OSError, TypeError):
        return named
    return named | {"source": sha256(source.encode()).hexdigest()[:12]}


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {name: repr(value) for name, value in values.items()}


def _check_fit(fit: Fit) -> None:
    try:
        inspect.signature(fit).bind(None, None, l1=0.0, epochs=1, first=0, seed=0)
    except TypeError as error:
        raise InputError(
            f"fit does not take what it is given: {error}; write it as fit(model, mask, *, l1, epochs, first, seed)"
        ) from error
