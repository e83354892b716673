"""Convolutions that hold only their nonzero weights, and the sparse layer for a given dense layer."""

import torch
from torch import Tensor, nn

from howsparse.deploy.kernels import DENSE, KERNELS, Product, csr_of, usable
from howsparse.deploy.sparse import SparseLinear

__all__ = ["SparseConv2d", "is_suitable", "sparse_layer"]


class SparseConv2d(SparseLinear):
    """A convolution that holds its nonzero weights as CSR. Images are unfolded, except for 1x1 kernels.

    Args:
        layer: a convolution of one group that pads with zeros, the same number on both sides.

    >>> layer = nn.Conv2d(1, 1, kernel_size=3, padding=1, bias=False)
    >>> layer.weight.data.zero_()[0, 0, 1, 1] = 2.0  # one of nine weights stays: it doubles the image
    >>> sparse = SparseConv2d(layer)
    >>> len(sparse.values), sparse(torch.ones(1, 1, 2, 2)).tolist()
    (1, [[[[2.0, 2.0], [2.0, 2.0]]]])
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(csr_of(layer.weight.flatten(1), layer.bias))
        self.kernel_size, self.stride, self.dilation = layer.kernel_size, layer.stride, layer.dilation
        self.padding = _padding(layer)
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels

    def by_columns(self, x: Tensor) -> Product | None:
        """None, because images are not matrices and have no transposed form.

        Args:
            x: images.

        Returns:
            None.
        """
        return None

    def _length(self, x: Tensor) -> int:
        return len(x)

    def usable(self) -> list[str]:
        """Names of the kernels; the dense one is torch's convolution.

        Returns:
            The names.
        """
        return [name for name in usable(self.matrix) if name != "onednn"]

    def _make(self, name: str) -> Product:
        if name in DENSE:
            assert self.dense is not None
            weight, bias = self.dense.view(self.out_channels, self.in_channels, *self.kernel_size), self.bias
            place = (self.stride, self.padding, self.dilation)
            return lambda x: nn.functional.conv2d(x, weight, bias, *place)
        return self._unfolded(KERNELS[name](self.matrix))

    def _unfolded(self, multiply: Product) -> Product:
        size, stride, padding, dilation = self.kernel_size, self.stride, self.padding, self.dilation
        plain = (size, stride, padding) == ((1, 1), (1, 1), (0, 0))

        def product(x: Tensor) -> Tensor:
            height, width = (
                (n + 2 * pad - apart * (k - 1) - 1) // step + 1
                for n, pad, apart, k, step in zip(x.shape[2:], padding, dilation, size, stride, strict=True)
            )
            images = []
            for image in x.split(1):  # the patches of one image are more likely to fit into the cache
                patches = image if plain else nn.functional.unfold(image, size, dilation, padding, stride)
                images.append(multiply(patches.flatten(2)[0].t()).t())
            return torch.stack(images).view(len(x), -1, height, width)

        return product


def _padding(layer: nn.Conv2d) -> tuple[int, int]:
    """Padding of each side, also of "same" and "valid"."""
    if layer.padding == "same":
        around = [apart * (k - 1) for apart, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return around[0] // 2, around[1] // 2
    return (0, 0) if isinstance(layer.padding, str) else (layer.padding[0], layer.padding[1])


def is_suitable(layer: nn.Module) -> bool:
    """Whether a layer can be held as CSR by these classes."""
    if type(layer) is nn.Linear:
        return True
    if type(layer) is not nn.Conv2d or layer.groups != 1 or layer.padding_mode != "zeros":
        return False
    even = any(apart * (k - 1) % 2 for apart, k in zip(layer.dilation, layer.kernel_size, strict=True))
    return layer.padding != "same" or not even


def sparse_layer(layer: nn.Module) -> SparseLinear:
    """The sparse layer of a linear layer or a convolution."""
    if isinstance(layer, nn.Conv2d):
        return SparseConv2d(layer)
    assert isinstance(layer, nn.Linear)
    return SparseLinear(csr_of(layer.weight, layer.bias))
