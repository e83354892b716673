"""Estimates of the bracket's width after more products, extrapolated from its width after fewer steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from howsparse.progress import duration

__all__ = ["Look", "Outlook", "history", "look_ahead", "outlook_after"]

_FARTHEST = 4.0  # more steps than this times those taken are not estimated
_LEAST_STEPS = 16  # fewer steps show no trend
_LEAST_GAIN = 0.9  # a bracket that would keep this part of its width is not worth more products


@dataclass(frozen=True)
class Look:
    """The width of the bracket after some Lanczos steps.

    Attributes:
        steps: number of steps of each probe.
        width: width of the bracket, in sparsity.
    """

    steps: int
    width: float


@dataclass(frozen=True)
class Outlook:
    """The estimated width after more products. For twice the products, it is usually right within 20 %.

    Attributes:
        products: number of products to take beyond those taken.
        width: estimated width of the bracket then, in sparsity.
        seconds: estimated time of these products; None if it was not measured.

    >>> print(Outlook(120, 0.05, 1200.0))
    about 120 more products (20 minutes) would give a bracket of about 5 points (estimated)
    """

    products: int
    width: float
    seconds: float | None

    def __str__(self) -> str:
        time = "" if self.seconds is None else f" ({duration(self.seconds)})"
        points = f"{100 * self.width:.2g}"
        return f"about {self.products} more products{time} would give a bracket of about {points} points (estimated)"


def history(width_after: Callable[[int], float], steps: int) -> tuple[Look, ...]:
    """The width after numbers of steps that grow by an eighth, up to all steps.

    Args:
        width_after: width of the bracket after a number of steps.
        steps: number of steps that were taken.

    >>> [look.steps for look in history(lambda steps: 1 / steps, 16)]
    [9, 10, 11, 12, 14, 16]
    """
    counts = [steps]
    while counts[-1] >= 10:
        counts.append(min(counts[-1] - 1, round(counts[-1] / 1.125)))
    return tuple(Look(count, width_after(count)) for count in reversed(counts))


def look_ahead(
    width_after: Callable[[int], float], steps: int, fixed: float, wanted: float | None = None
) -> Look | None:
    r"""Estimate how many steps give a bracket of a wanted width.

    The width falls faster than a power of the number of steps and slower than exponentially. The estimate is the
    geometric mean of both, through the widths after m and m/2 steps:
    :math:`w(r m) = w(m)\,(w(m)/w(m/2))^{(\log_2 r + 2r - 2)/2}`.

    Args:
        width_after: width of the bracket after a number of steps, in sparsity; only its part that more steps change.
        steps: number of steps that were taken.
        fixed: width of the bracket that more steps do not change, from the probes and the data.
        wanted: width to reach; by default that after twice the steps. If four times the steps are too few for it, the
            estimate is for four times the steps.

    Returns:
        Number of steps, and the estimated width of the whole bracket after them; None if the steps are too few to show
        a trend, or if the bracket would stay about as wide.

    >>> look_ahead(lambda steps: 12.8 / steps, 64, fixed=0.0)
    Look(steps=128, width=0.07...)
    """
    if steps < _LEAST_STEPS:
        return None
    half, now = width_after(steps // 2), width_after(steps)
    if not 0 < now < half:
        return None
    fall = math.log(now / half) / math.log2(steps / (steps // 2))

    def width(ratio: float) -> float:
        return fixed + now * math.exp(fall * (math.log2(ratio) + 2 * (ratio - 1)) / 2)

    ratios = [2.0] if wanted is None else [1 + i / 16 for i in range(1, round(16 * (_FARTHEST - 1)) + 1)]
    ratio = next((r for r in ratios if wanted is not None and width(r) <= wanted), ratios[-1])
    return Look(round(ratio * steps), width(ratio)) if width(ratio) <= _LEAST_GAIN * (fixed + now) else None


def outlook_after(
    width_after: Callable[[int], float],
    steps: int,
    fixed: float,
    wanted: float | None,
    probes: int,
    seconds_per_product: float | None,
) -> Outlook | None:
    """What more products would give, as `look_ahead` estimates it.

    Args:
        width_after, steps, fixed, wanted: as for `look_ahead`.
        probes: products for each step.
        seconds_per_product: measured time of one product; None if it was not measured.

    >>> outlook_after(lambda steps: 12.8 / steps, 64, 0.0, None, probes=2, seconds_per_product=1.0)
    Outlook(products=128, width=0.07..., seconds=128.0)
    """
    ahead = look_ahead(width_after, steps, fixed, wanted)
    if ahead is None:
        return None
    products = (ahead.steps - steps) * probes
    return Outlook(products, ahead.width, None if seconds_per_product is None else products * seconds_per_product)
