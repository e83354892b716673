"""Sampled Hessian rows. The paper uses them to estimate how many eigenvalues are zero."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from howsparse.linalg.operators import Operator

__all__ = ["RowSample", "sample_rows"]


@dataclass(frozen=True)
class RowSample:
    """l1 norms of sampled rows, in order of the weights' magnitudes.

    Attributes:
        percentiles: ``(count,)``, percentile of each sampled weight's magnitude, in [0, 100].
        norms: ``(count,)``, l1 norm of each weight's row.

    >>> RowSample(np.array([25.0, 75.0]), np.array([0.0, 3.0])).zero_share()
    0.5
    """

    percentiles: NDArray[np.float64]
    norms: NDArray[np.float64]

    def zero_share(self, below: float = 1e-7) -> float:
        """Fraction of rows with a norm below ``below``. By Gershgorin's theorem, a zero row gives a zero eigenvalue.

        Args:
            below: norms below this count as zero, in loss per squared weight.

        Returns:
            A fraction in [0, 1].
        """
        return float(np.mean(self.norms < below))


def sample_rows(
    operator: Operator, weights: Tensor, count: int = 100, on_row: Callable[[], None] = lambda: None
) -> RowSample:
    """Compute the rows of ``count`` weights at equally spaced percentiles of magnitude, with one product for each.

    Args:
        operator: the Hessian, ``(n, n)``.
        weights: the weights under study, ``(n,)``.
        count: number of rows to sample.
        on_row: called after each row, for progress.

    Returns:
        The percentiles and the l1 norms of the rows.

    Source: Section 4 and Appendix B, "Hessian matrix sampling".

    >>> class Diagonal(Operator):
    ...     shape, dtype, device, num_products = (2, 2), torch.float64, torch.device("cpu"), 0
    ...     def _matvec(self, vector): return torch.tensor([0.0, 3.0], dtype=torch.float64) * vector
    >>> sample_rows(Diagonal(), torch.tensor([0.1, 0.2], dtype=torch.float64), count=2).norms
    array([0., 3.])
    """
    order = weights.abs().argsort(stable=True)
    percentiles = (np.arange(count) + 0.5) * 100 / count
    norms = []
    for percentile in percentiles:
        unit = torch.zeros_like(weights)
        unit[order[int(percentile / 100 * len(order))]] = 1
        norms.append(float((operator @ unit).abs().sum(dtype=torch.float64)))
        on_row()
    return RowSample(percentiles, np.array(norms))
