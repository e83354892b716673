"""Convolutions and normalisations whose second derivatives cost no more than their first ones.

torch differentiates the gradient of a convolution twice by convolutions whose kernels are as large as the images. They
take most of the time of a product with the Hessian. Here the same derivatives are taken by the three operations of a
gradient: the convolution, its gradient by the input and its gradient by the weight.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Convolutions", "suitable"]

_DIMENSIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}


@dataclass(frozen=True)
class _How:
    """What a convolution is computed with, apart from its input.

    Attributes:
        kernel: the weight times ``scale``, without a graph.
        scale: factor of each output channel, ``(channels, 1, 1, 1)`` for images; None is 1.
        skip_weight: whether the weight is itself a leaf, so that the value of its gradient is in no second derivative.
        settings: stride, padding, dilation, groups.
        passes: what the pass back with a graph has to compute.
    """

    kernel: Tensor
    scale: Tensor | None
    skip_weight: bool
    settings: tuple[list[int], list[int], list[int], int]
    passes: "_Passes"

    def scaled(self, weight: Tensor) -> Tensor:
        return weight if self.scale is None else weight * self.scale

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        stride, padding, dilation, groups = self.settings
        return torch.convolution(x, weight, None, stride, padding, dilation, False, [0] * len(stride), groups)

    def back(self, g: Tensor, x: Tensor, weight: Tensor, mask: list[bool]) -> tuple[Tensor | None, Tensor | None]:
        """Gradients by the input and by the weight; None where ``mask`` is False."""
        stride, padding, dilation, groups = self.settings
        by_input, by_weight, _ = torch.ops.aten.convolution_backward(
            g, x, weight, None, stride, padding, dilation, False, [0] * len(stride), groups, [*mask, False]
        )
        return by_input, None if by_weight is None else self.scaled(by_weight)

    def bias(self, g: Tensor) -> Tensor:
        total = g.sum([0, *range(2, g.ndim)])
        return total if self.scale is None else total * self.scale.flatten()


@dataclass
class _Passes:
    """What a pass back that builds a graph computes. Only `Convolutions.for_graph` changes it."""

    only_graph: bool = False
    only_zeros: bool = False


class _Convolution(torch.autograd.Function):
    """scale * (x * weight + bias) + shift, whose value is already known."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: _How, value: Callable[[], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        ctx.skip_bias = bias is not None and bias.is_leaf
        return value()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        how: _How = ctx.how
        if torch.is_grad_enabled():
            found = _Gradient.apply(g, x, weight, how, ctx.needs_input_grad[:3], ctx.skip_bias)
            return *found, None, None
        by_input, by_weight = how.back(g, x, how.kernel, list(ctx.needs_input_grad[:2]))
        return by_input, by_weight, how.bias(g) if ctx.needs_input_grad[2] else None, None, None


class _Gradient(torch.autograd.Function):
    """The gradients of `_Convolution`. They can be differentiated once more."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, how: _How, needed: list[bool], skip_bias: bool
    ) -> tuple[Tensor | None, ...]:
        passes = how.passes
        ctx.how, ctx.zeros, ctx.shape = how, passes.only_zeros, g.shape
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *([] if passes.only_zeros else [g]))
        skip = [passes.only_zeros, passes.only_zeros or (passes.only_graph and how.skip_weight)]
        mask = [want and not left for want, left in zip(needed[:2], skip, strict=True)]
        by_input, by_weight = how.back(g, x, how.kernel, mask) if any(mask) else (None, None)
        if needed[0] and skip[0]:
            by_input = _zeros(x)
        if needed[1] and skip[1]:
            by_weight = _zeros(weight)
        by_bias = None
        if needed[2]:
            skipped = passes.only_zeros or (passes.only_graph and skip_bias)
            by_bias = _zeros(weight)[:, *([0] * (weight.ndim - 1))] if skipped else how.bias(g)
        return by_input, by_weight, by_bias

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(  # type: ignore[override]
        ctx: Any, along_input: Tensor | None, along_weight: Tensor | None, along_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        how: _How = ctx.how
        x, *rest = ctx.saved_tensors
        along_kernel = None if along_weight is None else how.scaled(along_weight)
        by_g = by_x = by_weight = None
        if along_input is not None:
            by_g = how.convolve(along_input, how.kernel)
        if along_kernel is not None:
            straight = how.convolve(x, along_kernel)
            by_g = straight if by_g is None else by_g.add_(straight)
        if along_bias is not None:
            each = how.scaled(along_bias.view(-1, *([1] * (x.ndim - 1))))[:, 0]
            by_g = each.expand(ctx.shape) if by_g is None else by_g.add_(each)
        if not ctx.zeros:
            (g,) = rest
            if along_kernel is not None and ctx.needs_input_grad[1]:
                by_x = how.back(g, x, along_kernel, [True, False])[0]
            if along_input is not None and ctx.needs_input_grad[2]:
                by_weight = how.back(g, along_input, how.kernel, [False, True])[1]
        return by_g, by_x, by_weight, None, None, None


@dataclass(frozen=True)
class _Made:
    """How a tensor was made: by which convolution of what, and the version of the tensor after it."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    how: _How
    version: int


