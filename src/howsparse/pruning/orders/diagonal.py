r"""The diagonal of the Gauss-Newton matrix, exact or sampled, from gradients of single examples.

The GGN of the mean loss is :math:`\sum_i a_i J_i' B_i J_i`. Here :math:`a_i` is example i's share in the mean,
:math:`J_i` the derivative of its outputs in the weights, and :math:`B_i` the Hessian of its loss in the outputs. With
any factor :math:`B_i = R_i R_i'`, the diagonal is :math:`\sum_i a_i \sum_c (J_i' R_i e_c)^2`, with squares of entries.
Each :math:`J_i' R_i e_c` is one backward pass of one example.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from howsparse.errors import InputError
from howsparse.memory import available_memory
from howsparse.parallel import rank, sum_, summed
from howsparse.risk.batches import split_batch
from howsparse.risk.empirical import Caller, EmpiricalRisk
from howsparse.risk.losses import IGNORED, CrossEntropy, SplitLoss

__all__ = ["EXACT_UP_TO", "Diagonal", "ggn_diagonal"]

EXACT_UP_TO = 200  # outputs of one example; of more, labels are drawn


@dataclass(frozen=True, eq=False)
class Diagonal:
    """The diagonal of a matrix of an empirical risk.

    Attributes:
        values: ``(n,)``, in the order of the risk's flat vector.
        note: one line that says how it was computed.
    """

    values: Tensor
    note: str


def ggn_diagonal(risk: EmpiricalRisk, *, exact_up_to: int = EXACT_UP_TO, draws: int = 1, seed: int = 0) -> Diagonal:
    r"""Diagonal of the Gauss-Newton matrix of an empirical risk.

    The part of an example with at most ``exact_up_to`` outputs is exact: the factor :math:`R_i` is the square root of
    :math:`B_i` by an eigendecomposition, with one backward pass for each of its columns. The part of an example with
    more outputs is an unbiased estimate from ``draws`` backward passes, each along a random vector s with
    :math:`E[s s'] = B_i`. For cross-entropy, s is the slope for labels that are drawn from the model's own
    distribution, independent for each prediction. For a loss that is a sum over outputs, such as the squared error, s
    has independent random signs.

    Args:
        risk: the empirical risk. Its loss must be the mean of its examples' losses, and a `SplitLoss`.
        exact_up_to: largest number of outputs of an example for the exact computation.
        draws: number of random vectors for each example of the sampled estimate.
        seed: seed of the random vectors.

    Returns:
        The diagonal, ``(n,)``, and a note that says whether it is exact or sampled.

    Raises:
        InputError: the loss is not a `SplitLoss`, is not a mean over examples, or has many outputs and is neither
            cross-entropy nor a sum over outputs.

    Source: Dangel et al. (2020), BackPACK, for the exact diagonal and for the sampled one.

    >>> from torch import nn
    >>> risk = EmpiricalRisk(nn.Linear(2, 2), [(torch.eye(2), torch.tensor([0, 1]))])
    >>> from howsparse.risk.curvature import GGN
    >>> torch.allclose(ggn_diagonal(risk).values, (GGN(risk) @ torch.eye(4)).diagonal(), atol=1e-6)
    True
    """
    loss = risk.split_loss()
    totals = [torch.zeros_like(leaf, requires_grad=False) for leaf in risk.leaves]
    generator = torch.Generator(device=risk.device).manual_seed(seed + rank())
    sampled, used, widest, whole = 0, 0, 0, sum(risk.weights)
    with risk.standing_in(twice=True) as call:
        _check_mean(risk, call)
        for batch in risk.batches:
            for piece in split_batch(batch, 1):
                share = risk.weight_of(piece) / whole
                if not share:
                    continue
                piece = risk.on(piece)
                output = call(loss.output, piece)
                exact = output.numel() <= exact_up_to
                columns = _root(loss, output, piece) if exact else _draws(loss, output, piece, draws, generator)
                _add_squares(totals, output, columns * math.sqrt(share), risk.leaves)
                sampled, used, widest = sampled + (not exact), used + 1, max(widest, output.numel())
    sampled, used = (int(count) for count in summed([sampled, used], risk.device))
    return Diagonal(sum_(risk.flatten(totals)), _note(used, sampled, draws, widest))


def _note(used: int, sampled: int, draws: int, widest: int) -> str:
    if not sampled:
        return f"exact diagonal from per-example gradients, {used:,} examples, {widest:,} outputs"
    how = f"sampled diagonal, {draws:,} draw{'s' * (draws > 1)} for each example"
    return f"{how}, {used:,} examples, up to {widest:,} outputs"


def _check_mean(risk: EmpiricalRisk, call: Caller) -> None:
    """Raise an error if the loss of the first batch is not the mean of its examples' losses."""
    batch = next(iter(risk.all_batches))
    pieces = [(risk.weight_of(piece), piece) for piece in split_batch(batch, 1)]
    weight = risk.weight_of(batch)
    if len(pieces) == 1 or not weight:
        return
    with torch.no_grad():
        together = float(call(risk.loss, risk.on(batch)))
        apart = sum(w * float(call(risk.loss, risk.on(piece))) for w, piece in pieces if w) / weight
    if not math.isclose(together, apart, rel_tol=1e-3, abs_tol=1e-5):
        raise InputError(
            f"the loss of a batch, {together:.6g}, is not the mean of its examples' losses, {apart:.6g};"
            " use another order, or a loss that is a mean over examples"
        )


