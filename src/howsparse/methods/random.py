"""Random masks, trained from initialisation: uniform over the network, or with Erdős-Rényi-kernel layer densities."""

from typing import Literal

from torch import nn

from howsparse.errors import InputError
from howsparse.methods.stages import Run, Sparsity, Stages
from howsparse.methods.ticket import Ticket
from howsparse.problem import Problem
from howsparse.pruning.masks import Mask, random_mask
from howsparse.pruning.orders.erk import erdos_renyi_densities
from howsparse.pruning.random_layers import random_layer_mask

__all__ = ["random"]


def random(
    problem: Problem,
    sparsity: Sparsity,
    seed: int = 0,
    run: Run = Run(),
    *,
    layers: Literal["uniform", "erk"] = "uniform",
) -> Ticket:
    """Remove weights at random, then train.

    Args:
        problem: network, data and loss; its l1 term is not used.
        sparsity: fraction to remove, or "limit" or "predicted" of the dense network trained with l1.
        seed: seed of initialisation, mask and batches.
        run: folder and callbacks.
        layers: "uniform" draws from all weights; "erk" uses `erdos_renyi_densities`, higher for small layers.

    Returns:
        The pruned and trained network.

    Raises:
        InputError: ``layers`` is neither "uniform" nor "erk".

    Source: Evci et al. (2020), Rigging the lottery, for the densities of "erk".

    >>> import torch
    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> random(Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=2), 0.5).mask.num_kept
    12
    """
    if layers not in ("uniform", "erk"):
        raise InputError(f"layers '{layers}' is not known; use 'uniform' or 'erk'")
    stages = Stages(problem, seed, run)
    target = stages.target(sparsity)
    model = problem.initial(seed)
    mask = random_mask(model, target, seed=seed) if layers == "uniform" else _erk_mask(model, target, seed)
    mask.apply_(model)
    stages.train("training", model, mask)
    return stages.ticket(model, mask)


def _erk_mask(model: nn.Module, sparsity: float, seed: int) -> Mask:
    return random_layer_mask(model, erdos_renyi_densities(model, sparsity), seed)
