"""How a network uses its layers, found by one forward pass."""

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from howsparse.pruning.repair.passes import call
from howsparse.risk.losses import Loss

__all__ = ["Use", "survey"]


@dataclass
class Use:
    """How one forward pass uses a layer.

    Attributes:
        calls: number of its calls.
        norm: the BatchNorm layer that gets its output, if there is one with running statistics. Its running mean can
            be used like a bias of the layer.
    """

    calls: int = 0
    norm: _BatchNorm | None = None


def survey(model: nn.Module, layers: Collection[nn.Module], batch: Any, loss: Loss) -> dict[nn.Module, Use]:
    """Call a model on a batch, and see how it uses some layers.

    Args:
        model: any module, in the mode of interest.
        layers: layers of it.
        batch: a batch on the model's device.
        loss: ``loss(model, batch)``.

    >>> import torch
    >>> from howsparse.risk.losses import cross_entropy
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    >>> uses = survey(model, [model[0]], (torch.zeros(1, 2), None), cross_entropy)
    >>> uses[model[0]].calls, uses[model[0]].norm is model[1]
    (1, True)
    """
    uses = {layer: Use() for layer in layers}
    outputs: dict[int, tuple[Tensor, nn.Module]] = {}  # the tensors are held, so that no other has the same id
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    calls = dict.fromkeys(norms, 0)

    def after(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        uses[layer].calls += 1
        outputs[id(output)] = (output, layer)

    def before(norm: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        calls[norm] += 1
        if args and id(args[0]) in outputs:
            uses[outputs[id(args[0])][1]].norm = norm

    with ExitStack() as stack:
        for layer in uses:
            stack.callback(layer.register_forward_hook(after).remove)
        for norm in norms:
            stack.callback(norm.register_forward_pre_hook(before).remove)
        call(model, batch, loss)
    for use in uses.values():
        if use.calls != 1 or (use.norm is not None and calls[use.norm] != 1):
            use.norm = None
    return uses
