"""Refit the kept weights layer by layer, so that each layer's output is close to that of the dense network again.

References:
    Hassibi and Stork (1993), Second order derivatives for network pruning: optimal brain surgeon.
    Hubara et al. (2021), Accurate post training quantization with small calibration sets.
    Frantar and Alistarh (2023), SparseGPT: massive language models can be accurately pruned in one-shot.
"""

import copy
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from howsparse.errors import InputError
from howsparse.pruning.masks import Mask
from howsparse.pruning.repair.layers import (
    Repairable,
    as_groups,
    input_columns,
    output_columns,
    pieces,
    repairable,
    set_groups,
)
from howsparse.pruning.repair.normal_equations import NormalEquations
from howsparse.pruning.repair.passes import Pass, Stop, call, calls, first_argument, passes, stopping, undisturbed
from howsparse.pruning.repair.survey import survey
from howsparse.risk.alone import alone
from howsparse.risk.batches import move, precise
from howsparse.risk.guard import guarded_with_values
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.risk.modes import device_of
from howsparse.risk.weights import torch_masks

__all__ = ["Inputs", "repair_layers"]

Inputs = Literal["pruned", "dense"]
Pairs = list[tuple[Stop, Stop]]


@dataclass(frozen=True)
class _Job:
    """What stays the same from layer to layer."""

    mask: Mask
    batches: list[Any]
    ridge: float
    inputs: Inputs
    loss: Loss


@dataclass(frozen=True)
class _Shift:
    """The means that BatchNorm subtracts from a layer's outputs: the model's, which is changed, and the dense one's."""

    now: Tensor
    dense: Tensor


@alone
def repair_layers(
    model: nn.Module,
    mask: Mask,
    batches: Iterable[Any],
    *,
    dense: nn.Module | None = None,
    ridge: float = 1e-3,
    inputs: Inputs = "pruned",
    loss: Loss = cross_entropy,
) -> None:
    r"""Prune a model with a mask, and refit the weights that stay by least squares, layer by layer. No training.

    A layer's new weights bring its outputs as near as possible to those of the dense network, over the calibration
    examples. Layers are repaired in the order in which the network calls them. The inputs of a layer are those of the
    pruned network with the layers before it repaired. So a layer also corrects errors that remain from earlier layers.

    For output i with kept weights K, the new weights minimise :math:`\sum_x (y_i(x) - x_K'w)^2 + \lambda |w - w_0|^2`:
    x are the inputs, y the dense layer's outputs, w_0 the weights before, and lambda is ``ridge`` times the mean of
    :math:`\sum x^2` over the inputs. So no layer's error on these examples grows. The layer's bias is refitted too. If
    a layer has no bias and a BatchNorm layer follows it, the running mean of this BatchNorm is refitted as a bias.

    Linear layers, convolutions (1d and 2d) and the Conv1D of GPT-2 are repaired. Other layers of the mask are pruned
    only: embeddings (also if an output layer shares their weight), recurrent layers, and torch's own attention. A
    weight that is used several times has no single place in the order. It is refitted first, for all its uses together,
    with the dense network's inputs.

    A few hundred to a few thousand examples are enough. All batches stay in memory, each with the tensors that its
    forward pass needs at one layer; pass few large batches rather than many small ones. Do not call `repair_batchnorm`
    afterwards, because the repaired layers are fitted to the old statistics of BatchNorm.

    Args:
        model: any module; it is changed in place.
        mask: weights that stay. The others are zero afterwards.
        batches: calibration batches; their labels are not used.
        dense: network of the same kind whose outputs are the goal; by default ``model`` as it is given. With it, a
            model that was pruned and repaired before can be pruned further.
        ridge: strength with which the weights are held near their old values, as a fraction; above 0.
        inputs: "pruned" for the inputs described above; "dense" for the dense network's inputs in all layers.
        loss: ``loss(model, batch)``; it calls the model on a batch.

    Raises:
        InputError: the mask does not fit the model, no layer of it can be repaired, there are no batches, ``ridge`` or
            ``inputs`` is not valid, the examples do not determine a layer's weights (its inputs are not finite, or
            they are constant or equal and the ridge is tiny), or the pruned network calls other layers than the dense
            one. The model is then as it was.

    Source: Hassibi and Stork (1993); Hubara et al. (2021); Frantar and Alistarh (2023).

    >>> import torch
    >>> from howsparse import magnitude_mask
    >>> model, x = nn.Linear(4, 1), torch.randn(50, 4) + 1
    >>> y, mask = model(x), magnitude_mask(model, 0.5)
    >>> repair_layers(model, mask, [(x, torch.zeros(50, dtype=torch.long))])
    >>> bool((model(x) - y).mean().abs() < 1e-6), int((model.weight == 0).sum())
    (True, 2)
    """
    _check(model, dense, ridge, inputs)
    given = [move(batch, device_of(model)) for batch in batches]
    if not given:
        raise InputError("there are no batches; pass at least one, of a few hundred examples")
    _prune(model, copy.deepcopy(model) if dense is None else dense, _Job(mask, given, ridge, inputs, loss))


