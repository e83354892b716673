"""New statistics of BatchNorm's inputs, for a network whose weights have changed."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from howsparse.errors import InputError
from howsparse.pruning.repair.passes import Stop, calls, passes, stopping, undisturbed
from howsparse.risk.alone import alone
from howsparse.risk.batches import move, precise
from howsparse.risk.guard import guarded, guarded_with_values
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.risk.modes import device_of

__all__ = ["repair_batchnorm", "settle_batchnorm"]

Statistics = tuple[Tensor, Tensor]


@alone
@guarded
def repair_batchnorm(model: nn.Module, batches: Iterable[Any], *, loss: Loss = cross_entropy) -> None:
    """Set the running means and variances of all BatchNorm layers to those of their inputs over the examples.

    They are exact over all examples, without momentum. The inputs of a layer are computed in evaluation mode, with the
    new statistics of the layers before it. So the result does not depend on how the examples are divided into batches.
    As in torch, the variance is the unbiased one, and ``num_batches_tracked`` is the number of batches.

    This helps a network right after a mask. Do not use it after `repair_layers`, which fits the weights to the old
    statistics: see `settle_batchnorm`. If a network was trained on augmented images, give augmented images here too.

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
    given = list(batches)
    _renew(_statistics_of_inputs(model, given, loss, _set), len(given))


@alone
@guarded_with_values
def settle_batchnorm(model: nn.Module, batches: Iterable[Any], *, loss: Loss = cross_entropy) -> None:
    r"""Set the statistics of all BatchNorm layers to those of their inputs, and keep the network's outputs.

    Call it between a repair and training. In training mode, BatchNorm uses the mean and the variance of the batch. A
    repair fits the weights to the running ones, which are still those of the dense network. So training would start
    from another network than the repaired one, and much of the repair would be lost.

    With mean m and variance v before, and the inputs' mean :math:`\mu` and variance :math:`\sigma^2`, the scale is
    multiplied by :math:`\sqrt{(\sigma^2+\epsilon)/(v+\epsilon)}`, and the shift grows by
    :math:`\gamma(\mu-m)/\sqrt{v+\epsilon}`, where :math:`\gamma` is the scale before.

    Args:
        model: any module; scales, shifts and buffers of its BatchNorm layers are changed in place.
        batches: examples; their labels are not used. All stay in memory.
        loss: ``loss(model, batch)``; it calls the model on a batch.

    Raises:
        InputError: as `repair_batchnorm`; or a BatchNorm layer has no scale and shift.

    >>> model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)).eval()
    >>> x = torch.tensor([[1.0], [2.0], [6.0]])
    >>> before = model(x)
    >>> settle_batchnorm(model, [(x, torch.zeros(3).long())])
    >>> torch.allclose(model(x), before, atol=1e-6), torch.allclose(model[1].running_mean, model[0](x).mean())
    (True, True)
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.weight is None:
            raise InputError(
                f"BatchNorm '{name}' has no scale and shift, so its outputs would change; leave it as it is"
            )
    given = list(batches)
    found = _statistics_of_inputs(model, given, loss, lambda layer, mean, variance: None)
    for layer, statistics in found.items():
        _keep_outputs(layer, *statistics)
    _renew(found, len(given))


def _statistics_of_inputs(
    model: nn.Module, batches: list[Any], loss: Loss, change: Callable[[_BatchNorm, Tensor, Tensor], None]
) -> dict[_BatchNorm, Statistics]:
    """Mean and variance of each layer's inputs. Each layer is changed before its outputs go on to the next ones."""
    layers = {m: name for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None}
    if not layers:
        raise InputError("the model has no BatchNorm layer with running statistics; it needs no repair of them")
    if not batches:
        raise InputError("there are no batches; pass at least one, of a few hundred examples")
    found: dict[_BatchNorm, Statistics] = {}
    with ExitStack() as stack:
        stack.enter_context(undisturbed(model))  # it restores the buffers, so they are set again at the end
        stack.enter_context(stopping(list(layers), again=True))
        given = [move(batch, device_of(model)) for batch in batches]
        running = stack.enter_context(passes(calls(model, given, loss)))
        while any(stops := [each.advance() for each in running]):
            layer, statistics = _statistics(stops, layers)
            if layer in found:
                raise InputError(f"BatchNorm '{layers[layer]}' is called several times in one pass; use another repair")
            found[layer] = statistics
            change(layer, *statistics)
    return found


def _renew(found: dict[_BatchNorm, Statistics], count: int) -> None:
    for layer, statistics in found.items():
        _set(layer, *statistics)
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.fill_(count)


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


@torch.no_grad()
def _keep_outputs(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Scales and shifts with which new statistics give the outputs of the present ones."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    before = (layer.running_var.double() + layer.eps).sqrt()
    layer.bias.add_(layer.weight * (mean - layer.running_mean) / before)
    layer.weight.mul_((variance + layer.eps).sqrt() / before)