class Convolutions(TorchFunctionMode):
    """Inside this context, convolutions and normalisations have cheap second derivatives.

    The functions are the same, up to rounding. A normalisation in evaluation mode is an affine map of each channel. If
    it is applied to the output of a convolution, it becomes part of the convolution's weight in all derivatives. What
    is not recognised is computed by torch.

    Args:
        channels_last: whether images are stored with their channels last, which is faster on a CPU. A network that
            calls ``view`` on the output of a convolution fails with it.

    >>> layer, x = nn.Conv2d(2, 3, 3), torch.ones(1, 2, 4, 4)
    >>> with Convolutions():
    ...     torch.allclose(layer(x), layer._conv_forward(x, layer.weight, layer.bias))
    True
    """

    def __init__(self, channels_last: bool = False) -> None:
        super().__init__()
        self._last = channels_last
        self._passes = _Passes()
        self._kernels: dict[tuple[int, ...], tuple[tuple[Tensor | None, ...], Tensor, Tensor | None]] = {}
        self._made = WeakTensorKeyDictionary()

    @contextmanager
    def for_graph(self, zeros: bool = False) -> Iterator[None]:
        """Passes back in this context have the right graph, but need not have the right values.

        Args:
            zeros: whether the pass begins with zeros, so that all its values are zeros.
        """
        before = self._passes.only_graph, self._passes.only_zeros
        self._passes.only_graph, self._passes.only_zeros = True, zeros
        try:
            yield
        finally:
            self._passes.only_graph, self._passes.only_zeros = before

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        made = None
        if torch.is_grad_enabled():
            if func in _DIMENSIONS:
                made = self._convolution(_DIMENSIONS[func], *args, **kwargs)
            elif func is functional.batch_norm:
                made = self._normalised(*args, **kwargs)
        return func(*args, **kwargs) if made is None else made

    def _convolution(
        self,
        dimensions: int,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor | None:
        plain = all(type(t) in (Tensor, nn.Parameter) for t in (input, weight, bias) if t is not None)
        if not plain or input.ndim != dimensions + 2 or torch.is_autocast_enabled(input.device.type):
            return None
        stride, dilation = _each(stride, dimensions), _each(dilation, dimensions)
        padding = _padding(padding, dilation, weight.shape[2:])
        if padding is None:
            return None
        kernel, scale = self._kernel(weight)
        how = _How(kernel, scale, weight.is_leaf, (stride, padding, dilation, groups), self._passes)
        x = self._stored(input)

        def value() -> Tensor:
            found = how.convolve(x, kernel)
            return found if bias is None else found.add_(bias.view(-1, *([1] * dimensions)))

        out: Tensor = _Convolution.apply(x, weight, bias, how, value)
        self._made[out] = _Made(x, weight, bias, how, out._version)
        return out

    def _normalised(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor | None:
        if training or running_mean is None or running_var is None or type(input) is not Tensor:
            return None
        made: _Made | None = self._made.get(input)
        fixed = not any(t is not None and t.requires_grad for t in (weight, bias))
        if made is None or made.version != input._version or not fixed:
            return _affine(input, running_mean, running_var, weight, bias, eps)
        kernel, scale = self._kernel(made.weight, running_var, weight, eps)
        how = _How(kernel, scale, made.how.skip_weight, made.how.settings, self._passes)

        def value() -> Tensor:
            return functional.batch_norm(input.detach(), running_mean, running_var, weight, bias, False, momentum, eps)

        out: Tensor = _Convolution.apply(made.x, made.weight, made.bias, how, value)
        return out

    def _kernel(
        self, weight: Tensor, variance: Tensor | None = None, factor: Tensor | None = None, eps: float = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """The weight times the scale of each channel, and the scale. They are made once for all batches."""
        of = (weight, variance, factor)
        key = tuple(map(id, of))
        if key in self._kernels:
            return self._kernels[key][1:]
        kernel, scale = weight.detach(), None
        if variance is not None:
            scale = _scale(variance, factor, eps).view(-1, *([1] * (weight.ndim - 1)))
            kernel = kernel * scale
        kernel = self._stored(kernel)
        if weight.is_leaf:  # others are computed anew in every pass; an identity holds only while the tensor does
            self._kernels[key] = of, kernel, scale
        return kernel, scale

    def _stored(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self._last and images.ndim == 4 else images


def suitable(model: nn.Module, device: torch.device, dtype: torch.dtype) -> list[Convolutions]:
    """The kinds of convolutions for a network, quickest first; none for a network without convolutional layers.

    On a CPU, channels last was quicker on every network and layer of docs/product.md: oneDNN, which computes float32
    there, reorders other images before and after each convolution.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    last = device.type == "cpu" and dtype == torch.float32 and any(isinstance(layer, nn.Conv2d) for layer in layers)
    return [*([Convolutions(channels_last=True)] if last else []), *([Convolutions()] if layers else [])]


def _scale(variance: Tensor, factor: Tensor | None, eps: float) -> Tensor:
    scale = torch.rsqrt(variance + eps)
    return scale if factor is None else scale * factor


def _affine(
    x: Tensor, mean: Tensor, variance: Tensor, factor: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """A normalisation in evaluation mode, as an affine map of each channel."""
    scale = _scale(variance, factor, eps)
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (-1, *([1] * (x.ndim - 2)))
    return torch.addcmul(shift.view(shape), x, scale.view(shape))


def _each(value: Any, dimensions: int) -> list[int]:
    return [value] * dimensions if isinstance(value, int) else list(value)


def _padding(padding: Any, dilation: list[int], kernel: torch.Size) -> list[int] | None:
    """Padding at each side; None if the two sides differ."""
    if padding == "valid":
        return [0] * len(kernel)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return None if any(t % 2 for t in total) else [t // 2 for t in total]
    return _each(padding, len(kernel))


def _zeros(like: Tensor) -> Tensor:
    """Zeros of a tensor's shape that take no memory."""
    return like.new_zeros(()).expand(like.shape)
