"""What a loss is: a function of a model and a batch, in one part or in two."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

__all__ = ["Loss", "SplitLoss"]


class Loss(Protocol):
    """Mean loss of a model on a batch, as a scalar tensor.

    A batch counts in proportion to its number of examples. A loss that is a mean over something else, for example over
    the tokens of a text, has ``count(batch)``, and batches count in proportion to this number.

    >>> import torch
    >>> def squared(model: nn.Module, batch: Any) -> Tensor:
    ...     return nn.functional.mse_loss(model(batch[0]), batch[1])
    >>> loss: Loss = squared
    >>> float(loss(nn.Identity(), (torch.zeros(2), torch.ones(2))))
    1.0
    """

    def __call__(self, model: nn.Module, batch: Any) -> Tensor: ...


@runtime_checkable
class SplitLoss(Protocol):
    """A loss in two parts: the model's output, and a convex function of this output. The GGN needs such a loss.

    A loss may also have ``score(output, batch)``, which returns the number of correct predictions and the number of all
    predictions. Accuracies are then measured too. A loss may also have ``correct(output, batch)``, a boolean tensor
    with one entry for each prediction. Training uses it if possible, because then the CPU need not wait for the GPU.

    >>> from howsparse import cross_entropy
    >>> isinstance(cross_entropy, SplitLoss)
    True
    """

    def __call__(self, model: nn.Module, batch: Any) -> Tensor: ...

    def output(self, model: nn.Module, batch: Any) -> Tensor:
        """The model's output for a batch.

        Args:
            model: any module.
            batch: any batch.

        Returns:
            The output, of any shape.
        """
        ...

    def of_output(self, output: Tensor, batch: Any) -> Tensor:
        """The mean loss of an output.

        Args:
            output: what ``output`` returned for the batch.
            batch: the same batch.

        Returns:
            A scalar tensor.
        """
        ...
