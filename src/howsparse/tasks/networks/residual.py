"""Residual networks for small images: a 3x3 stem of stride 1 and no max-pool, as the paper's."""

from torch import Tensor, nn

__all__ = ["Residual", "resnet", "resnet18", "resnet50"]


class Residual(nn.Module):
    """Convolutions with BatchNorm, and a way around them."""

    def __init__(self, body: nn.Sequential, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = body
        self.around: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.around = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.around(x))


def basic(before: int, width: int, stride: int) -> Residual:
    """Two 3x3 convolutions."""
    body = nn.Sequential(*_normed(before, width, 3, stride), nn.ReLU(), *_normed(width, width, 3))
    return Residual(body, before, width, stride)


def bottleneck(before: int, width: int, stride: int) -> Residual:
    """A 3x3 convolution between two 1x1, the last with four times the width."""
    body = nn.Sequential(
        *_normed(before, width, 1),
        nn.ReLU(),
        *_normed(width, width, 3, stride),
        nn.ReLU(),
        *_normed(width, 4 * width, 1),
    )
    return Residual(body, before, 4 * width, stride)


def resnet(block: str, depths: tuple[int, ...], widths: tuple[int, ...], classes: int) -> nn.Sequential:
    """Stem, stages of residual blocks, global average, linear layer.

    Args:
        block: "basic" or "bottleneck".
        depths: blocks in each stage; every stage but the first halves the image.
        widths: of each stage; a bottleneck's output has four times as many channels.
        classes: outputs.
    """
    make, expansion = {"basic": (basic, 1), "bottleneck": (bottleneck, 4)}[block]
    layers: list[nn.Module] = [*_normed(3, widths[0], 3), nn.ReLU()]
    before = widths[0]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for i in range(depth):
            layers.append(make(before, width, 2 if i == 0 and stage else 1))
            before = width * expansion
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def resnet18(classes: int = 100) -> nn.Sequential:
    """ResNet18 (He et al., 2016)."""
    return resnet("basic", (2, 2, 2, 2), (64, 128, 256, 512), classes)


def resnet50(classes: int = 100) -> nn.Sequential:
    """ResNet50 (He et al., 2016)."""
    return resnet("bottleneck", (3, 4, 6, 3), (64, 128, 256, 512), classes)


def _normed(before: int, after: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(before, after, size, stride, size // 2, bias=False), nn.BatchNorm2d(after)
