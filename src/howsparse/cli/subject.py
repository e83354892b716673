"""The network of a command, its data, and what must be kept."""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from howsparse.cli.terminal import resumable, stage_bars
from howsparse.errors import InputError
from howsparse.limit.options import LimitOptions
from howsparse.risk.batches import FirstExamples, Joined, Pieces, can_split, examples
from howsparse.risk.counting import counted_examples
from howsparse.risk.losses import Loss, as_loss, cross_entropy

if TYPE_CHECKING:
    from howsparse.limit.assess import Assessment
    from howsparse.limit.goal import Goal

__all__ = ["DataOptions", "EveryOther", "GoalOptions", "Subject", "load_data", "load_subject", "typed_options"]

_BATCH, _HUB_BATCH = 1000, 32  # examples in a batch of an .npz file, and of a Hugging Face model


@dataclass(frozen=True)
class DataOptions:
    """What of the data a command uses."""

    images: int | None = field(
        default=None, metadata={"help": "Number of training examples to use: the first ones; default: all."}
    )
    batch_size: int | None = field(
        default=None, metadata={"help": "Largest number of examples in a batch; default: 1000 for .npz files."}
    )
    population: int | None = field(
        default=None, metadata={"help": "Number of examples in the population that the data are a sample of."}
    )
    loss: str | None = field(
        default=None, metadata={"help": "package.module:name of a loss(model, batch); default: cross-entropy."}
    )

    def __post_init__(self) -> None:
        for name in ("images", "batch_size", "population"):
            value = getattr(self, name)
            if value is not None and not 1 <= value < 2**31:
                wrong = "is not positive" if value < 1 else "is too large"
                raise InputError(f"--{name.replace('_', '-')} {value} {wrong}; give a number of examples")


@dataclass(frozen=True)
class GoalOptions:
    """What pruning must keep; by default, the accuracy drops by at most one point."""

    max_drop: float | None = field(
        default=None, metadata={"help": "Points of accuracy (or --metric) that may be lost; default: 1."}
    )
    tolerance: str | None = field(
        default=None,
        metadata={"help": "Instead of --max-drop: allowed rise of the loss, such as 0.02, or 5% of the loss."},
    )
    metric: str | None = field(
        default=None, metadata={"help": "accuracy (default), top5, or package.module:function(output, batch)."}
    )

    def goal(self, *, has_metric: bool = True) -> "Goal":
        """The goal of the command.

        Raises:
            InputError: both are given, or a value is not valid.
        """
        from howsparse.limit.goal import goal_of

        if self.max_drop is not None and not 0 <= self.max_drop < 100:
            raise InputError(f"--max-drop {self.max_drop:g} is not in [0, 100); give points: 1 allows one point")
        drop = None if self.max_drop is None else self.max_drop / 100
        if self.tolerance is None:
            return goal_of(drop, None, None, has_metric=has_metric)
        number = self.tolerance.strip().removesuffix("%").strip()
        try:
            value = float(number)
        except ValueError:
            raise InputError(
                f"--tolerance '{self.tolerance}' is neither a loss nor a share of the loss; give for example 0.02 or 5%"
            ) from None
        share = self.tolerance.strip().endswith("%")
        return goal_of(drop, None if share else value, value / 100 if share else None, has_metric=has_metric)

    def named_metric(self) -> Any:
        """The metric by its name, or the function that ``package.module:name`` names."""
        from howsparse.loading import load_named

        return load_named(self.metric) if self.metric is not None and ":" in self.metric else self.metric


@dataclass
class Subject:
    """The network of a command, and its data.

    Attributes:
        name: name of the network on the command line.
        model: the network with its weights.
        train, test: batches that can be read several times.
        loss: ``loss(model, batch)``, mean over the batch.
        whole: all training batches; ``train`` may be a part of them.
        population: number of examples in the population of ``train``; None if ``train`` are all.
        typed: the network and its data as they are typed after the name of a command.
        splits: whether ``test`` are other data than ``train``.
    """

    name: str
    model: nn.Module
    train: Iterable[Any]
    test: Iterable[Any]
    loss: Loss = cross_entropy
    whole: Iterable[Any] | None = None
    population: int | None = None
    typed: str = ""

    @property
    def splits(self) -> bool:
        return self.test is not self.train and self.test is not self.whole

    def assess(self, options: LimitOptions, keep: Path | None = None, directional: bool = False) -> "Assessment":
        """Compute all answers, with progress on stderr."""
        from howsparse.limit.assess import assess

        options = self.options(options)
        with nullcontext() if keep is None else resumable(keep), stage_bars() as show:
            given: dict[str, Any] = {"loss": self.loss, "options": options, "directional": directional, "keep": keep}
            return assess(self.model, self.train, self.test, **given, progress=show)

    def options(self, options: LimitOptions) -> LimitOptions:
        """Options of a limit over ``train``, which may be a sample of a population."""
        from howsparse.limit.compute import options_for_sample

        if self.whole is not None and self.population is not None:
            return options_for_sample(options, self.model, self.whole, self.loss, self.population)
        return options if self.population is None else replace(options, population=self.population)

    def halves(self) -> tuple[Iterable[Any], Iterable[Any]]:
        """The test data in two halves: one chooses, the other is held out."""
        return EveryOther(self.test, 0), EveryOther(self.test, 1)

    def chose(self, choose: Iterable[Any]) -> Iterable[Any]:
        """All data that chose something: those that trained the network, and those that choose the sparsity."""
        trained = self.train if self.whole is None else self.whole
        return trained if choose is trained or choose is self.train else Joined((trained, choose))


