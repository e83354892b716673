"""The l1 term of Eq. 2, attached to any torch optimizer; the training loop stays as it is."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError

__all__ = ["L1", "attach_l1"]


class L1:
    r"""Adds :math:`\lambda \|w\|_1` to what an optimizer minimises; `remove` takes it away again.

    Subgradient (the paper): :math:`\lambda\,\mathrm{sign}(w)` joins the gradient before each step, so weights hover
    near zero. Proximal: after each step weights move towards zero by :math:`\eta\lambda(1-\tau)/(1-\beta)`,
    where :math:`\eta` is the learning rate, :math:`\beta` the momentum and :math:`\tau` its dampening (0 where the
    optimizer has none), and stop there: exact zeros. The factor makes both forms share their stationary points under
    SGD; adaptive optimizers get the decoupled form, as AdamW's weight decay is. Weights without a gradient stay as
    they are, as they do in the optimizer's own step.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        weights: Iterable[nn.Parameter],
        strength: float,
        proximal: bool = False,
    ) -> None:
        self.strength = strength
        self._optimizer = optimizer
        self._chosen = {id(w) for w in weights}
        if proximal:
            self._handle = optimizer.register_step_post_hook(self._shrink)
        else:
            self._handle = optimizer.register_step_pre_hook(self._before_step)

    def remove(self) -> None:
        """Detach from the optimizer."""
        self._handle.remove()

    @torch.no_grad()
    def penalty(self) -> float:
        r""":math:`\lambda\|w\|_1` of the weights as they are."""
        return self.strength * sum(float(w.abs().sum()) for group in self._groups() for w in group[1])

    def _groups(self) -> list[tuple[dict[str, Any], list[Tensor]]]:
        groups = self._optimizer.param_groups
        return [(group, [w for w in group["params"] if id(w) in self._chosen]) for group in groups]

    def _before_step(
        self, _: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """A closure computes the gradient inside the step, so there the term must join it after the closure."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._add_subgradient()
            return None

        def closure_and_term() -> Any:
            loss = closure()
            self._add_subgradient()
            return loss

        return args[:1], kwargs | {"closure": closure_and_term}

    @torch.no_grad()
    def _add_subgradient(self) -> None:
        for _group, weights in self._groups():
            gradients = {w: w.grad for w in weights if w.grad is not None}
            if gradients:  # all at once, which spares a GPU as many launches as there are weights
                signs = torch._foreach_sign(list(gradients))
                torch._foreach_add_(list(gradients.values()), signs, alpha=self.strength)

    @torch.no_grad()
    def _shrink(self, *_: object) -> None:
        for group, weights in self._groups():
            by = group["lr"] * self.strength * (1 - group.get("dampening", 0.0)) / (1 - group.get("momentum", 0.0))
            for w in weights:
                if w.grad is not None:
                    w.copy_(nn.functional.softshrink(w, float(by)))


def attach_l1(
    optimizer: torch.optim.Optimizer, weights: Iterable[nn.Parameter], strength: float, *, proximal: bool = False
) -> L1:
    """Attach an l1 term to ``optimizer`` for ``weights``.

    Args:
        optimizer: any torch optimizer that holds the weights.
        weights: parameters to penalise, for example ``howsparse.prunable_weights(model).values()``.
        strength: loss per absolute weight, at least 0.
        proximal: soft-threshold after the step instead of adding the subgradient before it.

    Raises:
        InputError: a negative strength, or a weight the optimizer does not hold.

    Source: Eq. 2 of the paper; Parikh and Boyd (2014), Proximal algorithms, for the second form.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> sgd = torch.optim.SGD(layer.parameters(), lr=1.0)
    >>> _ = attach_l1(sgd, [layer.weight], 10.0, proximal=True)
    >>> layer(torch.zeros(1, 2)).sum().backward()
    >>> _ = sgd.step()
    >>> layer.weight.count_nonzero().item()
    0
    """
    weights = list(weights)
    if strength < 0:
        raise InputError(f"l1 strength {strength:g} is negative")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if any(id(w) not in held for w in weights):
        raise InputError("the optimizer does not hold every weight that the l1 term is for")
    return L1(optimizer, weights, strength, proximal)
