"""The paper's networks. To add a network, write a function in a module of this package and add it to `NETWORKS`."""

from collections.abc import Callable
from functools import partial

from torch import nn

from howsparse.tasks.networks.convolutional import alexnet, digits_convnet, vgg16_bn
from howsparse.tasks.networks.fully_connected import digits_mlp, fc5, fc12, mlp
from howsparse.tasks.networks.residual import resnet, resnet18, resnet50

__all__ = [
    "NETWORKS",
    "alexnet",
    "digits_convnet",
    "digits_mlp",
    "fc5",
    "fc12",
    "kaiming_normal_",
    "mlp",
    "resnet",
    "resnet18",
    "resnet50",
    "vgg16_bn",
]

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "digits_mlp": digits_mlp,
    "digits_convnet": digits_convnet,
    "fc5": fc5,
    "fc12": fc12,
    "alexnet": alexnet,
    "vgg16_bn": vgg16_bn,
    "vgg16_bn_quarter": partial(vgg16_bn, width=16),
    "resnet18_100": partial(resnet18, 100),
    "resnet18_100_quarter": partial(resnet18, 100, width=16),
    "resnet50_100": partial(resnet50, 100),
    "resnet18_200": partial(resnet18, 200),
    "resnet50_200": partial(resnet50, 200),
}


def kaiming_normal_(model: nn.Module) -> None:
    """He et al.'s initialisation for ReLU networks: normal weights and zero biases. Norms are not changed."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