@dataclass(frozen=True)
class EveryOther:
    """Every other example of some batches. Examples of equal content are in the same half.

    A batch that cannot be split counts as one example.

    Attributes:
        batches: batches that can be read several times.
        start: 0 for the first, third, ... example of new content, 1 for the second, fourth, ...

    >>> import torch
    >>> [half.tolist() for half in EveryOther([torch.tensor([5, 6, 5]), torch.tensor([7, 8])], 0)]
    [[5, 5], [7]]
    """

    batches: Iterable[Any]
    start: int

    def __iter__(self) -> Iterator[Any]:
        from howsparse.limit.overlap import example_digests

        place: dict[str, int] = {}
        for batch in self.batches:
            mine = [
                i
                for i, key in enumerate(example_digests([batch]))
                if place.setdefault(key, len(place)) % 2 == self.start
            ]
            if mine:
                yield examples(batch, mine) if can_split(batch) else batch


def load_subject(model: str, weights: Path | None, data: str | None, options: DataOptions) -> Subject:
    """Load a network by its name on the command line, with its weights and data.

    Raises:
        InputError: a file or a name is missing, or has the wrong contents.
    """
    from howsparse.loading import check_weights, load_weights
    from howsparse.problem import Problem
    from howsparse.tasks import load_recipe

    if ":" not in model:
        load_recipe(model)
        check_weights(model, weights)
    made = _load_network(model, data)
    if isinstance(made, Problem):
        check_weights(model, weights)
        subject = _of_problem(made, model, options)
    elif not isinstance(made, nn.Module):
        raise InputError(f"'{model}' is a {type(made).__name__}; it must be a torch.nn.Module or howsparse.Problem")
    elif data is None:
        raise InputError("--data is missing; give an .npz file of inputs and targets, or package.module:batches")
    else:
        subject = _of_batches(made, model, *load_data(data, model, made, options), options)
    subject.typed = shlex.quote(model) + typed_options({"weights": weights, "data": data} | vars(options))
    if weights is not None:
        load_weights(subject.model, weights)
    return subject


def load_data(spec: str, model: str, network: nn.Module, options: DataOptions) -> tuple[Iterable[Any], Iterable[Any]]:
    """Training and test batches from ``--data`` or ``--held-out``, for a network of one's own or of Hugging Face.

    Raises:
        InputError: the data are missing, or have the wrong contents.
    """
    from howsparse.integrations.data import load_hub_data
    from howsparse.integrations.huggingface import hub_folder
    from howsparse.loading import load_batches, load_named
    from howsparse.risk.fitting import check_fits

    folder, size = hub_folder(model), options.batch_size
    if folder is not None:
        return load_hub_data(spec, network, folder, size or _HUB_BATCH)
    train, test = load_batches(spec, size or _BATCH)
    loss = cross_entropy if options.loss is None else load_named(options.loss)
    for batches in (train,) if test is train else (train, test):
        check_fits(network, batches, loss, spec)
    return train, test


def _load_network(model: str, data: str | None) -> Any:
    """What MODEL stands for: a task or problem, a folder of Hugging Face, or something that is imported."""
    from howsparse.integrations.huggingface import hub_folder, load_hub_model
    from howsparse.loading import call_if_function, load_named, load_problem
    from howsparse.problem import Problem

    if hub_folder(model) is not None:
        return load_hub_model(model)
    made = load_problem(model, data) if ":" not in model else load_named(model)
    return made if isinstance(made, nn.Module | Problem) else call_if_function(model, made)


def _of_problem(problem: Any, name: str, options: DataOptions) -> Subject:
    """A problem's network at its initialisation, with the problem's data."""
    if options.loss is not None:
        raise InputError(f"problem '{name}' has its own loss; leave out --loss")
    whole, population = problem.study_batches(), options.population or problem.num_examples
    train, test = problem.study_batches(options.images), problem.test
    if options.batch_size is not None:
        train, test = Pieces(train, options.batch_size), Pieces(test, options.batch_size)
    return Subject(name, problem.initial(), train, test, problem.loss, whole, population)


def _of_batches(
    model: nn.Module, name: str, train: Iterable[Any], test: Iterable[Any], options: DataOptions
) -> Subject:
    """A network with batches of one's own, of which ``options`` may ask for a part."""
    from howsparse.loading import load_named

    own = test is not train
    if options.batch_size is not None:
        train = Pieces(train, options.batch_size)
        test = Pieces(test, options.batch_size) if own else train
    loss = cross_entropy if options.loss is None else load_named(options.loss)
    if options.images is None:
        return Subject(name, model, train, test, loss, None, options.population)
    population = options.population or sum(counted_examples(as_loss(loss, model), batch) for batch in train)
    part = FirstExamples(train, options.images, exact=True)
    return Subject(name, model, part, test if own else part, loss, train, population)


def typed_options(values: Mapping[str, Any]) -> str:
    """Options as they are typed, with a space before each; those that are None are left out.

    >>> typed_options({"batch_size": 8, "data": "a b.npz", "loss": None})
    " --batch-size 8 --data 'a b.npz'"
    """
    given = {name: value for name, value in values.items() if value is not None}
    return "".join(f" --{name.replace('_', '-')} {shlex.quote(_plain(value))}" for name, value in given.items())


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
