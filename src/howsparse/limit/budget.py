"""How the products of a limit are divided between its parts, and how many Lanczos vectors memory holds."""

from dataclasses import dataclass

import torch
from torch import Tensor

from howsparse.errors import InputError
from howsparse.limit.prediction import MAX_PRODUCTS as PREDICTION_PRODUCTS
from howsparse.memory import available_memory

__all__ = ["Budget", "basis_room", "plan_budget"]

# One product in so many goes to a part, and a part takes one step for so many of the bracket's.
_UPPER_BOUND_PART, _UPPER_BOUND_STEPS = 16, 10
_HALF_SAMPLE_PART, _HALF_SAMPLE_STEPS = 8, 5
_LEAST_STEPS = 6
_ZERO_ROWS = 1  # every spectrum begins with one product that finds the rows that are exactly zero
_RANDOM_MASKS = 1  # the prediction for random masks


@dataclass(frozen=True)
class Budget:
    """Lanczos steps of each spectrum, at most.

    Attributes:
        bracket: of each probe, over all the data.
        upper_bound: on the block of removed weights.
        half_sample: of each probe, over the first half of the data.
    """

    bracket: int
    upper_bound: int
    half_sample: int

    def upper_bound_after(self, steps: int) -> int:
        """Steps for the upper bound once the bracket has taken ``steps``."""
        return min(self.upper_bound, max(_LEAST_STEPS, steps // _UPPER_BOUND_STEPS))

    def half_sample_after(self, steps: int) -> int:
        """Steps over half the data once the bracket has taken ``steps``."""
        return min(self.half_sample, max(_LEAST_STEPS, steps // _HALF_SAMPLE_STEPS))


def plan_budget(max_products: int, probes: int, sampled: bool) -> Budget:
    """Divide ``max_products`` between bracket, upper bound, half sample and prediction.

    Args:
        max_products: in all.
        probes: that share the bracket's.
        sampled: whether the spectrum is also computed over half of the data, whose products count half.

    >>> plan_budget(400, 1, sampled=False)
    Budget(bracket=361, upper_bound=25, half_sample=0)
    """
    upper = max_products // _UPPER_BOUND_PART
    half = max_products // _HALF_SAMPLE_PART // probes if sampled else 0
    left = max_products - (PREDICTION_PRODUCTS + _RANDOM_MASKS) - (upper + _ZERO_ROWS) - _ZERO_ROWS
    if sampled:
        left -= (half * probes + 2 * _ZERO_ROWS) // 2
    return Budget(left // probes, upper, half)


def basis_room(flat: Tensor, steps: int, probes: int) -> tuple[int, torch.dtype]:
    """How many Lanczos steps memory has room for, and the dtype to keep their vectors in.

    The dtype is the weights' own if all steps fit into a third of the free memory so; else half precision, and as many
    steps as fit into two thirds.

    Args:
        flat: the weights under study, ``(n,)``.
        steps: of each probe, as planned.
        probes: number of probes.

    Raises:
        InputError: not even eight steps fit.
    """
    room, numbers = available_memory(flat.device), probes * flat.numel()
    if steps * numbers * flat.element_size() <= room / 3:
        return steps, flat.dtype
    most = int(2 * room / 3 / (2 * numbers))
    if most < 8:
        raise InputError(
            f"{room / 2**30:.1f} GiB of free memory hold {most} Lanczos steps of {flat.numel():,} weights and"
            f" {probes} probe(s); free some, or take fewer probes"
        )
    return min(steps, most), torch.bfloat16
