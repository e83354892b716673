"""The objective of a repair of the whole network: its distance to the dense network, or its loss."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from howsparse.errors import InputError
from howsparse.pruning.repair.passes import undisturbed
from howsparse.risk.batches import precise
from howsparse.risk.counting import weight_of
from howsparse.risk.losses import Loss, SplitLoss, as_loss

__all__ = ["Distance", "Objective", "distance", "in_two_parts", "with_targets"]

Objective = Literal["features", "squares", "divergence", "labels"]
Pair = tuple[Any, Tensor]


class Distance:
    """A loss relative to the dense network. A batch is a pair: the batch itself, and the dense network's result for it.

    Args:
        seen: what is compared, a function of a model and a batch.
        compare: a function of what is seen and the target, summed over the predictions.
        count: number of predictions of a batch.

    >>> import torch
    >>> near = Distance(lambda model, batch: model(batch), lambda now, dense: (now - dense).square().sum(), len)
    >>> float(near(nn.Identity(), (torch.ones(2, 2), torch.zeros(2, 2))))
    2.0
    """

    def __init__(
        self,
        seen: Callable[[nn.Module, Any], Tensor],
        compare: Callable[[Tensor, Tensor], Tensor],
        count: Callable[[Any], int],
    ) -> None:
        self._seen, self._compare, self._count = seen, compare, count

    def __call__(self, model: nn.Module, batch: Pair) -> Tensor:
        return self.of_output(self.output(model, batch), batch)

    def output(self, model: nn.Module, batch: Pair) -> Tensor:
        return self._seen(model, batch[0])

    def of_output(self, output: Tensor, batch: Pair) -> Tensor:
        return self._compare(output, batch[1]) / max(1, self.count(batch))

    def count(self, batch: Pair) -> int:
        """The weight of a batch in a mean over batches."""
        return self._count(batch[0])


def in_two_parts(loss: Loss, model: nn.Module) -> SplitLoss:
    """Return the loss, if it computes outputs first and then the loss of these outputs.

    Args:
        loss: ``loss(model, batch)``.
        model: the model of the loss.

    Raises:
        InputError: the loss has not these two parts.
    """
    split = as_loss(loss, model)
    if not isinstance(split, SplitLoss):
        raise InputError("a repair of the whole network needs a loss in two parts; give a howsparse.risk.SplitLoss")
    return split


def distance(objective: Objective, loss: Loss, dense: nn.Module, batches: list[Any]) -> Distance:
    """The loss for an objective other than "labels"; its batches are those of `with_targets`.

    - "features": half the squared distance of the outputs, and of the features before the last part of the network.
      Each of the two is divided by the squares of the dense network's own, around their mean.
    - "squares": half the squared distance of the outputs.
    - "divergence": the Kullback-Leibler divergence from the dense network's probabilities.

    All are means over the predictions.

    Args:
        objective: one of these names.
        loss: how a model is called on a batch, and what it counts; it must have a separate output.
        dense: the dense network.
        batches: batches on its device; they give the scales of the features.

    Raises:
        InputError: the objective is unknown, or the loss has no separate output.
    """
    split = in_two_parts(loss, dense)

    def count(batch: Any) -> int:
        return weight_of(split, batch)

    if objective == "squares":
        return Distance(split.output, _squares, count)
    if objective == "divergence":
        return Distance(split.output, _divergence, count)
    if objective != "features":
        raise InputError(f"objective '{objective}' is not known; use features, squares, divergence or labels")
    path = _features_path(dense, batches[0], split)
    scales = _scales(dense, batches, split, path, count)

    def seen(model: nn.Module, batch: Any) -> Tensor:
        parts = _parts(model, batch, split, path)
        return torch.cat([scale * part.flatten() for part, scale in zip(parts, scales, strict=True)])

    return Distance(seen, _squares, count)


def with_targets(near: Distance, dense: nn.Module, batches: list[Any]) -> list[Pair]:
    """Each batch with what the dense network computes for it.

    Args:
        near: a distance.
        dense: the dense network.
        batches: batches on its device.

    >>> import torch
    >>> from howsparse.risk.losses import cross_entropy
    >>> batches = [(torch.tensor([[2.0, -1.0]]), None)]
    >>> with_targets(distance("squares", cross_entropy, nn.PReLU(), batches), nn.PReLU(), batches)[0][1]
    tensor([[ 2.0000, -0.2500]])
    """
    with undisturbed(dense):
        return [(batch, precise(near.output(dense, (batch, torch.empty(0))))) for batch in batches]


def _squares(output: Tensor, dense: Tensor) -> Tensor:
    return (output - dense).square().sum() / 2


def _divergence(output: Tensor, dense: Tensor) -> Tensor:
    """Classes are dimension 1."""
    now, wanted = functional.log_softmax(output, dim=1), functional.log_softmax(dense, dim=1)
    return (wanted.exp() * (wanted - now)).sum()


def _features_path(model: nn.Module, batch: Any, loss: SplitLoss) -> str | None:
    """The name of the module that computes the features: the last but one of the model's parts that have parameters.

    If parts without parameters, such as an activation, follow it and keep the shape, it is the last of these. If only
    one part is called, the parts of this part are searched. None if there is no such part with a tensor as output.
    """
    inside, prefix = model, ""
    while True:
        called = dict(_outputs(model, batch, loss, dict(inside.named_children())))
        own = [name for name in called if any(True for _ in inside.get_submodule(name).parameters())]
        if len(own) > 1:
            between = [*called][[*called].index(own[-2]) : [*called].index(own[-1])]
            return prefix + [name for name in between if called[name].shape == called[own[-2]].shape][-1]
        if not own:
            return None
        inside, prefix = inside.get_submodule(own[0]), f"{prefix}{own[0]}."


def _outputs(model: nn.Module, batch: Any, loss: SplitLoss, layers: dict[str, nn.Module]) -> list[tuple[str, Tensor]]:
    """The names and outputs of some layers, in the order of their calls."""
    found: list[tuple[str, Tensor]] = []
    with undisturbed(model), _watching(layers, found):
        loss.output(model, batch)
    return found


@contextmanager
def _watching(layers: dict[str, nn.Module], found: list[tuple[str, Tensor]]) -> Iterator[None]:
    """In this context, keep the outputs of layers that are tensors or tuples that begin with a tensor."""

    def hook(name: str) -> Callable[..., None]:
        def note(layer: nn.Module, args: Any, output: Any) -> None:
            first = output if isinstance(output, Tensor) else next(iter(_values(output)), None)
            if isinstance(first, Tensor):
                found.append((name, first))

        return note

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _values(output: Any) -> Any:
    return output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()


def _parts(model: nn.Module, batch: Any, loss: SplitLoss, path: str | None) -> list[Tensor]:
    """The outputs, and the features if there are any; those of the last call."""
    found: list[tuple[str, Tensor]] = []
    with _watching({} if path is None else {path: model.get_submodule(path)}, found):
        output = loss.output(model, batch)
    return [output, *(precise(value) for _, value in found[-1:])]


def _scales(
    dense: nn.Module, batches: list[Any], loss: SplitLoss, path: str | None, count: Callable[[Any], int]
) -> list[float]:
    """What each part is multiplied by, so that its squares around their mean have the sum 1 for each prediction."""
    with undisturbed(dense):
        parts = [_parts(dense, batch, loss, path) for batch in batches]
    predictions, scales = sum(count(batch) for batch in batches), []
    for part in zip(*parts, strict=True):
        numbers = torch.cat([values.flatten() for values in part]).double()
        around = float((numbers - numbers.mean()).square().sum())
        scales.append((around / max(1, predictions)) ** -0.5 if around > 0 else 1.0)
    return scales
