"""Training of one model by several processes, each of which computes its own examples of every batch.

torch's ``DistributedDataParallel`` averages the gradients. This module decides which examples a process computes and
how its loss is scaled, so that several processes take the steps that one would take.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from howsparse.parallel import is_first, rank, world_size
from howsparse.risk.batches import batch_length, can_split, examples
from howsparse.training.forward import TrainingLoss

__all__ = [
    "Norm",
    "Share",
    "broadcast_buffers",
    "data_parallel",
    "needs_whole_batches",
    "own_share",
    "synchronised",
    "synchronised_norms",
]


@dataclass(frozen=True)
class Share:
    """The part of one batch that this process computes.

    Attributes:
        batch: its examples.
        scale: factor of their mean loss. The mean of the scaled losses over all processes is the batch's mean loss.
        count: what this process adds to the statistics of the epoch: the number of its examples, or of its predictions
            whose labels count. Of a batch that every process computes whole, the first process adds all and the others
            none.
        whole: whether these are all examples of the batch.
    """

    batch: Any
    scale: float | Tensor
    count: int | Tensor
    whole: bool


@dataclass(frozen=True)
class Norm:
    """A BatchNorm layer, and the layer that replaces it where processes share a batch.

    Attributes:
        parent, name: place of the layer in the model: ``getattr(parent, name)``.
        own: the model's own layer.
        synchronised: a SyncBatchNorm with the same parameters and buffers.
    """

    parent: nn.Module
    name: str
    own: nn.Module
    synchronised: nn.Module


def own_share(batch: Any, whole: bool = False, weigh: Callable[[Any], int | Tensor] = batch_length) -> Share:
    """The part of ``batch`` that this process computes: process r of n has the examples r, r + n, r + 2n and so on.

    Args:
        batch: a batch in any form that `howsparse.risk.batches` reads.
        whole: whether every process computes all examples. This is also done if a batch has fewer examples than there
            are processes, if its tensors differ in length and cannot be split, or if the part of a process counts
            nothing.
        weigh: what a batch or a part of it counts in a mean; a tensor where the CPU need not wait for the number.

    >>> own_share((torch.ones(3, 2), torch.tensor([0, 1, 0]))).count
    3
    """
    world = world_size()
    if world > 1 and not whole and batch_length(batch) >= world and can_split(batch):
        parts = [examples(batch, slice(each, None, world)) for each in range(world)]
        weights = [_known(weigh(part)) for part in parts]
        if 0 not in [weight for weight in weights if isinstance(weight, int)]:
            own, count = parts[rank()], weights[rank()]
            return Share(own, count * world / sum(weights), count, False)
    return Share(batch, 1.0, _known(weigh(batch)) if is_first() else 0, True)


def _known(weight: int | Tensor) -> int | Tensor:
    """A weight as a number where this needs no waiting for a GPU; else in double precision, for quotients."""
    if not isinstance(weight, Tensor):
        return weight
    return int(weight) if weight.device.type == "cpu" else weight.double()


def data_parallel(objective: TrainingLoss) -> nn.Module:
    """``objective`` with gradients averaged over all processes; ``objective`` itself if there is one process.

    Call this function again for each epoch. torch may change the order of sums after the first step, so a resumed
    training gives the same bits only if each epoch has a new module. A new module also finds parameters that were
    frozen or unfrozen.
    """
    if world_size() == 1:
        return objective
    if not _on_gpu(objective.model):
        # torch warns if it searches for unused parameters and finds none, so there is always this one. On a GPU it is
        # left out, because then the CPU would have to wait for the GPU in every step.
        objective.register_parameter("unused", nn.Parameter(torch.zeros(())))
    # A model may leave some parameters unused, and which ones may depend on the examples.
    return DistributedDataParallel(objective, find_unused_parameters=True)


def needs_whole_batches(objective: TrainingLoss) -> bool:
    """Whether every process has to compute all examples: with BatchNorm on a CPU, where SyncBatchNorm does not run."""
    return (
        world_size() > 1
        and not _on_gpu(objective.model)
        and any(isinstance(m, _BatchNorm) for m in objective.modules())
    )


def synchronised_norms(objective: TrainingLoss) -> list[Norm]:
    """A SyncBatchNorm for each BatchNorm if several processes train on GPUs. The model is not changed."""
    if world_size() == 1 or not _on_gpu(objective.model):
        return []
    return [
        Norm(parent, name, child, nn.SyncBatchNorm.convert_sync_batchnorm(child))
        for parent in objective.modules()
        for name, child in parent.named_children()
        if isinstance(child, _BatchNorm)
    ]


@contextmanager
def synchronised(norms: list[Norm], share: Share) -> Iterator[None]:
    """Use SyncBatchNorm layers inside the context, unless the process has the whole batch; then restore the layers."""
    if share.whole:
        yield
        return
    try:
        for norm in norms:
            norm.synchronised.train(norm.own.training)
            setattr(norm.parent, norm.name, norm.synchronised)
        yield
    finally:
        for norm in norms:
            setattr(norm.parent, norm.name, norm.own)


def broadcast_buffers(model: nn.Module) -> None:
    """Copy the buffers of the first process (for example running statistics) to all processes."""
    if world_size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def _on_gpu(module: nn.Module) -> bool:
    return next(module.parameters()).device.type == "cuda"
