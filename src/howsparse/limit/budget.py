"""How the products of a limit are divided between its parts, and how many Lanczos vectors fit into memory."""

from dataclasses import dataclass

import torch
from torch import Tensor

from howsparse.errors import InputError
from howsparse.limit.prediction import MAX_PRODUCTS as PREDICTION_PRODUCTS
from howsparse.memory import available_memory

__all__ = ["Budget", "basis_room", "plan_budget"]

# _PART: one product in this many is reserved. _STEPS: the part takes one step for this many steps of the bracket.
_UPPER_BOUND_PART, _UPPER_BOUND_STEPS = 16, 10
_HALF_SAMPLE_PART, _HALF_SAMPLE_STEPS = 8, 5
_RECOVERY_PART = 6
_LEAST_STEPS = 6
_ZERO_ROWS = 1  # products per spectrum that find the rows that are exactly zero
_RANDOM_MASKS = 1  # products for the prediction of random masks
_LAYERS = 2  # products for the costs of the layers


@dataclass(frozen=True)
class Budget:
    """Largest numbers of Lanczos steps.

    Attributes:
        bracket: steps of each probe, over all data.
        upper_bound: steps on the block of removed weights.
        half_sample: steps of each probe, over a sample that is smaller than that of the bracket.
        recovery: products for the recoverable sparsity.
    """

    bracket: int
    upper_bound: int
    half_sample: int
    recovery: int

    def upper_bound_after(self, steps: int) -> int:
        """Steps for the upper bound if the bracket has taken ``steps``."""
        return min(self.upper_bound, max(_LEAST_STEPS, steps // _UPPER_BOUND_STEPS))

    def half_sample_after(self, steps: int) -> int:
        """Steps over the smaller sample if the bracket has taken ``steps``."""
        return min(self.half_sample, max(_LEAST_STEPS, steps // _HALF_SAMPLE_STEPS))


def plan_budget(max_products: int, probes: int, sampled: bool) -> Budget:
    """Divide ``max_products`` between bracket, upper bound, half sample, recovery and prediction.

    A sixth is for the recoverable sparsity.

    Args:
        max_products: largest number of products over all data.
        probes: number of probes; the bracket's products are divided between them.
        sampled: whether the spectrum is also computed over a smaller sample, of at most half of the examples; two such
            products cost at most as much as one.

    >>> plan_budget(400, 1, sampled=False)
    Budget(bracket=293, upper_bound=25, half_sample=0, recovery=66)
    """
    upper = max_products // _UPPER_BOUND_PART
    half = max_products // _HALF_SAMPLE_PART // probes if sampled else 0
    recovery = max_products // _RECOVERY_PART
    left = max_products - (PREDICTION_PRODUCTS + _RANDOM_MASKS + _LAYERS) - (upper + _ZERO_ROWS) - _ZERO_ROWS
    left -= recovery
    if sampled:
        left -= (half * probes + 2 * _ZERO_ROWS) // 2
    return Budget(left // probes, upper, half, recovery)


def basis_room(flat: Tensor, steps: int, probes: int) -> tuple[int, torch.dtype]:
    """Choose how many Lanczos steps to take and the dtype of their stored vectors.

    If the vectors of all steps fit into a third of the free memory, they are stored in the dtype of the weights.
    Otherwise they are stored in bfloat16, and the number of steps is what fits into two thirds of the free memory.

    Args:
        flat: the weights under study, ``(n,)``.
        steps: planned number of steps of each probe.
        probes: number of probes.

    Returns:
        Number of steps of each probe, and the dtype.

    Raises:
        InputError: fewer than eight steps fit.
    """
    room, numbers = available_memory(flat.device), probes * flat.numel()
    if steps * numbers * flat.element_size() <= room / 3:
        return steps, flat.dtype
    most = int(2 * room / 3 / (2 * numbers))
    if most < 8:
        raise InputError(
            f"{room / 2**30:.1f} GiB of free memory hold {most} Lanczos steps of {flat.numel():,} weights and"
            f" {probes} probe(s), but 8 are needed; free some memory, or use fewer probes"
        )
    return min(steps, most), torch.bfloat16
