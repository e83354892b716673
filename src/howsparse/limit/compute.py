"""`pruning_limit`: compute how sparse a model can be pruned from the model, a loss and data."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from howsparse.errors import InputError
from howsparse.geometry import Magnitudes
from howsparse.limit.adapting import recovery_bracket, search_recoverable
from howsparse.limit.bracket import Bracket, solve_bracket
from howsparse.limit.budget import basis_room, plan_budget
from howsparse.limit.clock import Clock
from howsparse.limit.layers import layer_costs, layer_sizes
from howsparse.limit.levels import Level, Sampling
from howsparse.limit.moved import curvature_of
from howsparse.limit.options import LimitOptions
from howsparse.limit.predict import predict_checked
from howsparse.limit.prediction import predict_random_losses
from howsparse.limit.result import LIMIT, PruningLimit
from howsparse.limit.samples import Samples, risk_with_samples
from howsparse.limit.tolerance import default_tolerance
from howsparse.linalg import Block, Operator, Remembered, Spectrum, grow_spectrum
from howsparse.progress import Progress, reporting
from howsparse.risk import GGN, EmpiricalRisk, Hessian
from howsparse.risk.alone import alone
from howsparse.risk.guard import guarded
from howsparse.risk.losses import Loss, SplitLoss, cross_entropy
from howsparse.risk.weights import select_weights
from howsparse.store import Store

__all__ = ["options_for_sample", "pruning_limit"]


@alone
@guarded
def pruning_limit(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss = cross_entropy,
    options: LimitOptions | None = None,
    memory: int | None = None,
    keep: Path | None = None,
    progress: Progress | bool | None = None,
    **changes: Any,
) -> PruningLimit:
    """Compute how sparse ``model`` can be pruned before its loss rises by more than a tolerance.

    The model is not changed.

    Args:
        model: any module with linear, convolutional, embedding, attention or recurrent weights.
        batches: training batches, which can be read several times. Each is an ``(input, target)`` pair, unless ``loss``
            reads another form.
        loss: ``loss(model, batch)``, mean over the batch. The GGN needs a `SplitLoss`, for example `cross_entropy`.
        options: what to compute; by default the defaults of `LimitOptions`.
        memory: bytes for stored graphs between products; by default a third of the free memory.
        keep: folder in which each product and the final limit are stored. If a call is stopped, the same call continues
            from the stored products and gives the same bits, if torch has the same number of threads. Each product
            takes as many bytes as the weights.
        progress: called as ``progress(stage, done, total)``; by default bars on stderr in a terminal or a notebook, and
            nothing elsewhere. False: nothing.
        **changes: single options by name; they replace those of ``options``.

    Returns:
        The limit. Its sparsities are fractions of the weights under study. Its prediction has been checked by
        evaluating the predicted mask once. If its bracket is not resolved, its ``sparsity`` is NaN.

    Raises:
        InputError: the model, the data or an option is not valid; see `EmpiricalRisk` and `LimitOptions`.

    Source: Corollary 1 with Eq. 18 and 19.

    >>> import torch
    >>> examples = torch.eye(8).repeat(32, 1), torch.arange(8).repeat(32)
    >>> limit = pruning_limit(nn.Linear(8, 8), [examples], tolerance=0.05)
    >>> limit.bracket[0] < limit.bracket[1], limit.prediction_holds
    (True, True)
    """
    options = _merged(options or LimitOptions(), changes)
    names = select_weights(model, options.names)
    risk, samples = risk_with_samples(model, batches, loss, names, options.population, options.sample)
    with reporting(progress) as report:
        case = _Case(risk, samples, options, memory, report)
        if keep is None:
            return _compute(case, None)
        # The key of the stored limit contains the gradient, because it differs between models, losses and data.
        inputs = {"weights": case.flat, "gradient": case.gradient, "names": risk.names, "lengths": risk.lengths}
        return Store(keep).get(LIMIT, inputs | {"tolerance": case.tolerance}, options, partial(_compute, case))


class _Case:
    """The quantities that several phases of a limit need. Each is computed once."""

    def __init__(
        self, risk: EmpiricalRisk, samples: Samples, options: LimitOptions, memory: int | None, progress: Progress
    ) -> None:
        self.risk, self.samples, self.options, self.memory, self.progress = risk, samples, options, memory, progress
        self.matrix = curvature_of(risk, options.curvature, memory)
        self.tolerance, self.tolerance_error = (
            default_tolerance(risk) if options.tolerance is None else (options.tolerance, 0.0)
        )
        self.gradient = risk.gradient()
        self.flat = risk.flat_weights()
        self.magnitudes = Magnitudes(self.flat.cpu().numpy())
        self.probes = options.probes_of(self.flat.numel())
        self.budget = plan_budget(options.max_products, self.probes, self.sampled)

    @property
    def sampled(self) -> bool:
        """Whether the spectrum is over a sample of the population."""
        return len(self.samples.ends) > 1

    @property
    def population(self) -> int:
        """Number of examples in the population."""
        return max(self.risk.num_examples, self.options.population or 0)

    def bracket(self, spectrum: Spectrum, sampling: Sampling | None = None, *, search: bool = True) -> Bracket:
        """The bracket of the fixed point for ``spectrum``."""
        factor = self.options.filter_factor
        return solve_bracket(spectrum, self.magnitudes, self.tolerance, factor, sampling, search=search)

    def watch(self, stage: str) -> Callable[[int, int], None]:
        """A function that reports the progress of one stage."""
        return partial(self.progress, stage)


def _compute(case: _Case, workspace: Path | None) -> PruningLimit:
    """Compute the phases one after the other: recovery, bracket, other samples, upper bound, prediction."""
    store, samples = Store(workspace), case.samples
    matrices = [samples.matrix(case.matrix, i, store, "curvature") for i in range(len(samples.ends))]
    few, base = matrices[samples.enough], matrices[samples.base]
    recoverable, other = _recoverable(case, few, store)
    clock = Clock(base)
    spectrum, stopped = _resolve(case, base, clock)
    sampling = _sampling(case, matrices, spectrum.num_steps) if case.sampled else None
    errors = case.bracket(spectrum, sampling)
    removed = _removed_spectrum(case, few, errors.middle, spectrum.num_steps)
    losses, rise = predict_checked(case.risk, few, case.flat, case.gradient, case.tolerance, case.watch("prediction"))
    predicted = losses.largest_within(case.tolerance)
    layers = layer_costs(few, case.flat, case.gradient, layer_sizes(case.risk), predicted)
    random_losses = predict_random_losses(few, case.flat, case.gradient, losses, case.options.seed)
    return PruningLimit(
        tolerance=case.tolerance,
        curvature=case.options.curvature,
        negative=case.options.negative,
        names=tuple(case.risk.names),
        errors=errors,
        num_products=samples.products([*enumerate(matrices), *other]),
        stopped=stopped,
        spectrum=spectrum,
        removed_spectrum=removed,
        magnitudes=case.magnitudes,
        losses=losses,
        random_losses=random_losses,
        sampling=sampling,
        rank_bound=case.matrix.rank_bound if isinstance(case.matrix, GGN) else None,
        checked_rise=rise,
        layers=layers,
        seconds_per_product=clock.seconds_per_product,
        recoverable=recoverable,
    )


def _recoverable(case: _Case, few: Remembered, store: Store) -> tuple[tuple[float, float], list[tuple[int, Operator]]]:
    """The bracket of the recoverable sparsity; and its matrix and the sample of this matrix, unless it was ``few``.

    It needs a matrix without negative eigenvalues, so it takes the GGN where the loss has one. It is the first phase,
    so that the GGN's stored graphs are freed before the Hessian's are built.
    """
    risk, samples, other = case.risk, case.samples, list[tuple[int, Operator]]()
    if isinstance(case.matrix, Hessian) and isinstance(risk.loss, SplitLoss):
        other = [(samples.enough, samples.matrix(GGN(risk, case.memory), samples.enough, store, "recovery"))]
    points = search_recoverable(
        other[0][1] if other else few,
        case.flat,
        case.gradient,
        case.flat.abs(),
        case.tolerance,
        case.budget.recovery,
        case.watch("recoverable"),
    )
    return recovery_bracket(points, case.tolerance), other


def _resolve(case: _Case, operator: Operator, clock: Clock) -> tuple[Spectrum, str]:
    """Take Lanczos steps until no more are needed or possible; return the spectrum and the value of ``stopped``."""
    options, planned = case.options, case.budget.bracket
    steps, storage = basis_room(case.flat, planned, case.probes)
    growing = grow_spectrum(operator, case.flat, probes=case.probes, seed=options.seed, storage=storage)
    looks, watch = _looks(steps), case.watch("bracket")
    for spectrum in growing:
        clock.stop()
        watch(spectrum.num_steps, steps)
        if spectrum.complete:
            return spectrum, "exact"
        # The bracket without search costs less and is never wider, so the full search waits until it has settled.
        if spectrum.num_steps in looks and _settled(case.bracket(spectrum, search=False), options.precision):
            settled = _settled(case.bracket(spectrum), options.precision)
            if settled:
                return spectrum, settled
        if spectrum.num_steps == steps:
            break
        clock.start()
    return spectrum, "memory" if steps < planned else "max_products"


def _sampling(case: _Case, matrices: list[Remembered], steps: int) -> Sampling:
    """The spectra of the samples below and above the base, which has taken ``steps`` steps."""
    samples, budget = case.samples, case.budget
    # The base can need fewer steps than planned. What the larger samples show then still depends on their own steps.
    above = list(samples.above(budget.bracket))
    plan = [(0, budget.half_sample if above else budget.half_sample_after(steps)), *above]
    levels = []
    for i, fewer in plan:
        growing = grow_spectrum(matrices[i], case.flat, probes=case.probes, seed=case.options.seed)
        spectrum = _after(fewer, growing, case.watch(f"{samples.examples[i]:,} examples"))
        levels.append(Level(samples.examples[i], spectrum))
    error = case.tolerance_error if case.population > case.risk.num_examples else 0.0
    return Sampling(tuple(levels), samples.examples[samples.base], case.population, error)


def _removed_spectrum(case: _Case, operator: Operator, sparsity: float, steps: int) -> Spectrum:
    """The spectrum of the block of weights that a magnitude mask of this ``sparsity`` removes."""
    count = max(1, round(sparsity * case.flat.numel()))
    threshold = case.flat.abs().kthvalue(count).values
    block = Block(operator, case.flat.abs() <= threshold)
    growing = grow_spectrum(block, case.flat, seed=case.options.seed + 1)
    return _after(case.budget.upper_bound_after(steps), growing, case.watch("upper bound"))


def options_for_sample(
    options: LimitOptions, model: nn.Module, whole: Iterable[Any], loss: Loss, population: int
) -> LimitOptions:
    """Options for a limit over some of the examples, with the default tolerance and the population of all examples.

    Args:
        options: the options of the caller; a given tolerance stays.
        model: the network; it is not changed.
        whole: all batches, which can be read several times.
        loss: ``loss(model, batch)``, mean over the batch.
        population: number of examples in ``whole``.
    """
    tolerance = options.tolerance
    if tolerance is None:
        tolerance = default_tolerance(EmpiricalRisk(model, whole, loss))[0]
    return replace(options, tolerance=tolerance, population=population)


def _merged(options: LimitOptions, changes: dict[str, Any]) -> LimitOptions:
    known = [field.name for field in fields(LimitOptions)]
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise InputError(f"pruning_limit has no option '{unknown[0]}'; it has: {', '.join(known)}")
    return replace(options, **changes)


def _after(steps: int, growing: Iterator[Spectrum], watch: Callable[[int, int], None]) -> Spectrum:
    """The spectrum after ``steps`` steps, or after fewer if it is complete before."""
    for spectrum in growing:
        watch(spectrum.num_steps, steps)
        if spectrum.num_steps == steps:
            break
    return spectrum


def _settled(errors: Bracket, precision: float) -> str | None:
    """The reason to stop: "precision" or "probe"; None if more steps would make the bracket narrower."""
    if errors.width <= precision:
        return "precision"
    return "probe" if errors.quadrature <= errors.probe / 5 else None


def _looks(steps: int) -> set[int]:
    """Step counts at which to solve for the bracket. Each is about an eighth larger than the one before."""
    looks = {steps}
    step = 8
    while step < steps:
        looks.add(step)
        step += max(4, step // 8)
    return looks
