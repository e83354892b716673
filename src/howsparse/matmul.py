"""Float32 matrix products on a CPU with oneDNN instead of MKL, which is faster on some processors."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

__all__ = ["fast_matmul"]


@contextmanager
def fast_matmul(device: torch.device) -> Iterator[None]:
    """Use oneDNN for matrix products inside the context, if its products are as exact as those of MKL.

    On AMD processors, oneDNN is 2 times faster (docs/product.md). torch uses oneDNN for float32 products only if
    rounding of the factors to bfloat16 is allowed. Some processors then do round, namely those with tile instructions.
    The first call tests whether this processor rounds. If it does, the context changes nothing.

    The setting applies to the whole process. Other threads then also use oneDNN: their products are as exact, but their
    last bits may differ. The setting is restored at the end of the context, also after an exception. If two threads use
    the context at the same time, and the first to enter leaves first, the setting may stay on.

    Args:
        device: device of the products; the context changes nothing if it is not a CPU.

    >>> with fast_matmul(torch.device("cpu")):
    ...     float(torch.ones(1, 3) @ torch.ones(3, 1))
    3.0
    """
    if device.type != "cpu" or not _onednn_is_exact():
        yield
        return
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


@cache
def _onednn_is_exact() -> bool:
    """Whether products are exact although rounding is allowed. False for torch before 2.9, without this setting."""
    settings = getattr(torch.backends.mkldnn, "matmul", None)
    if settings is None or not torch.backends.mkldnn.is_available():
        return False
    factor = torch.sin(torch.arange(256.0 * 256)).view(256, 256)
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        product = factor @ factor
    finally:
        settings.fp32_precision = before
    exact = factor.double() @ factor.double()
    return bool((product - exact).norm() < 1e-5 * exact.norm())
