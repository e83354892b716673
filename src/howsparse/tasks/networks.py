"""The paper's networks. A new network is one function here and its name in a recipe."""

import itertools
from collections.abc import Callable

from torch import nn

__all__ = ["NETWORKS", "digits_convnet", "digits_mlp", "fc5", "fc12", "kaiming_normal_", "mlp"]


def mlp(*widths: int) -> nn.Sequential:
    """Fully connected ReLU network with biases; ``widths`` runs from the input to the classes.

    >>> [tuple(p.shape) for p in mlp(4, 3, 2).parameters()]
    [(3, 4), (3,), (2, 3), (2,)]
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        if i:
            layers.append(nn.ReLU())
        layers.append(nn.Linear(fan_in, fan_out))
    return nn.Sequential(*layers)


def digits_mlp() -> nn.Sequential:
    """64-64-32-10 for scikit-learn's 8x8 digits; small enough for its Hessian to be written out."""
    return mlp(64, 64, 32, 10)


def digits_convnet() -> nn.Sequential:
    """Three 3x3 convolutions with BatchNorm for the 8x8 digits, 16-32-32 channels, the last two of stride 2."""
    layers: list[nn.Module] = []
    for channels_in, channels_out, stride in ((1, 16, 1), (16, 32, 2), (32, 32, 2)):
        layers += [nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(channels_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))


def fc5() -> nn.Sequential:
    """The paper's FC5 for CIFAR-10."""
    return mlp(3072, 1000, 600, 300, 100, 10)


def fc12() -> nn.Sequential:
    """The paper's FC12 for CIFAR-10."""
    return mlp(3072, 1000, 900, 800, 750, 700, 650, 600, 500, 400, 200, 100, 10)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "digits_mlp": digits_mlp,
    "digits_convnet": digits_convnet,
    "fc5": fc5,
    "fc12": fc12,
}


def kaiming_normal_(model: nn.Module) -> None:
    """He et al.'s initialisation for ReLU networks: normal weights, zero biases; norms as torch leaves them."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