def _root(loss: SplitLoss, output: Tensor, piece: Any) -> Tensor:
    """Columns R with R R' = B, the Hessian of the loss in the outputs: ``(columns, *output.shape)``."""
    curved = _curved(loss, output, piece)
    hessian = torch.stack([curved(row.view_as(output)).flatten() for row in torch.eye(output.numel()).to(output)])
    values, vectors = torch.linalg.eigh((hessian.double() + hessian.double().T) / 2)
    counted = values > values.abs().max() * output.numel() * torch.finfo(output.dtype).eps
    columns: Tensor = (vectors[:, counted] * values[counted].sqrt()).T
    return columns.to(output.dtype).view(-1, *output.shape)


def _draws(loss: SplitLoss, output: Tensor, piece: Any, draws: int, generator: torch.Generator) -> Tensor:
    """Independent random vectors s with E[s s'] = B / draws: ``(draws, *output.shape)``."""
    if isinstance(loss, CrossEntropy):
        columns = _drawn_labels(loss, output.detach(), piece, draws, generator)
    else:
        diagonal = _elementwise(loss, output, piece, generator)
        signs = torch.randint(2, (draws, *output.shape), generator=generator, device=output.device) * 2 - 1
        columns = diagonal.clamp(min=0).sqrt() * signs
    return columns / math.sqrt(draws)


def _drawn_labels(loss: CrossEntropy, logits: Tensor, piece: Any, draws: int, generator: torch.Generator) -> Tensor:
    """Slopes of the cross-entropy, times the root of the number of predictions, for labels of the model's own."""
    probabilities = logits.movedim(1, -1).softmax(-1)  # classes last: (..., classes)
    target = loss.targets(piece)
    counted = torch.ones_like(probabilities[..., 0]) if target.is_floating_point() else (target != IGNORED)
    weights = (counted / counted.sum()).sqrt().to(logits)
    rows = probabilities.reshape(-1, probabilities.shape[-1])
    labels = torch.multinomial(rows, draws, replacement=True, generator=generator).T
    columns = []
    for drawn in labels:
        slope = rows.scatter_add(1, drawn[:, None], -torch.ones_like(rows[:, :1])).view_as(probabilities)
        columns.append((slope * weights[..., None]).movedim(-1, 1))
    return torch.stack(columns)


def _elementwise(loss: SplitLoss, output: Tensor, piece: Any, generator: torch.Generator) -> Tensor:
    """Diagonal of the Hessian of a loss in its outputs, if this Hessian is diagonal."""
    curved = _curved(loss, output, piece)
    diagonal = curved(torch.ones_like(output))
    probe = torch.randn(output.shape, generator=generator, device=output.device, dtype=output.dtype)
    if not torch.allclose(curved(probe), diagonal * probe, rtol=1e-3, atol=1e-6 * float(diagonal.abs().max())):
        raise InputError(
            f"the curvature of this loss with {output.numel():,} outputs is known only for cross-entropy and for sums"
            " over outputs; use another order, or howsparse's cross_entropy"
        )
    return diagonal


def _curved(loss: SplitLoss, output: Tensor, piece: Any) -> Callable[[Tensor], Tensor]:
    """The product with the Hessian of the loss in the outputs."""
    at = output.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss.of_output(at, piece), at, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        if not slope.requires_grad:  # the loss is linear in the outputs
            return torch.zeros_like(vector)
        curved: Tensor = torch.autograd.grad(slope, at, vector, retain_graph=True, materialize_grads=True)[0]
        return curved

    return product


def _add_squares(totals: list[Tensor], output: Tensor, columns: Tensor, leaves: list[Tensor]) -> None:
    """Add the squared gradients along each column. Columns share a backward pass, as many as the memory allows."""
    bytes_each = 4 * sum(leaf.numel() * leaf.element_size() for leaf in leaves)
    together = max(1, available_memory(output.device) // 8 // bytes_each)
    for some in columns.split(together):
        for total, gradients in zip(totals, _backward(output, some, leaves), strict=True):
            total.add_(gradients.square_().sum(0))


def _backward(output: Tensor, columns: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of ``output`` along each of several columns, stacked along dimension 0."""
    if len(columns) > 1:
        return torch.autograd.grad(
            output, leaves, columns, retain_graph=True, is_grads_batched=True, materialize_grads=True
        )
    one = torch.autograd.grad(output, leaves, columns[0], retain_graph=True, materialize_grads=True)
    return tuple(gradient.unsqueeze(0) for gradient in one)
