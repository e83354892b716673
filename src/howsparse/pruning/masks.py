"""Masks over the prunable weights of a model: magnitude masks and random masks."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.files import load_document, save_document
from howsparse.pruning.scores import magnitude_scores, random_scores
from howsparse.risk.alone import alone_with
from howsparse.risk.weights import prunable_weights, select_weights
from howsparse.shown import Card, Shown

__all__ = [
    "Mask",
    "check_sparsity",
    "largest",
    "largest_mask",
    "layerwise_mask",
    "magnitude_mask",
    "nested_masks",
    "random_mask",
]

_VERSION = 1


class Mask(Shown, dict[str, Tensor]):
    """A boolean tensor for each weight name. True: the weight stays. False: the weight is removed.

    >>> mask = Mask(fc=torch.tensor([[True, False], [False, False]]))
    >>> mask.sparsity, mask.num_weights, mask.num_kept
    (0.75, 4, 1)
    """

    def __repr__(self) -> str:
        return f"Mask(sparsity={self.sparsity:.4g}, num_weights={self.num_weights}, layers={len(self)})"

    def card(self) -> Card:
        """The sparsity of the network and of each layer.

        Returns:
            The table. It prints as text, and a notebook shows it as HTML.
        """
        parts = {"all layers": self.density} | self.layer_densities()
        return Card("Mask: weights removed", tuple((name, f"{100 * (1 - kept):.1f} %") for name, kept in parts.items()))

    @property
    def num_weights(self) -> int:
        return sum(kept.numel() for kept in self.values())

    @property
    def num_kept(self) -> int:
        return sum(int(kept.sum()) for kept in self.values())

    @property
    def density(self) -> float:
        """Fraction of weights that stay."""
        return self.num_kept / self.num_weights

    @property
    def sparsity(self) -> float:
        """Fraction of weights removed."""
        return 1 - self.density

    def layer_densities(self) -> dict[str, float]:
        """Fraction of each weight tensor that stays, by name.

        Returns:
            A fraction in [0, 1] for each name.
        """
        return {name: float(kept.float().mean()) for name, kept in self.items()}

    def apply_(self, model: nn.Module) -> None:
        """Set the removed weights of ``model`` to zero once, in place. `prune` also holds them at zero in training.

        Use this, not `prune`, before ``model.save_pretrained`` or ``torch.save(model.state_dict())``: the weights keep
        their names, so that any program can load the file.

        Args:
            model: the network to change.

        Raises:
            InputError: the mask does not fit the model.
        """
        weights = prunable_weights(model)
        self._check(weights)
        with alone_with(model), torch.no_grad():
            for name, kept in self.items():
                weights[name].masked_fill_(~kept.to(weights[name].device), 0.0)

    def save(self, path: str | Path) -> None:
        """Write the mask to one safetensors file. An interrupted call leaves no partial file.

        Args:
            path: path of the file; an existing file is replaced.
        """
        save_document(path, "mask", _VERSION, {}, self)

    @classmethod
    def load(cls, path: str | Path) -> "Mask":
        """Read a file that `save` wrote.

        Args:
            path: path of the file that `save` wrote.

        Returns:
            The mask that was saved.

        Raises:
            InputError: the file does not exist, has other contents, or is damaged.
        """
        _, tensors = load_document(path, "mask", _VERSION)
        return cls({name: kept.bool() for name, kept in tensors.items()})

    def _check(self, weights: dict[str, nn.Parameter]) -> None:
        for name, kept in self.items():
            if name not in weights:
                raise InputError(
                    f"the mask has '{name}', which is not a prunable weight of this model; use a mask for this model"
                )
            if kept.shape != weights[name].shape:
                raise InputError(
                    f"the mask of '{name}' has shape {tuple(kept.shape)}, but the weight has"
                    f" {tuple(weights[name].shape)}; use a mask for this model"
                )


def check_sparsity(sparsity: float) -> float:
    """Return ``sparsity`` if it is in [0, 1).

    Raises:
        InputError: it is not.
    """
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity {sparsity:g} is outside [0, 1); give the fraction of weights to remove")
    return float(sparsity)


def magnitude_mask(model: nn.Module, sparsity: float, names: Iterable[str] | None = None) -> Mask:
    """The mask of global magnitude pruning: the largest weights of the whole network stay.

    The number of weights that stay is exact. Of equal magnitudes, the first one stays.

    Args:
        model: any module; it is not changed.
        sparsity: fraction of the weights to remove, in [0, 1).
        names: names of the weights to prune; by default all prunable weights that are not frozen.

    Returns:
        The mask: a boolean tensor of the weight's shape for each name.

    Raises:
        InputError: the sparsity is outside [0, 1), the model has no prunable weight, or a name is unknown.

    Source: Han et al. (2015), Learning both weights and connections for efficient neural networks.

    >>> magnitude_mask(nn.Linear(100, 10), 0.9).num_kept
    100
    """
    check_sparsity(sparsity)
    chosen = select_weights(model, names)
    return largest_mask(model, round((1 - sparsity) * sum(w.numel() for w in chosen.values())), chosen)


def largest_mask(model: nn.Module, count: int, names: Iterable[str] | None = None) -> Mask:
    """The mask under which the ``count`` largest weights stay. Weights that torch has pruned are removed first.

    Args:
        model: any module; it is not changed.
        count: number of weights that stay.
        names: names of the weights to prune; by default all prunable weights that are not frozen.

    Raises:
        InputError: the model has no prunable weight, or a name is unknown.

    >>> largest_mask(nn.Linear(100, 10), 7).num_kept
    7
    """
    scores = magnitude_scores(model, names)
    return _split(largest(_flat(scores), count), scores)


def nested_masks(scores: Mapping[str, Tensor]) -> Callable[[float], Mask]:
    """Masks of many sparsities, under which the weights with the largest scores stay.

    The number of weights that stay is exact. Of equal scores, the first one stays, so a mask of a larger sparsity keeps
    no weight that a mask of a smaller sparsity removes. The scores are sorted once.

    Args:
        scores: a score for each weight, by weight name.

    Returns:
        A function that returns the mask of a sparsity in [0, 1).

    >>> nested_masks({"fc": torch.tensor([3.0, 1.0, 2.0, 1.0])})(0.25)["fc"]
    tensor([ True,  True,  True, False])
    """
    flat = _flat(scores)
    ordered = flat.sort().values

    def mask_at(sparsity: float) -> Mask:
        count = round((1 - check_sparsity(sparsity)) * flat.numel())
        kept = _at_least(flat, ordered[-count], count) if count else torch.zeros_like(flat, dtype=torch.bool)
        return _split(kept, scores)

    return mask_at


def layerwise_mask(model: nn.Module, sparsity: float, names: Iterable[str] | None = None) -> Mask:
    """The mask of magnitude pruning with the same sparsity in every layer.

    Args:
        model: any module; it is not changed.
        sparsity: fraction of each layer's weights to remove, in [0, 1).
        names: names of the weights to prune; by default all prunable weights that are not frozen.

    Returns:
        The mask: a boolean tensor of the weight's shape for each name.

    Raises:
        InputError: the sparsity is outside [0, 1), the model has no prunable weight, or a name is unknown.

    Source: Han et al. (2015), Learning both weights and connections for efficient neural networks.

    >>> layerwise_mask(nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 20)), 0.9).layer_densities()
    {'0.weight': 0.1..., '1.weight': 0.1...}
    """
    check_sparsity(sparsity)
    return Mask(
        {
            name: largest(magnitude.flatten(), round((1 - sparsity) * magnitude.numel())).view(magnitude.shape)
            for name, magnitude in magnitude_scores(model, names).items()
        }
    )


def random_mask(model: nn.Module, sparsity: float, names: Iterable[str] | None = None, seed: int = 0) -> Mask:
    """The mask of random pruning: the weights that stay are drawn uniformly from the whole network.

    Args:
        model: any module; it is not changed.
        sparsity: fraction of the weights to remove, in [0, 1).
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        seed: seed of the random draw.

    Returns:
        The mask: a boolean tensor of the weight's shape for each name.

    Raises:
        InputError: the sparsity is outside [0, 1), the model has no prunable weight, or a name is unknown.

    >>> random_mask(nn.Linear(100, 10), 0.9).num_kept
    100
    """
    check_sparsity(sparsity)
    scores = random_scores(model, names, seed)
    size = sum(score.numel() for score in scores.values())
    return _split(largest(_flat(scores), round((1 - sparsity) * size)), scores)


def largest(values: Tensor, count: int) -> Tensor:
    """Boolean mask, True for the ``count`` largest entries of a vector. Of equal entries, the first ones are True."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    return _at_least(values, values.kthvalue(values.numel() - count + 1).values, count)


def _at_least(values: Tensor, threshold: Tensor, count: int) -> Tensor:
    """Boolean mask of the ``count`` largest entries; ``threshold`` is the smallest of them. The first of ties stay."""
    kept = values > threshold
    ties = (values == threshold).nonzero().flatten()
    kept[ties[: count - int(kept.sum())]] = True
    return kept


def _flat(scores: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([score.flatten() for score in scores.values()])


def _split(kept: Tensor, like: Mapping[str, Tensor]) -> Mask:
    """Split a flat mask into one tensor for each weight, of the same shapes as the tensors in ``like``."""
    sizes = [part.numel() for part in like.values()]
    return Mask({name: k.view(part.shape) for (name, part), k in zip(like.items(), kept.split(sizes), strict=True)})
