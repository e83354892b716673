"""Remove the units and channels of a network that pruning has made dead. Outputs stay the same."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from howsparse.deploy.channels import Removal, dead_channels, remove
from howsparse.deploy.constants import fold_constants, inputs_that_vary
from howsparse.deploy.copies import plain_copy
from howsparse.deploy.timing import OF_NETWORKS, called, of_batch
from howsparse.errors import first_line

__all__ = ["Compacted", "compact", "compacted"]

TOLERANCE = 1e-5  # relative difference of outputs that counts as equal
_MOST_ROUNDS = 20


@dataclass(frozen=True)
class Compacted:
    """A network without its dead units and channels.

    Attributes:
        model: the smaller copy, or an unchanged copy.
        reason: why nothing could be removed; None if something was, or if nothing is dead.
        weights_before, weights_after: number of parameters.
        difference: largest difference of outputs on the example, relative to the largest output, in float64.

    >>> Compacted(nn.Linear(2, 2), None, weights_before=100, weights_after=25, difference=0.0).sentence
    'compacted: 100 -> 25 parameters (75.0 % removed)'
    """

    model: nn.Module
    reason: str | None
    weights_before: int
    weights_after: int
    difference: float

    @property
    def sentence(self) -> str:
        """What was done, in one line."""
        if self.reason is not None:
            return f"not compacted: {self.reason}"
        share = 100 * (1 - self.weights_after / max(1, self.weights_before))
        return f"compacted: {self.weights_before:,} -> {self.weights_after:,} parameters ({share:.1f} % removed)"


def compact(model: nn.Module, example: Any) -> nn.Module:
    """A smaller copy without dead units and channels. `compacted` also says what was removed, or why nothing was.

    A unit or channel is dead if all its input weights or all its output weights are zero. A unit without input weights
    has a constant output, which moves into the bias of the next layer. Dead channels are followed through residual
    sums, BatchNorm in evaluation mode, flattening and concatenation. The dependency graph of Torch-Pruning says which
    weights belong to a channel.

    Args:
        model: a network, pruned by a mask or by `torch.nn.utils.prune`.
        example: an input: a tensor, a tuple of arguments, or a dict of keyword arguments.

    Returns:
        The copy. Its outputs in evaluation mode equal those of the network, up to rounding. Channels for which this
        cannot be verified stay.

    Raises:
        InputError: torch-pruning is not installed.

    Source: Fang et al. (2023), DepGraph: Towards Any Structural Pruning.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> _ = model[0].weight.data[:2].zero_()
    >>> compact(model, torch.zeros(1, 3))[0]
    Linear(in_features=3, out_features=2, bias=True)
    """
    return compacted(model, example).model


def compacted(model: nn.Module, example: Any) -> Compacted:
    """Compact a network, and say what was removed, or why nothing was.

    Args:
        model: a network; see `compact`.
        example: an input.

    Returns:
        The smaller copy, with what was removed.

    Raises:
        InputError: torch-pruning is not installed.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> _ = model[0].weight.data[:2].zero_()  # no input reaches the first two of the four units
    >>> compacted(model, torch.zeros(1, 3)).sentence
    'compacted: 26 -> 14 parameters (46.2 % removed)'
    """
    plain = plain_copy(model)
    before = _size(plain)
    try:
        work = _in_double(plain)
        inputs = _in_double(of_batch(example, 2))
        expected = _outputs(work, inputs)
        smaller = _rounds(work, inputs, expected)
    except OF_NETWORKS as error:
        return Compacted(
            plain, f"the network cannot be traced ({type(error).__name__}: {first_line(error)})", before, before, 0.0
        )
    difference = _difference(_outputs(smaller, inputs), expected)
    return Compacted(_as_before(smaller, plain), None, before, _size(smaller), difference)


def _rounds(model: nn.Module, inputs: Any, expected: list[Tensor]) -> nn.Module:
    """Fold and remove until nothing is dead."""
    for _ in range(_MOST_ROUNDS):
        folded = copy.deepcopy(model)
        if _fold(folded, inputs) and _same(folded, inputs, expected):
            model = folded
        smaller = _without(model, inputs, expected)
        if smaller is None:
            break
        model = smaller
    return model


def _fold(model: nn.Module, inputs: Any) -> bool:
    """Move what is constant into biases, and drop what a BatchNorm multiplies by zero."""
    shared = _shared(model)
    changed = False
    for name, x in inputs_that_vary(model, inputs).items():
        layer = model.get_submodule(name)
        if layer.weight not in shared:
            changed |= fold_constants(layer, x)  # type: ignore[arg-type]
    return changed


def _without(model: nn.Module, inputs: Any, expected: list[Tensor]) -> nn.Module | None:
    """A copy without dead channels: all of them if outputs stay, else those for which they stay. None if none go."""
    removals = dead_channels(model, inputs)
    if not removals:
        return None
    smaller = _tried(model, removals, inputs, expected)
    if smaller is not None:
        return smaller
    last = None
    for removal in removals:
        smaller = _tried(model if last is None else last, [removal], inputs, expected)
        last = last if smaller is None else smaller
    return last


def _tried(model: nn.Module, removals: list[Removal], inputs: Any, expected: list[Tensor]) -> nn.Module | None:
    smaller = copy.deepcopy(model)
    try:
        remove(smaller, removals, inputs)
        return smaller if _same(smaller, inputs, expected) else None
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError):
        return None


def _same(model: nn.Module, inputs: Any, expected: list[Tensor]) -> bool:
    return _difference(_outputs(model, inputs), expected) < TOLERANCE


def _difference(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference relative to the largest value; infinite if the outputs have other shapes."""
    if [each.shape for each in outputs] != [each.shape for each in expected]:
        return float("inf")
    pairs = [(a, b) for a, b in zip(outputs, expected, strict=True) if a.is_floating_point() and a.numel()]
    found = [float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs]
    return max((float("inf") if each != each else each for each in found), default=0.0)


@torch.no_grad()
def _outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    found = called(model, inputs)()
    return [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor)]


def _shared(model: nn.Module) -> set[Tensor]:
    """Parameters that several layers use."""
    seen: set[Tensor] = set()
    again: set[Tensor] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            (again if parameter in seen else seen).add(parameter)
    return again


def _in_double(thing: Any) -> Any:
    """A copy in float64; for a network in evaluation mode, with gradients for all parameters, as tracing needs."""
    if isinstance(thing, nn.Module):
        model = copy.deepcopy(thing).double().eval()
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        return model

    def taken(leaf: Any) -> Any:
        return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    return pytree.tree_map(taken, dict(thing) if isinstance(thing, dict) else thing)


def _as_before(model: nn.Module, plain: nn.Module) -> nn.Module:
    """The network with the types, modes and frozen parameters of before."""
    modules, parameters, buffers = (
        dict(each) for each in (plain.named_modules(), _parameters(plain), plain.named_buffers())
    )
    some = next(iter(parameters.values()), torch.zeros(()))
    for name, module in model.named_modules():
        module.training = modules[name].training
    for name, parameter in _parameters(model):
        like = parameters.get(name, some)
        parameter.data = parameter.data.to(like.dtype)
        parameter.requires_grad_(like.requires_grad)
        parameter.grad = None
    for name, buffer in model.named_buffers():
        buffer.data = buffer.data.to(buffers[name].dtype)
    return model


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return model.named_parameters(remove_duplicate=False)


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
