"""Float32 matrix products on a CPU, by the faster of the two libraries that torch carries."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

__all__ = ["fast_matmul"]


@contextmanager
def fast_matmul(device: torch.device) -> Iterator[None]:
    """oneDNN's matrix products in place of MKL's within, where they are as exact.

    The setting belongs to torch and to the whole process, not to a thread. It is put back on the way out, also after an
    exception. While it is on, float32 products of other threads are oneDNN's too: as exact, with other last bits. Two
    threads that are within at the same time may leave it on, if the one that entered first leaves first.

    On processors by AMD they take half the time (docs/product.md). torch hands float32 products to oneDNN only if it
    may round their factors to bfloat16. Whether it then does depends on the processor (on those with tile instructions
    it does), so that is tried first, once; where it does, nothing changes.

    Args:
        device: where the products are computed; nothing changes for any but a CPU.

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
    """Whether a product that may be rounded is not; False where torch cannot be asked to (before 2.9)."""
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
