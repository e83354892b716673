"""New statistics of BatchNorm's inputs, for a network whose weights have changed."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from howsparse.errors import InputError
from howsparse.pruning.repair.passes import Stop, calls, passes, stopping, undisturbed
from howsparse.risk.alone import alone
from howsparse.risk.batches import move, precise
from howsparse.risk.guard import guarded
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.risk.modes import device_of

__all__ = ["repair_batchnorm"]

Statistics = tuple[Tensor, Tensor]


@alone
@guarded
def repair_batchnorm(model: nn.Module, batches: Iterable[Any], *, loss: Loss = cross_entropy) -> None:
    """Set the running means and variances of all BatchNorm layers to those of their inputs over the examples.

    They are exact over all examples, without momentum. The inputs of a layer are computed in evaluation mode, with the
    new statistics of the layers before it. So the result does not depend on how the examples are divided into batches.
    As in torch, the variance is the unbiased one, and ``num_batches_tracked`` is the number of batches.

    This helps a network right after a mask. Do not use it after `repair_layers`, which fits the weights to the old
    statistics. If a network was trained on augmented images, give augmented images here too.

    Args:
        model: any module; the buffers of its BatchNorm layers are changed in place.
        batches: examples; their labels are not used. All stay in memory.
        loss: ``loss(model, batch)``; it calls the model on a batch.

    Raises:
        InputError: there are no batches, no BatchNorm layer with running statistics, one is called several times in one
            forward pass, or one has fewer than two values to take a variance of.

    Source: the statistics of Ioffe and Szegedy (2015), Batch normalization, section 3.1.

    >>> model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    >>> _ = model[0].weight.data.fill_(2.0), model[0].bias.data.zero_()
    >>> repair_batchnorm(model, [(torch.tensor([[1.0], [2.0]]), torch.zeros(2).long()), (torch.tensor([[6.0]]), None)])
    >>> model[1].running_mean.tolist(), model[1].running_var.tolist()
    ([6.0], [28.0])
    """
    layers = {m: name for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None}
    if not layers:
        raise InputError("the model has no BatchNorm layer with running statistics; it needs no repair of them")
    given = [move(batch, device_of(model)) for batch in batches]
    if not given:
        raise InputError("there are no batches; pass at least one, of a few hundred examples")
    found: dict[_BatchNorm, Statistics] = {}
    with ExitStack() as stack:
        stack.enter_context(undisturbed(model))  # it restores the buffers, so they are set again at the end
        stack.enter_context(stopping(list(layers), again=True))
        running = stack.enter_context(passes(calls(model, given, loss)))
        while any(stops := [each.advance() for each in running]):
            layer, statistics = _statistics(stops, layers)
            if layer in found:
                raise InputError(f"BatchNorm '{layers[layer]}' is called several times in one pass; use another repair")
            found[layer] = statistics
            _set(layer, *statistics)
    for layer, statistics in found.items():
        _set(layer, *statistics)
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.fill_(len(given))


def _statistics(stops: list[Stop | None], names: dict[_BatchNorm, str]) -> tuple[_BatchNorm, Statistics]:
    """The layer at which all passes stopped, with mean and unbiased variance of each of its channels."""
    reached = [stop for stop in stops if stop is not None]
    layer = reached[0].layer
    assert isinstance(layer, _BatchNorm)
    if any(stop.layer is not layer for stop in reached) or len(reached) < len(stops):
        raise InputError("the model does not call the same layers in the same order on every batch; use another repair")
    inputs = [precise(stop.input).movedim(1, 0).flatten(1) for stop in reached]
    count = sum(part.shape[1] for part in inputs)
    if count < 2:
        raise InputError(f"BatchNorm '{names[layer]}' has only one value for each channel; pass more examples")
    mean = torch.stack([part.double().sum(1) for part in inputs]).sum(0) / count
    squares = torch.stack([(part.double() - mean[:, None]).square().sum(1) for part in inputs]).sum(0)
    return layer, (mean, squares / (count - 1))


def _set(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    with torch.no_grad():
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
