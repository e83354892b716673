"""`PrunedNetwork`: the state of a pruned, and perhaps repaired, network, which can be put into a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.pruning.masks import Mask
from howsparse.risk.alone import alone_with

__all__ = ["PrunedNetwork"]


@dataclass(frozen=True, eq=False)
class PrunedNetwork:
    """A mask, and the weights, biases and buffers after a repair.

    Attributes:
        mask: weights that stay; the others are zero.
        state: parameters and buffers by name, as in ``state_dict``.
        order: name of the order in which the weights were removed.
        repair: name of the repair.

    >>> from howsparse import magnitude_mask
    >>> model = nn.Linear(10, 10)
    >>> mask = magnitude_mask(model, 0.9)
    >>> mask.apply_(model)
    >>> PrunedNetwork.of(model, mask).sparsity
    0.9
    """

    mask: Mask
    state: Mapping[str, Tensor] = field(repr=False)
    order: str = "given"
    repair: str = "given"

    @classmethod
    def of(cls, model: nn.Module, mask: Mask, order: str = "given", repair: str = "given") -> "PrunedNetwork":
        """Copy the present state of a model.

        Args:
            model: a model to which the mask was applied.
            mask: the mask.
            order: name of the order.
            repair: name of the repair.

        Returns:
            The mask and copies of all tensors.
        """
        return cls(mask, {name: tensor.clone() for name, tensor in _state(model).items()}, order, repair)

    @property
    def sparsity(self) -> float:
        """Fraction of the weights removed."""
        return self.mask.sparsity

    def apply_(self, model: nn.Module) -> None:
        """Copy all weights, biases and buffers into a model, in place.

        Args:
            model: a model of the same kind.

        Raises:
            InputError: the model has other names or shapes.

        >>> model = nn.Linear(2, 1)
        >>> network = PrunedNetwork.of(model, Mask(weight=torch.ones(1, 2).bool()))
        >>> model.weight.data.zero_()
        tensor([[0., 0.]])
        >>> network.apply_(model)
        >>> bool((model.weight == 0).any())
        False
        """
        known = _state(model)
        for name in known.keys() | self.state.keys():
            if name not in known or name not in self.state or known[name].shape != self.state[name].shape:
                raise InputError(f"the network is for another model: '{name}' differs; use a model of the same kind")
        with alone_with(model), torch.no_grad():
            for name, tensor in known.items():
                tensor.copy_(self.state[name])


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; the values share their memory with the model."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
