"""What every pruning method is made of: trainings of one network under one mask after another, and their history."""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from howsparse.files import one_at_a_time, write_whole
from howsparse.limit.compute import MAX_PRODUCTS, pruning_limit
from howsparse.pruning.masks import Mask, check_sparsity
from howsparse.pruning.prune import prune
from howsparse.risk.evaluate import evaluate
from howsparse.risk.weights import prunable_weights
from howsparse.tasks import Task
from howsparse.training import Epoch, attach_l1, attach_mask, fit

__all__ = [
    "Limits",
    "Run",
    "Sparsity",
    "Stage",
    "Stages",
    "Ticket",
    "dense_mask",
    "kept_file",
    "network_limits",
    "write_limits",
]

Sparsity = float | Literal["limit", "certified"]


@dataclass(frozen=True)
class Limits:
    """What the geometry says of one network, as shares of the weights it has left.

    Attributes:
        limit: 1 - T, the middle of its bracket.
        low, high: the bracket.
        upper_bound: 1 - U.
        certified: as far as its smallest weights can go as they are.
        products: curvature products taken.
    """

    limit: float
    low: float
    high: float
    upper_bound: float
    certified: float
    products: int


@dataclass(frozen=True)
class Stage:
    """One training within a method.

    Attributes:
        name: what it is for.
        sparsity: of the network while it is trained; at the end, where that changes.
        epochs: how many.
        loss: mean training loss of the last epoch.
        accuracy: test accuracy at the end.
        seconds: spent in training.
        limits: of the network at the end, where the method asked for them.
    """

    name: str
    sparsity: float
    epochs: int
    loss: float
    accuracy: float
    seconds: float
    limits: Limits | None = None


@dataclass(frozen=True)
class Ticket:
    """What a method gives: a pruned, trained network.

    Attributes:
        model: its removed weights are exactly zero.
        mask: which those are.
        accuracy: on the test images.
        loss: on the training images, without augmentation.
        history: the trainings that led there.
    """

    model: nn.Module
    mask: Mask
    accuracy: float
    loss: float
    history: tuple[Stage, ...]

    @property
    def epochs(self) -> int:
        """Spent in all trainings together."""
        return sum(stage.epochs for stage in self.history)


@dataclass(frozen=True)
class Run:
    """How a method is run, as opposed to what it does.

    Attributes:
        folder: where trainings are kept; one that is there already (the same start, mask and recipe) is not run again,
            whichever method asks for it, and one that was stopped goes on to the same bits.
        images: training images for limits; all unless given.
        max_products: curvature products of a limit.
        on_epoch: called as ``on_epoch(stage, epoch)`` after each epoch.
        on_stage: called as ``on_stage(stage, model, mask)`` after each training.
    """

    folder: Path | None = None
    images: int | None = None
    max_products: int = MAX_PRODUCTS
    on_epoch: Callable[[str, Epoch], None] = lambda stage, epoch: None
    on_stage: Callable[[Stage, nn.Module, Mask], None] = lambda stage, model, mask: None


