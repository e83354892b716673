"""Convolutional networks without shortcuts: the paper's AlexNet and VGG16, and a network for the digits."""

from torch import nn

__all__ = ["alexnet", "digits_convnet", "vgg16_bn"]


def digits_convnet() -> nn.Sequential:
    """Three 3x3 convolutions with BatchNorm for the 8x8 digits, 16-32-32 channels, the last two of stride 2."""
    layers: list[nn.Module] = []
    for channels_in, channels_out, stride in ((1, 16, 1), (16, 32, 2), (32, 32, 2)):
        layers += [nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(channels_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))


def alexnet() -> nn.Sequential:
    """The paper's AlexNet for 32x32 images, which are upsampled to 224x224; no dropout, no normalisation."""
    return nn.Sequential(
        nn.Upsample(scale_factor=7),
        *(nn.Conv2d(3, 96, 11, stride=4, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        nn.Flatten(),
        *(nn.Linear(6400, 4096), nn.ReLU()),
        *(nn.Linear(4096, 4096), nn.ReLU()),
        nn.Linear(4096, 10),
    )


def vgg16_bn(width: int = 64) -> nn.Sequential:
    """VGG16 with BatchNorm for 32x32 images: 13 convolutions and one linear layer, 512-10.

    Args:
        width: number of channels of the first convolution; all layers scale with it.
    """
    layers: list[nn.Module] = []
    before = 3
    for factor, count in ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)):
        for _ in range(count):
            channels = factor * width
            layers += [nn.Conv2d(before, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before, 10))