@guarded_with_values
def _prune(model: nn.Module, dense: nn.Module, job: _Job) -> None:
    targets = repairable(model, job.mask)
    if not targets:
        raise InputError("the mask has no weight of a linear layer or convolution; use a mask of such layers")
    job.mask.apply_(model)
    _in_step(model, dense, targets, job)


def _check(model: nn.Module, dense: nn.Module | None, ridge: float, inputs: str) -> None:
    if not ridge > 0:
        raise InputError(f"ridge {ridge:g} is not above 0; use about 1e-3")
    if inputs not in ("pruned", "dense"):
        raise InputError(f"inputs '{inputs}' is not known; use pruned or dense")
    if torch_masks(model):
        raise InputError("the model is pruned by torch.nn.utils.prune; call torch.nn.utils.prune.remove first")
    if dense is not None:
        shapes = [{name: p.shape for name, p in each.named_parameters()} for each in (model, dense)]
        if dense is model or shapes[0] != shapes[1]:
            raise InputError("dense is not a copy of the model with the same parameters; pass copy.deepcopy(model)")


def _in_step(model: nn.Module, dense: nn.Module, targets: list[Repairable], job: _Job) -> None:
    """Run both networks on all batches in parallel, and fit each layer when all passes have reached it."""
    twins = dict(zip(model.modules(), dense.modules(), strict=True))
    owners = {layer: target for target in targets for layer in target.layers}
    shifted: list[Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(undisturbed(dense))
        stack.enter_context(undisturbed(model))  # it restores the buffers, so the means are set again at the end
        uses = survey(model, owners, job.batches[0], job.loss)
        several = [target for target in targets if sum(uses[layer].calls for layer in target.layers) > 1]
        _fit_together(dense, twins, several, job)
        ordered = {layer: target for layer, target in owners.items() if target not in several}
        stack.enter_context(stopping(list(ordered), again=True))
        stack.enter_context(stopping([twins[layer] for layer in ordered], again=False))
        pruned_passes = stack.enter_context(passes(calls(model, job.batches, job.loss)))
        dense_passes = stack.enter_context(passes(calls(dense, job.batches, job.loss)))
        while pairs := _next_stops(pruned_passes, dense_passes, twins):
            layer = pairs[0][0].layer
            norm = uses[layer].norm
            shift = None
            if norm is not None and ordered[layer].bias is None:
                shift = _Shift(_mean_of(norm), _mean_of(twins[norm]))
                shifted.append(shift.now)
            _fit(ordered[layer], pairs, job, shift)
        means = [mean.clone() for mean in shifted]
    for buffer, mean in zip(shifted, means, strict=True):
        buffer.copy_(mean)


def _mean_of(norm: nn.Module) -> Tensor:
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    return norm.running_mean


def _next_stops(pruned: list[Pass], dense: list[Pass], twins: dict[nn.Module, nn.Module]) -> Pairs:
    """The stops of all passes at the next layer; none at the end."""
    stops = [(a.advance(), b.advance()) for a, b in zip(pruned, dense, strict=True)]
    pairs = [(a, b) for a, b in stops if a is not None and b is not None]
    if all(a is None and b is None for a, b in stops):
        return []
    same_layer = len(pairs) == len(stops) and len({a.layer for a, _ in pairs}) == 1
    if not same_layer or not all(twins[a.layer] is b.layer and a.input.shape == b.input.shape for a, b in pairs):
        raise InputError(
            "the pruned network does not call the same layers in the same order as the dense one on every batch;"
            " repair it by another method"
        )
    return pairs


def _fit_together(dense: nn.Module, twins: dict[nn.Module, nn.Module], targets: list[Repairable], job: _Job) -> None:
    """Fit weights to all their uses in the dense network. One pass over the data is enough for all of them."""
    equations = {target: _equations(target, None) for target in targets}
    layers = {twins[layer]: (layer, target) for target in targets for layer in target.layers}

    def see(twin: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        layer, target = layers[twin]
        given = first_argument(args, kwargs)
        _add(equations[target], layer, given, layer.forward(given), output)

    with ExitStack() as stack:
        for twin in layers:
            stack.callback(twin.register_forward_hook(see, with_kwargs=True).remove)
        for batch in job.batches if targets else []:
            call(dense, batch, job.loss)
    for target in targets:
        _change(target, equations[target], job, None)


def _fit(target: Repairable, pairs: Pairs, job: _Job, shift: _Shift | None) -> None:
    """Refit a weight, and its bias or the mean of the BatchNorm layer after it, to the dense outputs."""
    equations = _equations(target, shift)
    beside = None if shift is None else shift.now - shift.dense
    for pruned, whole in pairs:
        given, output = pruned.input, pruned.output
        if job.inputs == "dense":
            given, output = whole.input, pruned.layer.forward(whole.input)
        _add(equations, pruned.layer, given, output, whole.output, beside)
    _change(target, equations, job, shift)


def _equations(target: Repairable, shift: _Shift | None) -> NormalEquations:
    groups, outputs, features = as_groups(target.layers[0], target.weight).shape
    free = target.bias is not None or shift is not None
    return NormalEquations(groups, features, outputs, free, target.weight)


def _add(
    equations: NormalEquations,
    layer: nn.Module,
    given: Tensor,
    output: Tensor,
    wanted: Tensor,
    beside: Tensor | None = None,
) -> None:
    """Add the inputs of a layer and the error of its outputs; ``beside`` is added to the error at all positions."""
    for x, now, goal in pieces(layer, given, output, wanted):
        missing = output_columns(layer, precise(goal) - precise(now))
        if beside is not None:
            missing = missing + beside.view(len(missing), 1, -1, 1)
        equations.add(precise(input_columns(layer, x)), missing)


def _change(target: Repairable, equations: NormalEquations, job: _Job, shift: _Shift | None) -> None:
    """Set the weight, and the bias or the mean, to the solution."""
    first = target.layers[0]
    now = as_groups(first, target.weight.detach()).double()
    kept = as_groups(first, job.mask[target.name].to(target.weight.device))
    change = _solution(target.name, equations, kept, job.ridge)
    set_groups(first, target.weight, now + change[..., : now.shape[2]])
    if target.bias is not None:
        target.bias.add_(change[..., -1].flatten().to(target.bias))
    elif shift is not None:
        shift.now.sub_(change[..., -1].flatten().to(shift.now))


def _solution(name: str, equations: NormalEquations, kept: Tensor, ridge: float) -> Tensor:
    """The change of the weight ``name``.

    Raises:
        InputError: the calibration examples do not determine it.
    """
    if not bool(equations.gram.isfinite().all() and equations.right.isfinite().all()):
        raise InputError(
            f"weight '{name}' cannot be refitted: on the calibration examples, the inputs or outputs of its layer are"
            " not finite or too large to square; pass examples and a model with finite values"
        )
    try:
        return equations.solve(kept, ridge)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise InputError(
            f"weight '{name}' cannot be refitted with ridge {ridge:g}: on the calibration examples, the inputs of its"
            " layer are constant or combinations of each other; pass more or other examples, or a ridge of about 1e-3"
        ) from error
