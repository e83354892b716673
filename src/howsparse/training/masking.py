"""A hook on the optimizer that holds pruned weights at exactly zero in any training loop."""

import torch
from torch import nn

from howsparse.errors import InputError
from howsparse.pruning.masks import Mask
from howsparse.risk.weights import select_weights

__all__ = ["Masking", "attach_mask"]


class Masking:
    """Sets removed weights to zero after every step of an optimizer, until `remove` is called.

    Momentum and weight decay may move a removed weight within the step; it is zero again before the next forward pass.
    Hooks run in the order in which they were attached: attach this one last.

    Args:
        optimizer: holds the weights of the mask.
        model: the network; its removed weights are set to zero immediately.
        mask: the weights that stay.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> masking = Masking(torch.optim.SGD(layer.parameters()), layer, Mask(weight=torch.tensor([[True, False]])))
    >>> layer.weight.count_nonzero().item()
    1
    """

    def __init__(self, optimizer: torch.optim.Optimizer, model: nn.Module, mask: Mask) -> None:
        self._model = model
        self.mask = mask
        self._handle = optimizer.register_step_post_hook(self._zero)

    @property
    def mask(self) -> Mask:
        """The present mask. Setting another one sets its removed weights to zero immediately."""
        return self._mask

    @mask.setter
    def mask(self, mask: Mask) -> None:
        mask.apply_(self._model)
        self._mask = mask
        removed = [(w, ~mask[name].to(w.device)) for name, w in select_weights(self._model, mask).items()]
        self._removed = [(weight, where) for weight, where in removed if where.any()]

    def remove(self) -> None:
        """Stop holding weights at zero."""
        self._handle.remove()

    @torch.no_grad()
    def _zero(self, *_: object) -> None:
        for weight, removed in self._removed:
            weight.masked_fill_(removed, 0.0)


def attach_mask(optimizer: torch.optim.Optimizer, model: nn.Module, mask: Mask) -> Masking:
    """Hold the weights that ``mask`` removes at exactly zero while ``optimizer`` trains ``model``.

    Args:
        optimizer: holds every weight that the mask names. Attach l1 terms before the mask.
        model: its removed weights are set to zero immediately.
        mask: the weights that stay.

    Returns:
        The attached mask. Assign to its ``mask`` to change the mask; call ``remove()`` to detach it.

    Raises:
        InputError: the mask does not fit the model, or the optimizer does not hold a weight of the mask.

    >>> from howsparse.pruning.masks import magnitude_mask
    >>> layer = nn.Linear(8, 8)
    >>> sgd = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    >>> _ = attach_mask(sgd, layer, magnitude_mask(layer, 0.75))
    >>> layer(torch.ones(1, 8)).sum().backward()
    >>> _ = sgd.step()
    >>> layer.weight.count_nonzero().item()
    16
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, weight in select_weights(model, mask).items():
        if id(weight) not in held:
            raise InputError(f"the optimizer does not hold '{name}' of the mask; make it with all parameters")
    return Masking(optimizer, model, mask)
