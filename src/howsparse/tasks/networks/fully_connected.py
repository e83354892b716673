"""Fully connected ReLU networks: the paper's FC5 and FC12, and a network for the digits."""

import itertools

from torch import nn

__all__ = ["digits_mlp", "fc5", "fc12", "mlp"]


def mlp(*widths: int) -> nn.Sequential:
    """Fully connected ReLU network with biases. ``widths`` are the layer sizes from the input to the classes.

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
    """64-64-32-10 network for scikit-learn's 8x8 digits. It is so small that its full Hessian fits into memory."""
    return mlp(64, 64, 32, 10)


def fc5() -> nn.Sequential:
    """The paper's FC5 for CIFAR-10."""
    return mlp(3072, 1000, 600, 300, 100, 10)


def fc12() -> nn.Sequential:
    """The paper's FC12 for CIFAR-10."""
    return mlp(3072, 1000, 900, 800, 750, 700, 650, 600, 500, 400, 200, 100, 10)
