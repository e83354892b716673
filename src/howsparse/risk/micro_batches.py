"""Smaller parts of batches, if a GPU does not have enough memory for whole batches."""

from collections.abc import Callable
from typing import Any

import torch

from howsparse.risk.batches import batch_length, can_split, split_batch

__all__ = ["MicroBatches"]


class MicroBatches:
    """Does work on whole batches. After each `torch.OutOfMemoryError`, the parts have half the size.

    Attributes:
        size: largest number of examples in a part; None as long as every batch has fitted.

    >>> micro = MicroBatches()
    >>> def work(part):
    ...     if len(part) > 3:
    ...         raise torch.OutOfMemoryError
    ...     print(part.tolist())
    >>> micro.each(torch.arange(8), work)
    [0, 1]
    [2, 3]
    [4, 5]
    [6, 7]
    >>> micro.size
    2
    """

    def __init__(self) -> None:
        self.size: int | None = None

    def each(self, batch: Any, work: Callable[[Any], object]) -> None:
        """Do the work on the parts of a batch, in order, each once.

        Args:
            batch: a batch on the device.
            work: changes nothing if it runs out of memory.

        Raises:
            torch.OutOfMemoryError: the memory is not enough for one example, or the batch cannot be split.
        """
        parts = [batch] if self.size is None else split_batch(batch, self.size)
        while parts:
            if self._fits(parts[0], work):
                parts.pop(0)
            else:  # outside of the handler of the error, which holds what fills the memory
                torch.cuda.empty_cache()
                self.size = max(1, batch_length(parts[0]) // 2)
                parts = [smaller for part in parts for smaller in split_batch(part, self.size)]

    @staticmethod
    def _fits(part: Any, work: Callable[[Any], object]) -> bool:
        try:
            work(part)
        except torch.OutOfMemoryError:
            if not can_split(part) or batch_length(part) < 2:
                raise
            return False
        return True
