"""The l1 term of Eq. 2. A hook adds it to any torch optimizer, so training loops need no change."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError

__all__ = ["L1", "attach_l1", "unwrapped"]


class L1:
    r"""Adds :math:`\lambda \|w\|_1` to the loss that an optimizer minimises, until `remove` is called.

    There are two forms. The subgradient form (the paper's) adds :math:`\lambda\,\mathrm{sign}(w)` to the gradient
    before each step. Weights then come close to zero, but are seldom exactly zero. The proximal form moves weights
    towards zero after each step by :math:`\eta\lambda(1-\tau)/(1-\beta)`, where :math:`\eta` is the learning rate,
    :math:`\beta` the momentum and :math:`\tau` its dampening (0 where the optimizer has none). A weight that would
    change its sign becomes exactly zero.

    With SGD both forms have the same stationary points, because of the factor. With adaptive optimizers the proximal
    form is decoupled from the gradient's scale, as weight decay is in AdamW. A weight without a gradient is not
    changed, as in the optimizer's own step.

    With `torch.amp.GradScaler`, a fused optimizer gets scaled gradients and divides them inside its step. The
    subgradient is then scaled too. A step that the scaler skips does not shrink weights. A copied or unpickled
    optimizer does not have the term, because torch does not copy an optimizer's hooks.

    Args:
        optimizer: any torch optimizer that holds the weights.
        weights: parameters to penalise.
        strength: :math:`\lambda`, loss per absolute weight.
        proximal: whether to use the proximal form.

    Attributes:
        strength: :math:`\lambda`, loss per absolute weight.

    >>> weight = nn.Parameter(torch.tensor([1.0, -0.5]))
    >>> term = L1(torch.optim.SGD([weight], lr=0.1), [weight], strength=0.1)
    >>> round(term.penalty(), 6)
    0.15
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
        """Stop adding the term."""
        self._handle.remove()

    @torch.no_grad()
    def penalty(self) -> float:
        r"""The term :math:`\lambda\|w\|_1` of the present weights that are not frozen.

        Returns:
            The term, in units of the loss.
        """
        return self.strength * sum(float(w.abs().sum()) for _, some in self._groups() for w in some if w.requires_grad)

    def _groups(self) -> list[tuple[dict[str, Any], list[Tensor]]]:
        groups = self._optimizer.param_groups
        return [(group, [w for w in group["params"] if id(w) in self._chosen]) for group in groups]

    def _before_step(
        self, _: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Add the subgradient; if a closure computes the gradient inside the step, add it at the end of the closure."""
        if kwargs.get("grad_scaler") is not None:
            raise InputError(
                "this optimizer's step takes a GradScaler, so the scale of its gradients is not known;"
                " call scaler.unscale_(optimizer) and optimizer.step() yourself, or use attach_l1(..., proximal=True)"
            )
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
        scale: Tensor | None = getattr(self._optimizer, "grad_scale", None)  # GradScaler sets it for a fused step
        for _group, weights in self._groups():
            gradients = {w: w.grad for w in weights if w.grad is not None}
            if gradients:  # all in one call, because a GPU is slow to start many small operations
                signs = torch._foreach_sign(list(gradients))
                if scale is not None:
                    _multiply_(signs, scale)
                torch._foreach_add_(list(gradients.values()), signs, alpha=self.strength)

    @torch.no_grad()
    def _shrink(self, *_: object) -> None:
        overflow: Tensor | None = getattr(self._optimizer, "found_inf", None)  # a fused step then changes no weight
        if overflow is not None and overflow.item():
            return
        for group, weights in self._groups():
            by = group["lr"] * self.strength * (1 - group.get("dampening", 0.0)) / (1 - group.get("momentum", 0.0))
            for w in weights:
                if w.grad is not None:
                    w.copy_(nn.functional.softshrink(w, float(by)))


def _multiply_(tensors: Iterable[Tensor], factor: Tensor) -> None:
    """Multiply tensors in place by a scalar tensor, which may be on another device."""
    for tensor in tensors:
        tensor.mul_(factor.to(tensor.device, non_blocking=True))


def unwrapped(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer that takes the steps, inside of wrappers such as those of accelerate and Lightning.

    Args:
        optimizer: an optimizer, or a wrapper whose attribute ``optimizer`` is one.

    Raises:
        InputError: the object is no optimizer and does not hold one.

    >>> sgd = torch.optim.SGD([nn.Parameter(torch.ones(1))])
    >>> unwrapped(sgd) is sgd
    True
    """
    inner = optimizer
    while hasattr(inner, "optimizer"):
        inner = inner.optimizer
    if not isinstance(inner, torch.optim.Optimizer):
        raise InputError(
            f"{type(optimizer).__name__} is not a torch optimizer and does not hold one; give an optimizer"
        )
    return inner


def attach_l1(
    optimizer: torch.optim.Optimizer, weights: Iterable[nn.Parameter], strength: float, *, proximal: bool = False
) -> L1:
    """Add an l1 term for ``weights`` to what ``optimizer`` minimises.

    Args:
        optimizer: any torch optimizer that holds the weights, or a wrapper of one, as accelerate's.
        weights: parameters to penalise, for example ``howsparse.prunable_weights(model).values()``; frozen ones get no
            term, and the optimizer need not hold them.
        strength: loss per absolute weight: finite, and at least 0.
        proximal: soft-threshold after the step instead of adding the subgradient before it.

    Returns:
        The attached term; its ``remove()`` takes it away. A deep copy and a pickle of the optimizer do not have the
        term, because torch leaves out an optimizer's hooks: attach it to the copy again.

    Raises:
        InputError: the strength is negative, infinite or not a number, the optimizer is no optimizer, or it does not
            hold a weight that is not frozen.

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
    if not math.isfinite(strength):
        raise InputError(f"l1 strength {strength:g} is not a finite number; give a number of at least 0")
    if strength < 0:
        raise InputError(f"l1 strength {strength:g} is negative; give a number of at least 0")
    optimizer = unwrapped(optimizer)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if any(id(w) not in held for w in weights if w.requires_grad):
        raise InputError("the optimizer does not hold every weight of the l1 term; make it with these parameters")
    return L1(optimizer, weights, strength, proximal)
