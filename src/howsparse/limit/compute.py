"""The main job: from a model and its data to how sparse it can be pruned."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.geometry import (
    FilterFactor,
    Magnitudes,
    absolute_filter,
    clipped_filter,
    curvature_scale,
    existence_density,
)
from howsparse.limit.bracket import Bracket, Sampling, solve_bracket
from howsparse.limit.prediction import MAX_PRODUCTS as CERTIFICATE_PRODUCTS
from howsparse.limit.prediction import LossCurve, predict_losses, predict_random_losses
from howsparse.linalg.operators import Block, Operator
from howsparse.linalg.quadrature import Rule
from howsparse.linalg.remembered import Remembered, fingerprint
from howsparse.linalg.spectrum import Spectrum, grow_spectrum
from howsparse.memory import available_memory
from howsparse.risk.curvature import GGN, Hessian, Sample
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.losses import Loss, cross_entropy

__all__ = ["MAX_PRODUCTS", "PruningLimit", "pruning_limit"]

MAX_PRODUCTS = 400  # brackets the paper's FC5 to half a point of sparsity

Curvature = Literal["hessian", "ggn"]
Negative = Literal["wall", "unbounded"]
Progress = Callable[[str, int, int], None]

_FILTERS: dict[Negative, FilterFactor] = {"wall": absolute_filter, "unbounded": clipped_filter}


@dataclass(frozen=True)
class PruningLimit:
    """How sparse a network can be pruned, and on what grounds.

    Attributes:
        tolerance: loss increase allowed, the paper's epsilon.
        curvature: "hessian" or "ggn".
        negative: how negative curvature counts: "wall" (the paper's absolute value) or "unbounded".
        spectrum: of the curvature, as far as it was resolved.
        removed_spectrum: of its block of removed weights, for the upper bound.
        magnitudes: of the weights under study.
        losses: predicted loss increase of magnitude masks, at every sparsity.
        random_losses: the same for random masks, on average.
        num_products: products with the curvature taken in all.
        stopped: why the bracket is as wide as it is: "precision" (it is narrow enough), "probe" (more
            steps would not make it narrower, more probes would), "max_products", "memory" or "exact".
        errors: the bracket, and the half-widths it is made of: quadrature, probe and data.
        sampling: what is known of the error from sampled data; None if the batches are all the data.
        rank_bound: eigenvalues that can be other than zero at most, for the GGN: few examples leave it too few.
    """

    tolerance: float
    curvature: Curvature
    negative: Negative
    spectrum: Spectrum
    removed_spectrum: Spectrum
    magnitudes: Magnitudes
    losses: LossCurve
    random_losses: LossCurve
    num_products: int
    stopped: str
    errors: Bracket
    sampling: Sampling | None = None
    rank_bound: int | None = None

    @property
    def num_weights(self) -> int:
        return self.magnitudes.num_weights

    @property
    def bracket(self) -> tuple[float, float]:
        """Where `sparsity` lies, as far as the work done can tell."""
        return self.errors.low, self.errors.high

    @property
    def sparsity(self) -> float:
        """1 - T at its fixed point, the middle of the bracket: beyond this nothing can be found (Corollary 1)."""
        return sum(self.bracket) / 2

    @property
    def radius(self) -> float:
        """Norm of the weights removed at the limit, the paper's projection distance R."""
        return self.magnitudes.radius(1 - self.sparsity)

    @property
    def scale(self) -> float:
        """Curvature above which a direction counts, 2 tolerance / radius^2; infinite if nothing is removed."""
        return curvature_scale(self.tolerance, self.radius)

    @property
    def effective_dimension(self) -> float:
        """Number of directions in which curvature outweighs the tolerance."""
        return (1 - self.sparsity) * self.num_weights

    @property
    def upper_bound(self) -> float:
        """1 - U at the limit: where the paper says a solution exists (Eq. 19), the middle of its bracket."""
        return sum(self.upper_bracket) / 2

    @property
    def upper_bracket(self) -> tuple[float, float]:
        """Where 1 - U lies at this limit and for this probe, as far as the products with the removed block can tell."""
        scale, density, factor = self.scale, 1 - self.sparsity, _FILTERS[self.negative]

        def existence(rule: Rule) -> float:
            return existence_density(rule.nodes, scale, density, rule.masses, factor)

        low = existence(self.removed_spectrum.lowest())
        high = existence(self.removed_spectrum.highest(lambda x: factor(x, scale)))
        # A block's singular values are at most the whole matrix's, so U is at most 2 T.
        return 1 - min(high, 2 * density), 1 - low

    @property
    def larsen_interval(self) -> tuple[float, float]:
        """What Larsen et al.'s interval leaves open, as sparsities; its upper end is the paper's value."""
        return 2 / math.pi * self.sparsity, self.sparsity

    @property
    def certified(self) -> float:
        """Largest sparsity whose magnitude mask the local model certifies: g'd + 1/2 d'Hd within the tolerance."""
        return self.losses.largest_within(self.tolerance)

    def at(self, *, tolerance: float | None = None, negative: Negative | None = None) -> "PruningLimit":
        """The same spectrum under another tolerance or reading of negative curvature: no new work.

        The upper bound goes on from the block of weights that the first limit removes.
        """
        tolerance = self.tolerance if tolerance is None else tolerance
        negative = self.negative if negative is None else negative
        errors = solve_bracket(self.spectrum, self.magnitudes, tolerance, _FILTERS[negative], self.sampling)
        return replace(self, tolerance=tolerance, negative=negative, errors=errors)


def pruning_limit(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss = cross_entropy,
    curvature: Curvature = "hessian",
    negative: Negative = "wall",
    tolerance: float | None = None,
    weights: Iterable[str] | None = None,
    population: int | None = None,
    precision: float = 0.002,
    max_products: int = MAX_PRODUCTS,
    probes: int = 1,
    seed: int = 0,
    memory: int | None = None,
    keep: Path | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> PruningLimit:
    """Compute how sparse ``model`` can be pruned before its loss rises by more than ``tolerance``.

    The model comes back exactly as it went in.

    Args:
        model: any module with linear, convolutional, embedding, attention or recurrent weights.
        batches: re-iterable training batches, ``(input, target)`` pairs unless ``loss`` reads others.
        loss: ``loss(model, batch)``, mean over the batch; for the GGN split at the output, as `cross_entropy` is.
        curvature: "hessian", or "ggn" for the Gauss-Newton matrix, which has no negative eigenvalues.
        negative: what negative curvature does to the sublevel set: "wall", as much as positive curvature of that
            size (the paper, lambda as its absolute value), or "unbounded", nothing (radius infinite).
        tolerance: loss increase allowed; unless given, the standard deviation of the loss over mini-batches of 128.
        weights: names of the weights under study; all prunable ones that are not frozen unless given.
        population: examples the batches stand for, if they are a sample: the bracket then covers the sample's error,
            which is estimated from its first half for a sixteenth of the work.
        precision: width of the bracket at which to stop.
        max_products: curvature products to spend in all, at least 32; the bracket takes what upper bound (a sixteenth)
            and certificate (at most 12) leave, as far as memory holds its Lanczos vectors.
        probes: random vectors to share them between; one is enough for large networks.
        seed: of the probes.
        memory: bytes of graphs to keep between products; a third of what is free unless given.
        keep: folder to leave each product in until all is done, so that a call that was stopped, made again, goes on
            to the same bits; as many bytes as the weights for each.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        InputError: something about the input, in one line: see `EmpiricalRisk`.

    Source: Corollary 1 with Eq. 18 and 19.

    >>> import torch
    >>> examples = torch.eye(8).repeat(32, 1), torch.arange(8).repeat(32)
    >>> limit = pruning_limit(nn.Linear(8, 8), [examples], tolerance=0.1)
    >>> limit.bracket[0] <= limit.sparsity <= limit.bracket[1]
    True
    """
    if curvature not in ("hessian", "ggn"):
        raise InputError(f"curvature '{curvature}' is neither 'hessian' nor 'ggn'")
    if negative not in _FILTERS:
        raise InputError(f"negative '{negative}' is neither 'wall' nor 'unbounded'")
    if not max_products >= 32 * probes >= 32:
        raise InputError(
            f"max_products {max_products} is too few for {probes} probe(s): take 32 for each, at least one"
        )
    risk = EmpiricalRisk(model, batches, loss, weights)
    matrix = Hessian(risk, memory) if curvature == "hessian" else GGN(risk, memory)
    tolerance, tolerance_error = default_tolerance(risk) if tolerance is None else (tolerance, 0.0)
    curvature_scale(tolerance, 1.0)
    gradient = risk.gradient()
    operator, half = (
        part if keep is None else Remembered(part, keep, fingerprint(f"{curvature} {name}", gradient))
        for name, part in (("whole", matrix), ("half", Sample(matrix, len(risk.lengths) // 2)))
    )
    flat = risk.flat_weights()
    magnitudes, factor = Magnitudes(flat.cpu().numpy()), _FILTERS[negative]

    doublings = math.log2(population / risk.num_examples) if population else 0.0
    sampled = doublings > 0
    if sampled and len(risk.lengths) < 2:
        raise InputError("one batch cannot be halved to see what sampling does; pass smaller batches, or no population")
    steps, upper_steps, half_steps = _plan(max_products, probes, sampled)
    planned, (steps, storage) = steps, _basis_room(flat, steps, probes)
    bracket = partial(solve_bracket, magnitudes=magnitudes, tolerance=tolerance, factor=factor)
    growing = grow_spectrum(operator, flat, probes=probes, seed=seed, storage=storage)
    spectrum, stopped = _grow_until(precision, steps, growing, bracket, partial(progress, "bracket"))
    if stopped == "max_products" and steps < planned:
        stopped = "memory"
    sampling = None
    if sampled:
        watch, few = partial(progress, "half the data"), min(half_steps, max(6, spectrum.num_steps // 5))
        half_spectrum = _spectrum_after(few, grow_spectrum(half, flat, probes=probes, seed=seed), watch)
        sampling = Sampling(half_spectrum, doublings, tolerance_error)
    errors = bracket(spectrum, sampling=sampling)
    middle = (errors.low + errors.high) / 2
    block = _removed_block(operator, flat, middle)
    upper_steps = min(upper_steps, max(6, spectrum.num_steps // 10))
    removed = _spectrum_after(upper_steps, grow_spectrum(block, flat, seed=seed + 1), partial(progress, "upper bound"))
    losses = predict_losses(operator, flat, gradient, tolerance, on_product=partial(progress, "certificate"))
    random_losses = predict_random_losses(operator, flat, gradient, losses, seed)
    for part in (operator, half):
        if isinstance(part, Remembered):
            part.forget()
    return PruningLimit(
        tolerance=tolerance,
        curvature=curvature,
        negative=negative,
        spectrum=spectrum,
        removed_spectrum=removed,
        magnitudes=magnitudes,
        losses=losses,
        random_losses=random_losses,
        num_products=operator.num_products + (half.num_products + 1) // 2,
        stopped=stopped,
        errors=errors,
        sampling=sampling,
        rank_bound=matrix.rank_bound if isinstance(matrix, GGN) else None,
    )


def _plan(max_products: int, probes: int, sampled: bool) -> tuple[int, int, int]:
    """Lanczos steps for the bracket, the upper bound and the half sample at most; each looks for zero rows first."""
    upper = max_products // 16
    half = max_products // 8 // probes if sampled else 0  # half the data: half the price
    left = max_products - (CERTIFICATE_PRODUCTS + 1) - (upper + 1) - (half * probes + 2) // 2 * sampled - 1
    return left // probes, upper, half


def _basis_room(flat: Tensor, steps: int, probes: int) -> tuple[int, torch.dtype]:
    """How many of the Lanczos steps memory has room for, and the dtype to keep their vectors in.

    That is the weights' own dtype if a third of the memory holds all of them so; else half precision, in two thirds.

    Raises:
        InputError: not even eight steps fit.
    """
    room, step = available_memory(flat.device), probes * flat.numel()
    if steps * step * flat.element_size() <= room / 3:
        return steps, flat.dtype
    most = int(2 * room / 3 / (2 * step))
    if most < 8:
        raise InputError(
            f"{room / 2**30:.1f} GiB of free memory hold {most} Lanczos steps of {flat.numel():,} weights and"
            f" {probes} probe(s); free some, or take fewer probes"
        )
    return min(steps, most), torch.bfloat16


def default_tolerance(risk: EmpiricalRisk) -> tuple[float, float]:
    """Standard deviation of the loss over mini-batches of 128, as in the paper's experiments, and its relative error.

    Raises:
        InputError: the data make fewer than two mini-batches, or all losses are the same.
    """
    losses = risk.batch_losses(128)
    if len(losses) < 2:
        raise InputError("the data make one mini-batch of 128, too few for a tolerance; give one, or more data")
    deviation = float(losses.std())
    if not deviation > 0:
        raise InputError("the loss is the same on every mini-batch, which leaves no tolerance; give one")
    return deviation, 1 / math.sqrt(2 * (len(losses) - 1))


def _removed_block(operator: Operator, flat: Tensor, sparsity: float) -> Block:
    """The block of the smallest weights, those that are removed at ``sparsity``."""
    count = max(1, round(sparsity * flat.numel()))
    threshold = flat.abs().kthvalue(count).values
    return Block(operator, flat.abs() <= threshold)


def _spectrum_after(steps: int, growing: Iterator[Spectrum], watch: Callable[[int, int], None]) -> Spectrum:
    """The spectrum after so many steps, or fewer if it is exhausted before."""
    for spectrum in growing:
        watch(spectrum.num_steps, steps)
        if spectrum.num_steps == steps:
            break
    return spectrum


def _grow_until(
    precision: float,
    steps: int,
    growing: Iterator[Spectrum],
    bracket: Callable[..., Bracket],
    watch: Callable[[int, int], None],
) -> tuple[Spectrum, str]:
    """The spectrum once its bracket is settled, exhausted, or so many steps old, and which of these it was."""
    looks = _looks(steps)
    for spectrum in growing:
        watch(spectrum.num_steps, steps)
        if spectrum.complete:
            return spectrum, "exact"
        if spectrum.num_steps in looks and _settled(bracket(spectrum, search=False), precision):
            settled = _settled(bracket(spectrum), precision)
            if settled:
                return spectrum, settled
        if spectrum.num_steps == steps:
            break
    return spectrum, "max_products"


def _settled(errors: Bracket, precision: float) -> str | None:
    """Why more steps are not needed, or of no use."""
    if errors.width <= precision:
        return "precision"
    return "probe" if errors.quadrature <= errors.probe / 5 else None


def _looks(steps: int) -> set[int]:
    """Step counts at which to solve for the bracket: each about an eighth more than the one before."""
    looks = {steps}
    step = 8
    while step < steps:
        looks.add(step)
        step += max(4, step // 8)
    return looks
