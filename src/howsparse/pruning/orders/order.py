"""An order: all weights of a model, in the order in which they are removed."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.pruning.masks import Mask, nested_masks
from howsparse.pruning.scores import removed_first
from howsparse.risk.batches import FirstExamples
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.losses import Loss
from howsparse.risk.weights import select_weights

__all__ = ["Order", "OrderFunction", "check_fits", "make_order", "risk_for"]


@dataclass(frozen=True, eq=False)
class Order:
    """A score for every weight. A larger score stays longer.

    The mask of a sparsity keeps exactly ``round((1 - sparsity) * num_weights)`` weights, those with the largest scores.
    Of equal scores, the first one stays. So the masks of one order are nested: a weight that is removed at a sparsity
    is removed at every larger one.

    Attributes:
        name: name of the order, for tables.
        scores: a tensor of the weight's shape, by weight name; weights without a name are not pruned.
        note: one line that says how the scores were computed.

    Raises:
        InputError: there are no scores, or a score is NaN.

    >>> import torch
    >>> order = Order("by hand", {"fc": torch.tensor([3.0, 1.0, 2.0, 1.0])})
    >>> order.mask(0.25)["fc"].tolist(), order.num_weights
    ([True, True, True, False], 4)
    """

    name: str
    scores: dict[str, Tensor] = field(repr=False)
    note: str = ""

    def __post_init__(self) -> None:
        if not self.scores:
            raise InputError(f"order '{self.name}' has no scores; give a score for at least one weight tensor")
        broken = next((name for name, score in self.scores.items() if score.isnan().any()), None)
        if broken is not None:
            raise InputError(f"order '{self.name}' has NaN scores for '{broken}'; use a model that did not diverge")

    @property
    def num_weights(self) -> int:
        """Number of weights that have a score."""
        return sum(score.numel() for score in self.scores.values())

    def mask(self, sparsity: float) -> Mask:
        """The mask of a sparsity. The first call sorts the scores; each later call only compares.

        Args:
            sparsity: fraction of the weights to remove, in [0, 1).

        Returns:
            The mask of this sparsity; masks of larger sparsities remove the same weights and more.

        Raises:
            InputError: the sparsity is outside [0, 1).
        """
        return self._mask_at(sparsity)

    @cached_property
    def _mask_at(self) -> Callable[[float], Mask]:
        return nested_masks(self.scores)


class OrderFunction(Protocol):
    """A function that makes an order. It gets no batches if the caller has none.

    >>> from howsparse.pruning.orders import ORDERS, rank
    >>> largest: OrderFunction = ORDERS["magnitude"]
    >>> rank(nn.Linear(10, 10), order=largest).mask(0.9).num_kept
    10
    """

    def __call__(
        self,
        model: nn.Module,
        batches: Iterable[Any] | None,
        *,
        loss: Loss,
        names: Iterable[str] | None,
        seed: int,
    ) -> Order: ...


def make_order(name: str, model: nn.Module, scores: Mapping[str, Tensor], note: str) -> Order:
    """An order in which the weights that `torch.nn.utils.prune` has removed go first.

    Args:
        name: name of the order.
        model: the model that has the weights.
        scores: a tensor of the weight's shape, by weight name.
        note: one line that says how the scores were computed.

    >>> import torch
    >>> make_order("all equal", nn.Linear(2, 2), {"weight": torch.zeros(2, 2)}, "").mask(0.5)["weight"].tolist()
    [[True, True], [False, False]]
    """
    return Order(name, removed_first(model, scores), note)


def risk_for(
    name: str,
    model: nn.Module,
    batches: Iterable[Any] | None,
    loss: Loss,
    names: Iterable[str] | None,
    examples: int | None = None,
) -> EmpiricalRisk:
    """The empirical risk that an order reads.

    Args:
        name: name of the order, for error messages.
        model: any module.
        batches: batches that can be read several times.
        loss: ``loss(model, batch)``, mean over the batch.
        names: names of prunable weights; by default all that are not frozen.
        examples: number of examples to use, the first ones; None for all.

    Raises:
        InputError: there are no batches, they can be read only once, a name is unknown, or the loss is not usable.

    >>> import torch
    >>> from howsparse.risk.losses import cross_entropy
    >>> batches = [(torch.eye(2), torch.tensor([0, 1]))]
    >>> risk_for("wanda", nn.Linear(2, 2), batches, cross_entropy, None, examples=1).num_examples
    1
    """
    if batches is None:
        raise InputError(
            f"order '{name}' needs data; pass batches (certify: chosen_on), or use magnitude, layerwise, erk or random"
        )
    chosen = list(select_weights(model, names))
    once = iter(batches) is batches  # EmpiricalRisk refuses it, and cannot see it inside FirstExamples
    return EmpiricalRisk(model, batches if examples is None or once else FirstExamples(batches, examples), loss, chosen)


def check_fits(order: Order, model: nn.Module, names: Iterable[str] | None = None) -> Order:
    """Return ``order`` if its scores are for weights of ``model``.

    Args:
        order: any order.
        model: the model to prune.
        names: names of the weights to prune; by default those that have scores.

    Raises:
        InputError: a name or a shape differs.

    >>> import torch
    >>> check_fits(Order("by hand", {"weight": torch.zeros(2, 2)}), nn.Linear(2, 2)).num_weights
    4
    """
    weights = select_weights(model, order.scores if names is None else names)
    if weights.keys() != order.scores.keys():
        odd = min(weights.keys() ^ order.scores.keys())
        raise InputError(f"order '{order.name}' and the names differ in '{odd}'; use an order of the same weights")
    for name, w in weights.items():
        if order.scores[name].shape != w.shape:
            raise InputError(
                f"order '{order.name}' has scores of shape {tuple(order.scores[name].shape)} for '{name}', but the"
                f" weight has {tuple(w.shape)}; use an order of this model"
            )
    return order
