"""What a repair of the whole network brings near: its outputs to the dense network's, or its loss to a minimum."""

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from howsparse.errors import InputError
from howsparse.pruning.repair.passes import undisturbed
from howsparse.risk.batches import precise
from howsparse.risk.losses import Loss, SplitLoss, as_loss, weight_of

__all__ = ["Objective", "OutputLoss", "objective_loss", "with_outputs"]

Objective = Literal["squares", "divergence", "labels"]


class OutputLoss:
    """A loss of the outputs against the dense network's. A batch is a pair: the batch itself, and these outputs.

    Args:
        loss: how the model is called on a batch.
        distance: a function of outputs and dense outputs, a scalar for each batch.

    >>> import torch
    >>> near = OutputLoss(as_loss(nn.CrossEntropyLoss()), squares)
    >>> float(near(nn.Identity(), ((torch.ones(1, 2), None), torch.zeros(1, 2))))
    1.0
    """

    def __init__(self, loss: SplitLoss, distance: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._loss, self._distance = loss, distance

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return self.of_output(self.output(model, batch), batch)

    def output(self, model: nn.Module, batch: Any) -> Tensor:
        return self._loss.output(model, batch[0])

    def of_output(self, output: Tensor, batch: Any) -> Tensor:
        return self._distance(output, batch[1])

    def count(self, batch: Any) -> int:
        """What a batch counts: its predictions or examples, as the loss counts them."""
        return weight_of(self._loss, batch[0])


def squares(output: Tensor, dense: Tensor) -> Tensor:
    """Half the squared distance, mean over the predictions.

    Args:
        output: ``(predictions, outputs)``; more dimensions are more outputs.
        dense: those of the dense network, of the same shape.

    >>> import torch
    >>> float(squares(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)))
    12.5
    """
    return (output - dense).square().sum() / (2 * max(1, len(output)))


def divergence(output: Tensor, dense: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the dense network's probabilities, mean over the predictions.

    Args:
        output: logits, ``(predictions, classes, ...)``.
        dense: those of the dense network, of the same shape.

    >>> import torch
    >>> round(float(divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1e9]]))), 4)  # log 2
    0.6931
    """
    now, wanted = functional.log_softmax(output, dim=1), functional.log_softmax(dense, dim=1)
    return (wanted.exp() * (wanted - now)).sum() / max(1, len(output))


_DISTANCES = {"squares": squares, "divergence": divergence}


def objective_loss(objective: Objective, loss: Loss, model: nn.Module) -> SplitLoss:
    """The loss to minimise; its batches are those of `with_outputs`, except for the objective "labels".

    Args:
        objective: "squares" or "divergence" for a distance to the dense outputs, "labels" for the loss itself.
        loss: ``loss(model, batch)``.
        model: the model of the loss.

    Raises:
        InputError: the objective is unknown, or the loss has no separate output.
    """
    loss = as_loss(loss, model)
    if not isinstance(loss, SplitLoss):
        raise InputError("a repair of the whole network needs a loss with output(model, batch) and of_output")
    if objective == "labels":
        return loss
    if objective not in _DISTANCES:
        raise InputError(f"objective '{objective}' is not known; use squares, divergence or labels")
    return OutputLoss(loss, _DISTANCES[objective])


def with_outputs(batches: list[Any], dense: nn.Module, loss: Loss) -> list[Any]:
    """Each batch with the dense network's outputs.

    Args:
        batches: batches on the network's device.
        dense: network whose outputs are the goal.
        loss: a `SplitLoss`, which calls the network on a batch.

    Raises:
        InputError: the loss has no separate output.

    >>> import torch
    >>> from howsparse.risk.losses import cross_entropy
    >>> with_outputs([(torch.tensor([[2.0, -1.0]]), None)], nn.PReLU(), cross_entropy)[0][1]
    tensor([[ 2.0000, -0.2500]])
    """
    loss = as_loss(loss, dense)
    if not isinstance(loss, SplitLoss):
        raise InputError("a repair of the whole network needs a loss with output(model, batch) and of_output")
    with undisturbed(dense):
        return [(batch, precise(loss.output(dense, batch))) for batch in batches]
