"""A convolution and a ReLU that can be differentiated twice, at the cost of the operations of one derivative.

torch differentiates the gradient of a convolution by convolutions whose kernels are as large as the images. These take
most of the time of a product with the Hessian. The same derivatives are here taken by the three operations of a
gradient: the convolution, its gradient by the input and its gradient by the weight. For a ReLU, torch adds a tensor of
zeros in the second derivative, which is left out here.

A backward pass that builds a graph may leave out values that no later derivative reads (`Passes`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Convolution", "Passes", "convolved", "rectified"]


@dataclass
class Passes:
    """The values that a backward pass that builds a graph has to compute."""

    _only_graph: bool = False
    _only_zeros: bool = False

    @contextmanager
    def for_graph(self, zeros: bool = False) -> Iterator[None]:
        """In this context, a backward pass must build a correct graph, but its values need not be correct.

        Args:
            zeros: whether the pass starts from zeros, so that all its values are zeros.
        """
        before = self._only_graph, self._only_zeros
        self._only_graph, self._only_zeros = True, zeros
        try:
            yield
        finally:
            self._only_graph, self._only_zeros = before

    @property
    def zeros(self) -> bool:
        """Whether every value of the pass is zero."""
        return self._only_zeros

    def skips(self, is_leaf: bool) -> bool:
        """Whether the gradient by a weight need not be computed: the weight is a leaf, so no derivative reads it."""
        return self._only_zeros or (self._only_graph and is_leaf)


@dataclass(frozen=True)
class Convolution:
    """scale * (x * weight + bias) + shift, for a fixed scale and shift of each output channel.

    Attributes:
        kernel: scale * weight, without a graph.
        scale: of the weight's number of dimensions, with the output channels first; None is 1.
        settings: stride, padding, dilation, groups.
        passes: the values that backward passes with a graph have to compute.
    """

    kernel: Tensor
    scale: Tensor | None
    settings: tuple[list[int], list[int], list[int], int]
    passes: Passes

    def scaled(self, weight: Tensor) -> Tensor:
        return weight if self.scale is None else weight * self.scale

    def of(self, x: Tensor, kernel: Tensor) -> Tensor:
        """The convolution, without bias and shift."""
        stride, padding, dilation, groups = self.settings
        return torch.convolution(x, kernel, None, stride, padding, dilation, False, [0] * len(stride), groups)

    def back(self, g: Tensor, x: Tensor, kernel: Tensor, wanted: list[bool]) -> tuple[Tensor | None, Tensor | None]:
        """Gradients by the input and by the weight; None for a gradient that is not needed."""
        if not any(wanted):
            return None, None
        stride, padding, dilation, groups = self.settings
        by_input, by_weight, _ = torch.ops.aten.convolution_backward(
            g, x, kernel, None, stride, padding, dilation, False, [0] * len(stride), groups, [*wanted, False]
        )
        return by_input, None if by_weight is None else self.scaled(by_weight)

    def by_bias(self, g: Tensor) -> Tensor:
        total = g.sum([0, *range(2, g.ndim)])
        return total if self.scale is None else total * self.scale.flatten()

    def along_bias(self, bias: Tensor) -> Tensor:
        """The term that a change of the bias adds to each image, ``(channels, 1, 1)``."""
        return self.scaled(bias.view(-1, *([1] * (self.kernel.ndim - 1))))[:, 0]


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, how: Convolution, value: Callable[[], Tensor]) -> Tensor:
    """The convolution's output, with its derivatives. ``value`` computes it."""
    out: Tensor = _Convolved.apply(x, weight, bias, how, value)  # type: ignore[no-untyped-call]
    return out


def rectified(x: Tensor, passes: Passes) -> Tensor:
    """max(x, 0), with its derivatives."""
    out: Tensor = _Rectified.apply(x, passes)  # type: ignore[no-untyped-call]
    return out


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: Convolution, value: Callable[[], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.how = how
        ctx.leaves = weight.is_leaf, bias is not None and bias.is_leaf
        return value()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        how, wanted = ctx.how, list(ctx.needs_input_grad[:3])
        if torch.is_grad_enabled():
            found = _Gradient.apply(g, x, weight, bias, how, wanted, ctx.leaves)  # type: ignore[no-untyped-call]
            return *found, None, None
        return *how.back(g, x, how.kernel, wanted[:2]), how.by_bias(g) if wanted[2] else None, None, None


class _Gradient(torch.autograd.Function):
    """The gradients of `_Convolved`. They can be differentiated once more."""

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        how: Convolution,
        wanted: list[bool],
        leaves: tuple[bool, bool],
    ) -> tuple[Tensor | None, ...]:
        passes = how.passes
        ctx.how, ctx.zeros, ctx.shape = how, passes.zeros, g.shape
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, None if passes.zeros else g)
        skipped = [passes.zeros, *map(passes.skips, leaves)]
        computed = [want and not skip for want, skip in zip(wanted, skipped, strict=True)]
        found = [*how.back(g, x, how.kernel, computed[:2]), how.by_bias(g) if computed[2] else None]
        for i, like in enumerate((x, weight, bias)):
            if wanted[i] and skipped[i] and like is not None:
                found[i] = _zeros(like)
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, along_x: Tensor | None, along_weight: Tensor | None, along_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        how: Convolution = ctx.how
        x, g = ctx.saved_tensors
        along_kernel = None if along_weight is None else how.scaled(along_weight)
        by_g = by_x = by_weight = None
        if along_x is not None:
            by_g = how.of(along_x, how.kernel)
        if along_kernel is not None:
            by_g = how.of(x, along_kernel) if by_g is None else by_g.add_(how.of(x, along_kernel))
        if along_bias is not None:
            each = how.along_bias(along_bias)
            by_g = each.expand(ctx.shape) if by_g is None else by_g.add_(each)
        if g is not None:
            if along_kernel is not None and ctx.needs_input_grad[1]:
                by_x = how.back(g, x, along_kernel, [True, False])[0]
            if along_x is not None and ctx.needs_input_grad[2]:
                by_weight = how.back(g, along_x, how.kernel, [False, True])[1]
        return by_g, by_x, by_weight, None, None, None, None


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, passes: Passes) -> Tensor:
        out = torch.relu(x)
        ctx.save_for_backward(out)
        ctx.passes = passes
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _RectifiedGradient.apply(g, out.detach(), ctx.passes), None  # type: ignore[no-untyped-call]
        return _where_positive(g, out), None


class _RectifiedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, out: Tensor, passes: Passes) -> Tensor:
        ctx.save_for_backward(out)
        return _zeros(g) if passes.zeros else _where_positive(g, out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor, None, None]:
        (out,) = ctx.saved_tensors
        return _where_positive(along, out), None, None


def _where_positive(g: Tensor, out: Tensor) -> Tensor:
    masked: Tensor = torch.ops.aten.threshold_backward(g, out, 0)
    return masked


def _zeros(like: Tensor) -> Tensor:
    """Zeros of a tensor's shape that take no memory."""
    return like.new_zeros(()).expand(like.shape)
