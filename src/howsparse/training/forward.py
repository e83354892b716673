"""The loss of a training step, computed as fast as the device allows."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import util
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.risk.losses import Loss, SplitLoss, as_loss

__all__ = ["TrainingLoss", "same_bits", "training_loss"]


class TrainingLoss(nn.Module):
    """A model and its loss as one module. Its input is a batch; its results are the loss and the model's output.

    The output is None if the loss is not a `SplitLoss`. With ``autocast`` the model's products are computed in
    bfloat16; parameters, gradients, the output and the loss are float32.

    `torch.nn.parallel.DistributedDataParallel` needs one module of both, because a loss may call any method of the
    model, not only its ``forward``.

    Args:
        model: any module.
        loss: ``loss(model, batch)``, mean over the batch.
        autocast: whether to compute products in bfloat16.

    >>> from howsparse.risk.losses import cross_entropy
    >>> loss, output = TrainingLoss(nn.Identity(), cross_entropy)((torch.zeros(1, 2), torch.tensor([0])))
    >>> loss, output
    (tensor(0.6931), tensor([[0., 0.]]))
    """

    def __init__(self, model: nn.Module, loss: Loss, autocast: bool = False) -> None:
        super().__init__()
        self.model, self.loss, self.autocast = model, loss, autocast

    def forward(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        loss = self.loss
        if not isinstance(loss, SplitLoss):
            with self._autocast():
                return self._full_precision(loss(self.model, batch)), None
        with self._autocast():
            output = self._full_precision(loss.output(self.model, batch))
        return loss.of_output(output, batch), output.detach()

    def _autocast(self) -> "torch.autocast | nullcontext[None]":
        if not self.autocast:
            return nullcontext()
        return torch.autocast(next(self.model.parameters()).device.type, torch.bfloat16)

    def _full_precision(self, tensor: Tensor) -> Tensor:
        return tensor.float() if self.autocast else tensor


def training_loss(model: nn.Module, loss: Loss) -> TrainingLoss:
    """The loss of ``model`` for training. On a GPU the model is compiled and its products are computed in bfloat16.

    >>> from howsparse.risk.losses import cross_entropy
    >>> model = nn.Linear(2, 2)
    >>> training_loss(model, cross_entropy).model is model
    True
    """
    loss = as_loss(loss, model)
    if next(model.parameters()).device.type != "cuda":
        return TrainingLoss(model, loss)
    compiled: Any = torch.compile(model, dynamic=False) if _can_compile() else model
    return TrainingLoss(compiled, loss, autocast=True)


@contextmanager
def same_bits(device: torch.device) -> Iterator[None]:
    """Use one fixed algorithm for each convolution on a GPU, so that its results have the same bits every time."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        yield


def _can_compile() -> bool:
    """Whether torch.compile has what it needs on a GPU: triton and a C compiler."""
    return util.find_spec("triton") is not None and any(shutil.which(name) for name in ("cc", "gcc", "clang"))