@dataclass
class Stages:
    """The trainings of one run of a method, in order.

    Attributes:
        task: network, data and recipe.
        seed: of initialisation, batches and masks.
        run: folder and callbacks.
    """

    task: Task
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
    ) -> Mask:
        """Train ``model`` as the recipe says, removed weights held at zero; the mask at the end is given back.

        Args:
            name: of the stage.
            model: trained in place, from the weights it has.
            mask: weights to hold at zero; none unless given.
            epochs: to train for; the recipe's, less ``first``, unless given.
            first: epoch of the recipe to start in, for networks rewound to it.
            l1: strength of the l1 term; methods that the paper compares with have none.
            grow: ``grow(epoch)`` is the mask from that epoch on; it must follow from the model as it is then.
        """
        recipe = self.task.recipe
        epochs = recipe.epochs - first if epochs is None else epochs
        mask = dense_mask(model) if mask is None else mask
        optimizer = self.task.optimizer(model)
        if l1:
            attach_l1(optimizer, prunable_weights(model).values(), l1, proximal=recipe.proximal)
        masking = attach_mask(optimizer, model, mask)

        def before_epoch(epoch: int) -> None:
            if grow is not None:
                masking.mask = grow(epoch)

        # Weights that stay may be zero, too: the model alone does not tell the mask.
        about = f"{epochs} {first} {l1} {grow and name} {_fingerprint(mask)}"
        done = self.fit(
            name, model, optimizer, epochs, about, first=first, rate=self.task.rate, before_epoch=before_epoch
        )
        if grow is not None:
            masking.mask = grow(epochs)
        self.close(name, model, masking.mask, done)
        return masking.mask

    def fit(
        self,
        name: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        epochs: int,
        about: str,
        *,
        first: int = 0,
        rate: Callable[[int], float] = lambda epoch: 1.0,
        before_epoch: Callable[[int], None] = lambda epoch: None,
    ) -> list[Epoch]:
        """`howsparse.training.fit` on the task's data, kept in the run's folder; ``about`` is what tells it apart."""
        batches = self.task.epochs(self.seed)
        identity = _identity(self.task, self.seed, model, about)
        checkpoint = None if self.run.folder is None else self.run.folder / f"{identity}.checkpoint"
        with one_at_a_time(checkpoint):
            return fit(
                model,
                optimizer,
                lambda epoch: batches(epoch + first),
                epochs,
                factor=lambda epoch: rate(epoch + first),
                checkpoint=checkpoint,
                save_every=10.0,
                before_epoch=before_epoch,
                on_epoch=lambda epoch: self.run.on_epoch(name, epoch),
                seed=self.seed,
            )

    def close(self, name: str, model: nn.Module, mask: Mask, done: list[Epoch]) -> None:
        """Enter a training that `fit` has done into the history; ``mask`` is that of ``model`` now."""
        _, accuracy = evaluate(model, self.task.test_batches())
        seconds = sum(epoch.seconds for epoch in done)
        stage = Stage(name, mask.sparsity, len(done), done[-1].loss, accuracy or 0.0, seconds)
        self._history.append(stage)
        self.run.on_stage(stage, model, mask)

    def target(self, sparsity: Sparsity, model: nn.Module | None = None) -> float:
        """The sparsity to prune to: a fraction as it is, or one computed.

        Args:
            sparsity: a fraction in [0, 1), or the word "limit" or "certified".
            model: the network whose limit is meant; unless given, the one that the recipe trains densely with its l1
                term, which is what Table 3 of the paper prunes every method to.
        """
        if not isinstance(sparsity, str):
            return check_sparsity(sparsity)
        if model is None:
            model = self.task.network(self.seed)
            self.train("dense with l1, for the limit", model, l1=self.task.recipe.l1)
        limits = self.limits(model)
        return limits.limit if sparsity == "limit" else limits.certified

    def limits(self, model: nn.Module, mask: Mask | None = None) -> Limits:
        """The limits of ``model`` as the last training left it, entered into the history."""
        found = network_limits(self.task, model, mask, self.seed, self.run)
        self._history[-1] = replace(self._history[-1], limits=found)
        return found

    def ticket(self, model: nn.Module, mask: Mask) -> Ticket:
        """The result: ``model`` as it is now."""
        loss, _ = evaluate(model, self.task.train_batches(1000))
        _, accuracy = evaluate(model, self.task.test_batches())
        return Ticket(model, mask, accuracy or 0.0, loss, self.history)


def network_limits(task: Task, model: nn.Module, mask: Mask | None, seed: int, run: Run) -> Limits:
    """The limits of ``model``; with a mask, of the weights that are left. They are kept in the run's folder, too."""
    kept = kept_file(task, model, mask, seed, run, "limits")
    with one_at_a_time(kept):
        if kept is not None and kept.exists():
            return Limits(**json.loads(kept.read_text()))
        studied = copy.deepcopy(model)
        if mask is not None:
            prune(studied, mask)
        batches = task.train_batches(1000, run.images)
        keep = None if kept is None else kept.with_suffix(".products")
        limit = pruning_limit(studied, batches, max_products=run.max_products, seed=seed, keep=keep)
        found = Limits(limit.sparsity, *limit.bracket, limit.upper_bound, limit.certified, limit.num_products)
        write_limits(found, task, model, mask, seed, run)
        return found


def write_limits(found: Limits, task: Task, model: nn.Module, mask: Mask | None, seed: int, run: Run) -> None:
    """Leave limits in the run's folder, where `network_limits` looks for them."""
    kept = kept_file(task, model, mask, seed, run, "limits")
    if kept is not None:
        write_whole(kept, lambda file: file.write_text(json.dumps(asdict(found))))


def kept_file(task: Task, model: nn.Module, mask: Mask | None, seed: int, run: Run, what: str) -> Path | None:
    """Where something that is computed of a network is kept; None without a folder."""
    if run.folder is None:
        return None
    about = f"{what} {run.images} {run.max_products} {_fingerprint(mask or {})}"
    return run.folder / f"{_identity(task, seed, model, about)}.{what}.json"


def _identity(task: Task, seed: int, model: nn.Module, about: str) -> str:
    """What decides what becomes of a network, as one name; whether l1 has a part in it, ``about`` says."""
    recipe = task.recipe.model_copy(update={"l1": 0.0}).digest()
    whole = f"{recipe} {task.train.digest} {seed} {about} {_fingerprint(model.state_dict())}"
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _fingerprint(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def dense_mask(model: nn.Module) -> Mask:
    """The mask that removes nothing."""
    return Mask({name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable_weights(model).items()})
