"""The layers of a convolutional network, computed so that second derivatives cost no more than first ones."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from howsparse.risk.derivatives import Convolution, Passes, convolved, rectified

__all__ = ["Convolutions", "suitable"]

_SINCE = (2, 13)  # the release of torch that these derivatives were tested with; 2.6 crashed in them
_DIMENSIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_RELUS = (functional.relu, torch.relu, Tensor.relu)


@dataclass(frozen=True)
class _Made:
    """How a tensor was made: the convolution, its input, and the version of the tensor after it."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    how: Convolution
    version: int


class Convolutions(TorchFunctionMode):
    """Inside this context, convolutions and normalisations have cheap second derivatives.

    The functions are the same, up to rounding; their derivatives are those of `howsparse.risk.derivatives`. A
    normalisation in evaluation mode is an affine map of each channel. If it is applied to the output of a convolution,
    it becomes part of the convolution's weight in all derivatives. All other operations are computed by torch.

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
        self.passes = Passes()
        self._kernels: dict[tuple[int, ...], tuple[tuple[Tensor | None, ...], Tensor, Tensor | None]] = {}
        self._made = WeakTensorKeyDictionary()

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
            elif func in _RELUS:
                made = self._rectified(*args, **kwargs)
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
        how = Convolution(kernel, scale, (stride, padding, dilation, groups), self.passes)
        x = self._stored(input)

        def value() -> Tensor:
            found = how.of(x, kernel)
            return found if bias is None else found.add_(bias.view(-1, *([1] * dimensions)))

        out = convolved(x, weight, bias, how, value)
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
        how = Convolution(kernel, scale, made.how.settings, self.passes)

        def value() -> Tensor:
            return functional.batch_norm(input.detach(), running_mean, running_var, weight, bias, False, momentum, eps)

        return convolved(made.x, made.weight, made.bias, how, value)

    def _rectified(self, input: Tensor, inplace: bool = False) -> Tensor | None:
        return None if inplace or type(input) is not Tensor else rectified(input, self.passes)

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
    """The kinds of convolutions to try for a network, the fastest first; none without convolutions, or in old torch.

    On a CPU, channels last is quicker for both networks of docs/product.md: oneDNN, which computes float32 there,
    reorders other images before and after each convolution.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _SINCE:
        return []
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
