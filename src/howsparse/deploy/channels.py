"""Channels that no layer reads, by the dependency graph of Torch-Pruning."""

import copy
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils import _pytree as pytree

from howsparse.deploy.constants import LAYERS
from howsparse.deploy.timing import called
from howsparse.errors import InputError

__all__ = ["ChannelGroup", "Member", "Removal", "dead_channels", "inner_groups", "remove"]

# torch's functions that make each channel of their output from the same channel of their inputs, by their gradient
_CHANNELWISE = (
    *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Silu", "Mish", "Sigmoid", "LogSigmoid", "Tanh", "Softplus"),
    *("Hardtanh", "Hardswish", "Hardsigmoid", "Softshrink", "Hardshrink", "Threshold", "Clamp", "Abs", "Exp", "Sqrt"),
    *("Add", "Sub", "Mul", "Div", "Neg", "Pow", "MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "Mean"),
    *(
        "MkldnnAdaptiveAvgPool",
        "MkldnnMaxPool",
        "UpsampleNearest",
        "UpsampleBilinear",
        "ConstantPadNd",
        "ReflectionPad",
        "ReplicationPad",
    ),
    *("NativeDropout", "Dropout", "Clone", "ToCopy", "Alias", "Squeeze", "Unsqueeze", "Permute", "Transpose", "T"),
    *("UnsafeView", "View", "Reshape"),
)


@dataclass(frozen=True)
class Removal:
    """Channels to remove: outputs of a layer, with all that belongs to them.

    Attributes:
        layer: name of the layer.
        channels: numbers of its outputs.
    """

    layer: str
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Member:
    """Channels of one module that belong to channels of a layer.

    Attributes:
        node: the module's node in the dependency graph.
        makes: whether these channels are outputs of the module; else they are inputs.
        channels: numbers of the channels in the module.
        roots: for each of them, the number of the layer's channel.
    """

    node: Any
    makes: bool
    channels: list[int]
    roots: list[int]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that go or stay together: outputs of a layer, with all that belongs to them.

    Attributes:
        layer: name of the layer.
        width: number of its outputs.
        members: channels of modules and functions that belong to them, the layer's own included.
    """

    layer: str
    width: int
    members: list[Member]


def dead_channels(model: nn.Module, example: Any) -> list[Removal]:
    """Channels that no layer reads.

    Layers are taken from the output to the input. The weights that make a dead channel then count as zero, so that the
    layers before it are seen to be dead too.

    Args:
        model: a network in evaluation mode.
        example: an input.

    Raises:
        InputError: torch-pruning is not installed.
    """
    model = copy.deepcopy(model)  # its weights are set to zero
    graph, ends = _graph(model, example)
    _drop_unscaled(graph)
    found = []
    for group in _groups(model, graph, example):
        dead = _unread(group, ends)
        if bool(dead.all()):
            dead[0] = False  # a layer keeps at least one channel
        if bool(dead.any()):
            found.append(Removal(group.layer, tuple(dead.nonzero().flatten().tolist())))
            _silence(group, dead)
    return found


def inner_groups(model: nn.Module, example: Any) -> list[ChannelGroup]:
    """The groups of channels of a network that can be removed, from the output to the input; not its outputs.

    Args:
        model: a network in evaluation mode.
        example: an input.

    Raises:
        InputError: torch-pruning is not installed.
    """
    graph, ends = _graph(model, example)
    return [group for group in _groups(model, graph, example) if not any(_ends(each, ends) for each in group.members)]


def _groups(model: nn.Module, graph: Any, example: Any) -> Iterator[ChannelGroup]:
    names = {module: name for name, module in model.named_modules()}
    alone = _called_once(model, example) - _sharing(model)
    done: set[nn.Module] = set()
    for layer in [module for module in graph.module2node if isinstance(module, LAYERS)]:
        reached = _reached(graph, layer)
        if layer in done or not all(_is_known(node, alone) and not _adds_channels(node, layer) for node in reached):
            continue
        members = [
            Member(item.dep.target, graph.is_out_channel_pruning_fn(item.dep.handler), item.idxs, item.root_idxs)
            for item in _group(graph, layer, range(len(layer.weight))).items
        ]
        done |= {member.node.module for member in members if member.makes}
        yield ChannelGroup(names[layer], len(layer.weight), members)


def remove(model: nn.Module, removals: list[Removal], example: Any) -> None:
    """Remove channels, in place.

    Args:
        model: a network in evaluation mode.
        removals: what `dead_channels` found.
        example: an input.
    """
    graph, _ = _graph(model, example)
    groups = [_group(graph, model.get_submodule(each.layer), each.channels) for each in removals]
    for group in groups:
        group.prune(record_history=False)


def _group(graph: Any, layer: nn.Module, channels: Iterable[int]) -> Any:
    """All that belongs to outputs of a layer."""
    return graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, list(channels))


def _unread(group: ChannelGroup, ends: set[Any]) -> Tensor:
    """Which channels no layer reads, and that are no output: shape (width,)."""
    unread = torch.ones(group.width, dtype=torch.bool)
    for member in group.members:
        module, roots = member.node.module, torch.tensor(member.roots)
        if _is_plain(module) and not member.makes:
            read = (module.weight.detach() != 0).transpose(0, 1).flatten(1).any(1)
            unread[roots[read[torch.tensor(member.channels)]]] = False
        elif _ends(member, ends):
            unread[roots] = False
    return unread


def _ends(member: Member, ends: set[Any]) -> bool:
    """Whether channels are outputs of the network."""
    reads = _is_plain(member.node.module) and not member.makes
    return not reads and (member.node.grad_fn in ends or not member.node.outputs)


def _reached(graph: Any, layer: nn.Module) -> set[Any]:
    """The nodes that removing outputs of a layer may reach. Torch-Pruning's own search may not end in attention."""
    start = (graph.module2node[layer], graph.get_pruner_of_module(layer).prune_out_channels)
    seen, todo = {start}, [start]
    while todo:
        node, handler = todo.pop()
        for dependency in node.dependencies:
            step = (dependency.target, dependency.handler)
            if dependency.is_triggered_by(handler) and step not in seen:
                seen.add(step)
                todo.append(step)
    return {node for node, _ in seen}


def _is_known(node: Any, alone: set[nn.Module]) -> bool:
    """Whether it is known how a module or function treats channels."""
    if node.type.name == "OUTPUT":
        return True
    return (_is_plain(node.module) and node.module in alone) or _keeps_apart(node, alone)


def _adds_channels(node: Any, layer: nn.Module) -> bool:
    """Whether a function pads channels, as shortcuts in CIFAR's ResNets do. Channels after it have other numbers."""
    spatial = layer.get_parameter("weight").ndim - 2
    return any(getattr(node.grad_fn, "_saved_pad", ())[2 * spatial :])


def _keeps_apart(node: Any, alone: set[nn.Module]) -> bool:
    """Whether a module or function makes each channel of its output from the same channel of its input."""
    if isinstance(node.module, _BatchNorm | _InstanceNorm | nn.PReLU):
        return node.module in alone
    if isinstance(node.module, LAYERS):
        return node.module in alone and node.module.groups == node.module.in_channels == node.module.out_channels
    if node.type.name in ("CONCAT", "SPLIT", "RESHAPE", "SLICE"):
        return True
    function = str(getattr(node.module, "_grad_fn", "")).split("Backward")[0]
    if function in ("Mm", "Addmm"):  # the product of a linear layer, whose output has another shape
        return len(node.outputs) == 1 and isinstance(node.outputs[0].module, nn.Linear)
    return re.sub(r"\d.*", "", function) in _CHANNELWISE


def _is_plain(layer: nn.Module) -> bool:
    """Whether every output of a layer may read every input."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, LAYERS) and bool(layer.groups == 1))


@torch.no_grad()
def _silence(group: ChannelGroup, dead: Tensor) -> None:
    """Set the weights that make dead channels to zero."""
    for member in group.members:
        if isinstance(member.node.module, LAYERS) and member.makes:
            gone = torch.tensor(member.channels)[dead[torch.tensor(member.roots)]]
            member.node.module.weight[gone] = 0


@torch.no_grad()
def _drop_unscaled(graph: Any) -> None:
    """Set the weights of channels to zero that the next BatchNorm multiplies by zero."""
    for node in graph.module2node.values():
        if not isinstance(node.module, _BatchNorm) or node.module.weight is None or len(node.inputs) != 1:
            continue
        before = node.inputs[0]
        if isinstance(before.module, LAYERS) and len(before.outputs) == 1:
            before.module.weight[node.module.weight == 0] = 0


def _called_once(model: nn.Module, example: Any) -> set[nn.Module]:
    """Modules that one pass calls once."""
    calls: Counter[nn.Module] = Counter()
    handles = [module.register_forward_pre_hook(lambda module, _: calls.update([module])) for module in model.modules()]
    try:
        with torch.no_grad():
            called(model, example)()
    finally:
        for handle in handles:
            handle.remove()
    return {module for module, count in calls.items() if count == 1}


def _sharing(model: nn.Module) -> set[nn.Module]:
    """Modules with a parameter that another one has too."""
    users: dict[nn.Parameter, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            users.setdefault(parameter, []).append(module)
    return {module for modules in users.values() if len(modules) > 1 for module in modules}


def _graph(model: nn.Module, example: Any) -> tuple[Any, set[Any]]:
    """The dependency graph of a network, and the gradient functions of its outputs."""
    try:
        import torch_pruning
    except ImportError:
        raise InputError("compaction needs torch-pruning; install it: pip install 'howsparse[deploy]'") from None
    ends: set[Any] = set()

    def outputs(found: Any) -> list[Tensor]:
        leaves = [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor) and leaf.grad_fn is not None]
        ends.update(leaf.grad_fn for leaf in leaves)
        return leaves

    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(
            model, example, lambda network, inputs: called(network, inputs)(), outputs, verbose=False
        )
    return graph, ends
