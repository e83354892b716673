"""`predict`: how sparse a model can be pruned, predicted from at most 11 products and checked by one evaluation."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.geometry.spectra import check_tolerance
from howsparse.limit.moved import curvature_of
from howsparse.limit.options import Curvature, check_curvature
from howsparse.limit.prediction import LossCurve, predict_losses
from howsparse.limit.tolerance import default_tolerance
from howsparse.linalg import Operator
from howsparse.progress import Progress, reporting
from howsparse.pruning.masks import Mask, check_sparsity, largest, largest_mask
from howsparse.risk import GGN, EmpiricalRisk
from howsparse.risk.alone import alone
from howsparse.risk.guard import guarded
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.risk.weights import select_weights
from howsparse.shown import Card, Shown

__all__ = ["HOLDS_WITHIN", "Prediction", "failure", "num_kept", "predict", "predict_checked", "rise_holds", "verdict"]

# The predicted mask should raise the loss by one tolerance. The local model is exact for small changes only, and the
# loss rises steeply where it reaches the tolerance. On networks where the model is good, the rise is below two.
HOLDS_WITHIN = 2.0


@dataclass(frozen=True, eq=False)
class Prediction(Shown):
    """The predicted sparsity for magnitude pruning, and the measured loss increase of its mask.

    Attributes:
        tolerance: allowed loss increase.
        checked_rise: measured loss increase of the mask at `sparsity`, on the same batches.
        num_products: number of curvature products.
        curvature: "hessian" or "ggn".
        names: names of the weights under study.
        num_weights: number of weights under study.
        losses: predicted loss increase of magnitude masks at every sparsity.

    >>> import torch
    >>> data = [(torch.eye(8).repeat(32, 1), torch.arange(8).repeat(32))]
    >>> found = predict(nn.Linear(8, 8), data, tolerance=0.05)
    >>> 0 <= found.sparsity <= 1, found.num_weights
    (True, 64)
    """

    tolerance: float
    checked_rise: float
    num_products: int
    curvature: Curvature
    names: tuple[str, ...] = field(repr=False)
    num_weights: int
    losses: LossCurve = field(repr=False)

    @property
    def sparsity(self) -> float:
        """Largest sparsity whose magnitude mask has a predicted loss increase of at most the tolerance."""
        return self.losses.largest_within(self.tolerance)

    @property
    def holds(self) -> bool:
        """Whether the mask at `sparsity` raises the measured loss by at most two tolerances."""
        return rise_holds(self.checked_rise, self.tolerance)

    def mask(self, model: nn.Module, sparsity: float | None = None) -> Mask:
        """The magnitude mask over the weights under study; other weights are not pruned.

        Args:
            model: the model for which the prediction was made.
            sparsity: fraction of these weights to remove, in [0, 1]; by default the predicted one. One weight stays.

        Returns:
            The mask, with True for each weight that stays.

        Raises:
            InputError: no sparsity is given and the prediction failed; the sparsity is outside [0, 1], or the model
                does not have these weights.
        """
        if sparsity is None:
            if not self.holds:
                raise InputError(failure(self.checked_rise, self.tolerance))
            sparsity = self.sparsity
        return largest_mask(model, num_kept(sparsity, self.num_weights), self.names)

    def card(self) -> Card:
        """The prediction as a small table.

        Returns:
            The table. It prints as text, and a notebook shows it as HTML.
        """
        rows = (
            ("predicted", f"{100 * self.sparsity:.1f} %, {verdict(self.checked_rise, self.tolerance)}"),
            ("tolerance", f"{self.tolerance:.4g}"),
            ("weights", f"{self.num_weights:,}"),
            ("products", str(self.num_products)),
        )
        return Card("Prediction", rows)


@alone
@guarded
def predict(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    tolerance: float | None = None,
    loss: Loss = cross_entropy,
    curvature: Curvature | None = None,
    names: Iterable[str] | None = None,
    memory: int | None = None,
    progress: Progress | bool | None = None,
) -> Prediction:
    """Predict how sparse ``model`` can be pruned by magnitude, and check the prediction by evaluating its mask once.

    This is the cheap part of `pruning_limit`: the gradient and at most 11 products. The model is not changed.

    Args:
        model: any module with linear, convolutional, embedding, attention or recurrent weights.
        batches: training batches, which can be read several times.
        tolerance: allowed loss increase; by default `default_tolerance`.
        loss: ``loss(model, batch)``, mean over the batch.
        curvature: "hessian" or "ggn"; by default the GGN if the loss is a `SplitLoss`, which costs less, else the
            Hessian.
        names: names of the weights under study; by default all prunable weights that are not frozen.
        memory: bytes for stored graphs between products; by default a third of the free memory.
        progress: as for `pruning_limit`.

    Returns:
        The prediction; its ``holds`` says whether the check confirmed it.

    Raises:
        InputError: the model, the data or an option is not valid; see `EmpiricalRisk`.

    >>> import torch
    >>> examples = torch.eye(8).repeat(32, 1), torch.arange(8).repeat(32)
    >>> prediction = predict(nn.Linear(8, 8), [examples], tolerance=0.05)
    >>> prediction.holds, prediction.num_products <= 11
    (True, True)
    """
    check_tolerance(tolerance)
    if curvature is not None:
        check_curvature(curvature)
    risk = EmpiricalRisk(model, batches, loss, select_weights(model, names))
    matrix = curvature_of(risk, curvature, memory)
    kind: Curvature = "ggn" if isinstance(matrix, GGN) else "hessian"
    allowed = default_tolerance(risk)[0] if tolerance is None else tolerance
    weights = risk.flat_weights()
    with reporting(progress) as report:
        losses, rise = predict_checked(risk, matrix, weights, risk.gradient(), allowed, partial(report, "prediction"))
    return Prediction(allowed, rise, matrix.num_products, kind, tuple(risk.names), weights.numel(), losses)


def predict_checked(
    risk: EmpiricalRisk,
    operator: Operator,
    weights: Tensor,
    gradient: Tensor,
    tolerance: float,
    on_product: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[LossCurve, float]:
    """The predicted curve of magnitude masks, and the measured loss increase of the mask that it recommends.

    Args:
        risk: the empirical risk; its model is not changed.
        operator: Hessian or GGN of the risk, ``(n, n)``.
        weights: the weights under study, ``(n,)``.
        gradient: gradient of the risk, ``(n,)``.
        tolerance: allowed loss increase.
        on_product: called with the number of products taken and their largest number.

    Returns:
        The curve, and the loss of the masked network minus that of the dense network.
    """
    losses = predict_losses(operator, weights, gradient, tolerance, on_product=on_product)
    kept = largest(weights.abs(), num_kept(losses.largest_within(tolerance), weights.numel()))
    return losses, risk.value(weights * kept) - risk.value()


def rise_holds(rise: float, tolerance: float) -> bool:
    """Whether a measured loss increase confirms the prediction. An infinite or NaN loss does not.

    >>> rise_holds(0.015, 0.01), rise_holds(0.058, 0.01)
    (True, False)
    """
    return rise <= HOLDS_WITHIN * tolerance


def failure(rise: float, tolerance: float) -> str:
    """One line that says why a prediction failed, and what to do.

    >>> failure(0.058, 0.01)
    'the prediction failed: its mask raises the loss by 5.8 tolerances; use howsparse.measure(...)'
    """
    return f"the prediction failed: {_raises(rise, tolerance)}; use howsparse.measure(...)"


def verdict(rise: float | None, tolerance: float, above_limit: bool | None = None) -> str:
    """Whether a prediction held when it was checked, in words.

    Args:
        rise: measured loss increase of the predicted mask; None if it was not checked.
        tolerance: allowed loss increase.
        above_limit: whether it is above the limit.

    >>> verdict(0.011, 0.01), verdict(None, 0.01)
    ('held: its mask raises the loss by 1.1 tolerances', 'not checked')
    """
    above = ", above the limit" if above_limit else ""
    if rise is None:
        return f"not checked{above}"
    return f"{'held' if rise_holds(rise, tolerance) else 'FAILED'}: {_raises(rise, tolerance)}{above}"


def _raises(rise: float, tolerance: float) -> str:
    """The change of the loss by the mask, in tolerances."""
    if rise < 0:
        return f"its mask lowers the loss by {-rise / tolerance:.1f} tolerances"
    return f"its mask raises the loss by {rise / tolerance:.1f} tolerances"


def num_kept(sparsity: float, num_weights: int) -> int:
    """Number of weights that stay at a sparsity in [0, 1]; at least one.

    Raises:
        InputError: the sparsity is outside [0, 1].

    >>> num_kept(0.75, 100), num_kept(1.0, 100)
    (25, 1)
    """
    return 1 if sparsity == 1 else max(1, round((1 - check_sparsity(sparsity)) * num_weights))
