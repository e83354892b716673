"""The forward pass of a training step, as fast as its device gives."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import util

import torch
from torch import Tensor, nn

__all__ = ["fast_forward", "in_bfloat16", "same_bits"]

Forward = Callable[[Tensor], Tensor]


def fast_forward(model: nn.Module) -> Forward:
    """What to call in place of ``model``: itself on a CPU; on a GPU it is compiled and multiplies in bfloat16.

    Its parameters, their gradients and its output stay float32.
    """
    if next(model.parameters()).device.type != "cuda":
        return model
    return in_bfloat16(torch.compile(model, dynamic=False) if _can_compile() else model, "cuda")


def in_bfloat16(forward: Forward, device_type: str) -> Forward:
    """``forward`` under autocast, with a float32 output."""

    def lighter(inputs: Tensor) -> Tensor:
        with torch.autocast(device_type, torch.bfloat16):
            return forward(inputs).float()

    return lighter


@contextmanager
def same_bits(device: torch.device) -> Iterator[None]:
    """Within, a GPU's convolutions give the same bits again: one algorithm each, not the fastest of a race."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        yield


def _can_compile() -> bool:
    """Whether there is what torch.compile needs on a GPU; without it, a network runs uncompiled."""
    return util.find_spec("triton") is not None and any(shutil.which(name) for name in ("cc", "gcc", "clang"))
