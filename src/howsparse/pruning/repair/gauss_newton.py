r"""All kept weights together: Gauss-Newton steps that bring the network's outputs near those of the dense network.

References:
    Marquardt (1963), An algorithm for least-squares estimation of nonlinear parameters.
    Martens (2010), Deep learning via Hessian-free optimization.
    Byrd, Chin, Neveitt and Nocedal (2011), On the use of stochastic Hessian information in optimization methods.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.linalg.operators import Block
from howsparse.linalg.solve import solve
from howsparse.pruning.masks import Mask
from howsparse.pruning.repair.objectives import Objective, distance, in_two_parts, with_targets
from howsparse.pruning.repair.scaling import Scaled, curvature_scales
from howsparse.risk.alone import alone
from howsparse.risk.batches import FirstExamples, move
from howsparse.risk.curvature import GGN
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.evaluate import evaluate
from howsparse.risk.guard import guarded_with_values
from howsparse.risk.losses import Loss, SplitLoss, cross_entropy
from howsparse.risk.modes import device_of
from howsparse.risk.weights import prunable_weights, torch_masks

__all__ = ["repair_globally"]

_HALVINGS = 5  # of a step that makes the objective worse


@dataclass(frozen=True)
class _Job:
    """What stays the same from step to step."""

    mask: Mask
    names: list[str]
    batches: list[Any]
    curvature: list[Any]
    loss: SplitLoss
    products: int
    damping: float


@alone
@guarded_with_values
def repair_globally(
    model: nn.Module,
    mask: Mask,
    batches: Iterable[Any],
    *,
    dense: nn.Module | None = None,
    objective: Objective = "features",
    steps: int = 2,
    products: int = 8,
    damping: float = 0.1,
    curvature_examples: int | None = None,
    loss: Loss = cross_entropy,
) -> tuple[float, ...]:
    r"""Prune a model with a mask, and adjust all remaining weights, biases and norms together. No labels are needed.

    Each step minimises the objective's Gauss-Newton model over the kept weights K,
    :math:`g_K'x + \tfrac12 x'(G_{KK} + \delta D)x`, by conjugate gradients. D is a rough diagonal of G, see
    `howsparse.pruning.repair.scaling`. A step is halved until it lowers the objective, or is left out.

    Use it after `repair_layers` or `repair_rounds`. A product costs about as much as two gradients. With few examples,
    the network can fit the outputs without generalising; the features contain more about each example
    (docs/repair.md).

    Args:
        model: any module; it is changed in place.
        mask: weights that stay. The others are zero afterwards.
        batches: calibration batches.
        dense: network that the model shall come near; by default ``model`` as it is given.
        objective: what is made small over all examples, see `howsparse.pruning.repair.objectives.distance`: the
            distance of "features" and outputs, the "squares" of outputs only, the "divergence" of probabilities, or
            the loss itself with "labels".
        steps: number of Gauss-Newton steps.
        products: largest number of products of a step.
        damping: delta, above 0; with 1, the curvature of each weight is doubled.
        curvature_examples: number of examples for products, the first ones; by default all.
        loss: ``loss(model, batch)`` with ``output`` and ``of_output``.

    Returns:
        The objective before the first step, and after each step. It never grows.

    Raises:
        InputError: the mask does not fit the model, there are no batches, the loss or an option is not usable. The
            model is then as it was.

    Source: Marquardt (1963); Martens (2010), section 4; products over some of the examples: Byrd et al. (2011).

    >>> from howsparse import magnitude_mask
    >>> model, x = nn.Linear(4, 1).double(), torch.randn(50, 4).double() + 1
    >>> mask = magnitude_mask(model, 0.5)
    >>> before, after = repair_globally(model, mask, [(x, torch.zeros(50, dtype=torch.long))], steps=1)
    >>> after < before, int((model.weight == 0).sum())
    (True, 2)
    """
    _check(model, dense, steps, products, damping, curvature_examples)
    given = [move(batch, device_of(model)) for batch in batches]
    if not given:
        raise InputError("there are no batches; pass at least one, of a few hundred examples")
    some = given if curvature_examples is None else [*FirstExamples(given, curvature_examples)]
    near = in_two_parts(loss, model)
    if objective != "labels":
        whole = copy.deepcopy(model) if dense is None else dense
        near = distance(objective, loss, whole, given)
        given, some = with_targets(near, whole, given), with_targets(near, whole, some)
    job = _Job(mask, _names(model, mask), given, some, near, products, damping)
    mask.apply_(model)
    values = [evaluate(model, job.batches, job.loss)[0]]
    for _ in range(steps):
        values.append(_step(model, values[-1], job))
    return tuple(values)


def _check(
    model: nn.Module, dense: nn.Module | None, steps: int, products: int, damping: float, examples: int | None
) -> None:
    if min(steps, products, 1 if examples is None else examples) < 1:
        raise InputError("steps, products or curvature_examples is below 1; give at least 1 for each")
    if not damping > 0:
        raise InputError(f"damping {damping:g} is not above 0; use about 0.1")
    if torch_masks(model):
        raise InputError("the model is pruned by torch.nn.utils.prune; call torch.nn.utils.prune.remove first")
    if dense is model:
        raise InputError("dense is the model itself, which changes; pass copy.deepcopy(model)")


def _names(model: nn.Module, mask: Mask) -> list[str]:
    """The weights of the mask, and all biases and norms that are not frozen."""
    prunable = {id(weight) for weight in prunable_weights(model).values()}
    others = [n for n, p in model.named_parameters() if p.requires_grad and p.ndim < 2 and id(p) not in prunable]
    return [*mask, *others]


def _step(model: nn.Module, before: float, job: _Job) -> float:
    """Take one step; return the objective after it."""
    risk = EmpiricalRisk(model, job.batches, job.loss, job.names)
    chosen = torch.cat([_entries(job.mask, name, leaf) for name, leaf in zip(risk.names, risk.leaves, strict=True)])
    gradient = risk.gradient()[chosen]
    if not bool(gradient.any()):
        return before
    local = EmpiricalRisk(model, job.curvature, job.loss, job.names)
    units = curvature_scales(local)[chosen].rsqrt()
    found = solve(Scaled(Block(GGN(local), chosen), units), -units * gradient, job.damping, max_steps=job.products)
    step = torch.zeros_like(risk.flat_weights())
    step[chosen] = units * found.x
    return _along(model, risk, step, before, job)


def _entries(mask: Mask, name: str, leaf: Tensor) -> Tensor:
    """Which entries of a parameter may change, as one row."""
    kept = mask[name].to(leaf.device) if name in mask else torch.ones_like(leaf, dtype=torch.bool)
    return kept.flatten()


def _along(model: nn.Module, risk: EmpiricalRisk, step: Tensor, before: float, job: _Job) -> float:
    """Halve a step until the objective falls. The objective is computed in the model's own precision."""
    start = [(p, p.detach().clone()) for p in (model.get_parameter(name) for name in job.names)]
    length = 1.0
    for _ in range(_HALVINGS + 1):
        with torch.no_grad():
            for (p, value), part in zip(start, risk.unflatten(length * step), strict=True):
                p.copy_(value + part)
        after = evaluate(model, job.batches, job.loss)[0]
        if after < before:
            return after
        length /= 2
    with torch.no_grad():
        for p, value in start:
            p.copy_(value)
    return before
