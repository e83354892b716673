r"""`recoverable`: how sparse a model can be pruned if the kept weights adapt afterwards, predicted without training.

A mask removes weights: a step :math:`d = -w` on them. The kept weights K then move by x. The local model of the loss is

.. math:: q(x) = g'd + \tfrac12 d'Gd + r'x + \tfrac12 x'G_{KK}x, \qquad r = (g + Gd)_K,

with the gradient g and the Gauss-Newton matrix G. Retraining is assumed to reach the least q with
:math:`\lVert x\rVert \le \lVert d\rVert`: the kept weights together move at most as far as the removed ones did.
docs/theory.md has the proofs, and docs/recovery.md compares this with retraining.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from howsparse.errors import InputError
from howsparse.files import load_document, save_document
from howsparse.geometry.spectra import check_tolerance
from howsparse.limit.adapting import Recovery, adapting, follow, recovery_bracket, search_recoverable
from howsparse.limit.moved import curvature_of
from howsparse.limit.options import Curvature, check_curvature
from howsparse.limit.tolerance import default_tolerance
from howsparse.progress import Progress, reporting
from howsparse.pruning.masks import Mask
from howsparse.pruning.orders import Order, OrderFunction, rank
from howsparse.risk import GGN, EmpiricalRisk
from howsparse.risk.alone import alone
from howsparse.risk.guard import guarded
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.risk.weights import prunable_weights
from howsparse.shown import Card, Shown

__all__ = ["Recoverable", "Recovery", "recoverable", "recovered_loss"]

_VERSION = 1
_KNOWN = 0.01  # the loss of one mask is known when its bounds differ by this fraction of what adapting gains


@dataclass(frozen=True, eq=False)
class Recoverable(Shown):
    """How sparse a network is predicted to be prunable if the kept weights adapt afterwards.

    Attributes:
        tolerance: allowed loss increase.
        points: the masks that were examined, in order of sparsity.
        num_products: number of curvature products.
        curvature: "ggn", or "hessian" if the loss is not a `SplitLoss`.
        order: name of the order in which weights are removed.
        num_weights: number of weights under study.

    >>> points = Recovery(0.5, 1.0, 0.0, 0.1, 3), Recovery(0.9, 5.0, 0.3, 0.4, 9)
    >>> Recoverable(0.2, points, num_products=12, curvature="ggn", order="magnitude", num_weights=1000).bracket
    (0.5, 0.9)
    """

    tolerance: float
    points: tuple[Recovery, ...] = field(repr=False)
    num_products: int
    curvature: Curvature
    order: str
    num_weights: int

    @property
    def bracket(self) -> tuple[float, float]:
        """Two sparsities. Between them, the loss after adapting reaches the tolerance, according to the local model."""
        return recovery_bracket(self.points, self.tolerance)

    def card(self) -> Card:
        """The bracket as a small table.

        Returns:
            The table. It prints as text, and a notebook shows it as HTML.
        """
        low, high = self.bracket
        rows = (
            ("recoverable", f"{100 * low:.1f} % to {100 * high:.1f} % (predicted)"),
            ("tolerance", f"{self.tolerance:.4g}"),
            ("order", self.order),
            ("weights", f"{self.num_weights:,}"),
            ("products", str(self.num_products)),
        )
        return Card("After the kept weights adapt", rows)

    def save(self, path: str | Path) -> None:
        """Write the points to one safetensors file with a JSON header. An interrupted call leaves no partial file.

        Args:
            path: path of the file; an existing file is replaced.
        """
        save_document(path, "recoverable", _VERSION, asdict(self), {})

    @classmethod
    def load(cls, path: str | Path) -> "Recoverable":
        """Read a file that `save` wrote.

        Args:
            path: path of the file that `save` wrote.

        Returns:
            The answer that was saved.

        Raises:
            InputError: the file does not exist, has other contents, or is damaged.
        """
        fields, _ = load_document(path, "recoverable", _VERSION)
        return cls(**fields | {"points": tuple(Recovery(**point) for point in fields["points"])})


@alone
@guarded
def recoverable(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    tolerance: float | None = None,
    order: str | Order | OrderFunction = "magnitude",
    loss: Loss = cross_entropy,
    curvature: Curvature | None = None,
    names: Iterable[str] | None = None,
    max_products: int = 200,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress | bool | None = None,
) -> Recoverable:
    """Predict how sparse ``model`` can be pruned if the kept weights adapt afterwards. Nothing is trained.

    Masks of the order are examined one after the other, each only until its bounds show whether it recovers. The model
    is not changed.

    Args:
        model: any module with linear, convolutional, embedding, attention or recurrent weights.
        batches: training batches, which can be read several times.
        tolerance: allowed loss increase; by default `default_tolerance`.
        order: which weights are removed first: a name in `howsparse.pruning.orders.ORDERS`, an `Order`, or a function.
        loss: ``loss(model, batch)``, mean over the batch.
        curvature: "ggn" or "hessian"; by default the GGN if the loss is a `SplitLoss`, else the Hessian. The Hessian
            may have negative eigenvalues, so the bracket then ends at 1.
        names: names of the weights under study; by default all prunable weights that are not frozen.
        max_products: largest number of curvature products, at least 2.
        seed: seed of an order that draws at random.
        memory: bytes for stored graphs between products; by default a third of the free memory.
        progress: as for `pruning_limit`.

    Returns:
        The bracket of the recoverable sparsity, with the masks that were examined.

    Raises:
        InputError: the model, the data or an option is not valid; see `EmpiricalRisk`.

    Source: not in the paper; docs/theory.md, "Recoverable".

    >>> import torch
    >>> examples = torch.eye(8).repeat(32, 1), torch.arange(8).repeat(32)
    >>> found = recoverable(nn.Linear(8, 8), [examples], tolerance=0.05)
    >>> found.bracket[0] < found.bracket[1], found.num_products <= 200
    (True, True)
    """
    check_tolerance(tolerance)
    if curvature is not None:
        check_curvature(curvature)
    if max_products < 2:
        raise InputError(f"max_products {max_products} is too few to examine a mask; use at least 2")
    ranked = rank(model, order, batches, loss=loss, names=names, seed=seed)
    risk = EmpiricalRisk(model, batches, loss, list(ranked.scores))
    matrix = curvature_of(risk, curvature, memory)
    allowed = default_tolerance(risk)[0] if tolerance is None else tolerance
    scores = risk.flatten([ranked.scores[name].to(risk.device) for name in risk.names])
    with reporting(progress) as report:
        points = search_recoverable(
            matrix, risk.flat_weights(), risk.gradient(), scores, allowed, max_products, partial(report, "recoverable")
        )
    kind: Curvature = "ggn" if isinstance(matrix, GGN) else "hessian"
    return Recoverable(allowed, points, matrix.num_products, kind, ranked.name, risk.num_weights)


@alone
@guarded
def recovered_loss(
    model: nn.Module,
    mask: Mask,
    batches: Iterable[Any],
    *,
    loss: Loss = cross_entropy,
    curvature: Curvature | None = None,
    max_products: int = 200,
    memory: int | None = None,
    progress: Progress | bool | None = None,
) -> Recovery:
    """Predict the loss increase of one mask after the kept weights have adapted. Nothing is trained.

    Products are taken until the bounds differ by at most 1 % of the gain from adapting. The model is not changed.

    Args:
        model: any module.
        mask: any mask over its prunable weights; only weights of the mask's tensors move.
        batches, loss, curvature, memory, progress: as for `recoverable`.
        max_products: largest number of curvature products, at least 2.

    Returns:
        The predicted loss increase now, and its bounds after adapting.

    Raises:
        InputError: the mask does not fit the model, or another input is not valid.

    Source: not in the paper; docs/theory.md, "Recoverable".

    >>> import torch
    >>> from howsparse import magnitude_mask
    >>> model, examples = nn.Linear(8, 8), (torch.eye(8).repeat(32, 1), torch.arange(8).repeat(32))
    >>> found = recovered_loss(model, magnitude_mask(model, 0.75), [examples])
    >>> found.sparsity, found.low <= found.high <= found.predicted
    (0.75, True)
    """
    if max_products < 2:
        raise InputError(f"max_products {max_products} is too few for a mask; use at least 2")
    mask._check(prunable_weights(model))
    risk = EmpiricalRisk(model, batches, loss, list(mask))
    kept = risk.flatten([mask[name].to(risk.device) for name in risk.names])
    matrix = curvature_of(risk, curvature, memory)
    with reporting(progress) as report:
        on_product = partial(report, "recovery")
        local = adapting(matrix, risk.flat_weights(), risk.gradient(), kept)
        return follow(local, max_products, _well_known, lambda steps: on_product(steps, max_products))


def _well_known(found: Recovery) -> bool:
    """Whether the loss after adapting is known within 1 % of the gain from adapting."""
    return found.high - found.low <= _KNOWN * (found.predicted - found.high)
