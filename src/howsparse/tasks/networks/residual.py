"""Residual networks for small images, as in the paper: the stem is a 3x3 convolution of stride 1 without max-pool."""

from torch import Tensor, nn

__all__ = ["Residual", "resnet", "resnet18", "resnet50"]


class Residual(nn.Module):
    """A residual block: the sum of ``body`` and a shortcut, followed by ReLU.

    Args:
        body: convolutions with BatchNorm.
        before: number of input channels.
        after: number of output channels.
        stride: stride of the block; the shortcut is a convolution if it is not 1 or the channels differ.
    """

    def __init__(self, body: nn.Sequential, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = body
        self.around: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.around = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.around(x))


def basic(before: int, width: int, stride: int) -> Residual:
    """A block of two 3x3 convolutions.

    Args:
        before: number of input channels.
        width: number of output channels.
        stride: stride of the first convolution.
    """
    body = nn.Sequential(*_normed(before, width, 3, stride), nn.ReLU(), *_normed(width, width, 3))
    return Residual(body, before, width, stride)


def bottleneck(before: int, width: int, stride: int) -> Residual:
    """A block of a 1x1, a 3x3 and a 1x1 convolution.

    Args:
        before: number of input channels.
        width: number of channels of the first two convolutions; the last has four times as many.
        stride: stride of the 3x3 convolution.
    """
    body = nn.Sequential(
        *_normed(before, width, 1),
        nn.ReLU(),
        *_normed(width, width, 3, stride),
        nn.ReLU(),
        *_normed(width, 4 * width, 1),
    )
    return Residual(body, before, 4 * width, stride)


def resnet(block: str, depths: tuple[int, ...], widths: tuple[int, ...], classes: int) -> nn.Sequential:
    """A residual network: stem, stages of residual blocks, global average pooling, and a linear layer.

    Args:
        block: "basic" or "bottleneck".
        depths: number of blocks in each stage; every stage except the first halves the image.
        widths: channels of each stage; a bottleneck's output has four times as many.
        classes: number of outputs.
    """
    make, expansion = {"basic": (basic, 1), "bottleneck": (bottleneck, 4)}[block]
    layers: list[nn.Module] = [*_normed(3, widths[0], 3), nn.ReLU()]
    before = widths[0]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for i in range(depth):
            layers.append(make(before, width, 2 if i == 0 and stage else 1))
            before = width * expansion
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def resnet18(classes: int = 100, width: int = 64) -> nn.Sequential:
    """ResNet18 (He et al., 2016).

    Args:
        classes: number of outputs.
        width: channels of the first stage; each later stage has twice as many as the one before.
    """
    return resnet("basic", (2, 2, 2, 2), (width, 2 * width, 4 * width, 8 * width), classes)


def resnet50(classes: int = 100) -> nn.Sequential:
    """ResNet50 (He et al., 2016)."""
    return resnet("bottleneck", (3, 4, 6, 3), (64, 128, 256, 512), classes)


def _normed(before: int, after: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(before, after, size, stride, size // 2, bias=False), nn.BatchNorm2d(after)
