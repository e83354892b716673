"""Activations (Wanda): the size of a weight times the norm of the input that it multiplies."""

import inspect
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.parallel import sum_
from howsparse.pruning.orders.order import Order, make_order, risk_for
from howsparse.pruning.scores import as_rows, from_rows, rank_fractions
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.losses import Loss, cross_entropy
from howsparse.risk.weights import is_conv1d, select_weights

__all__ = ["input_norms", "wanda", "wanda_row"]

Squares = Callable[[Any, str, dict[str, Any]], Tensor]
"""Of a layer, a parameter's name in it and the arguments of a call: sums of squared inputs, as large as the weight."""

Places = list[tuple[str, str, Squares]]
"""Weights that the call of a layer reads: the weight's name, its name in the layer, and how to sum its inputs."""


def wanda(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = cross_entropy,
    names: Iterable[str] | None = None,
    seed: int = 0,
) -> Order:
    """The order of absolute value times norm of the input, over the whole network.

    Args:
        model: any module with linear, convolutional, embedding and attention layers; it is not changed.
        batches: calibration batches that can be read several times; all are used.
        loss: ``loss(model, batch)``; it calls the model on a batch.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        seed: not used.

    Returns:
        Scores are absolute weight times `input_norms`.

    Raises:
        InputError: there are no batches, a name is unknown, or a layer is of another kind.

    Source: Sun et al. (2023), A simple and effective pruning approach for large language models.

    >>> batches = [(torch.tensor([[1.0, 10.0]]), torch.tensor([0]))]
    >>> wanda(nn.Linear(2, 2), batches).num_weights
    4
    """
    return make_order("wanda", model, *_scores("wanda", model, batches, loss, names))


def wanda_row(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = cross_entropy,
    names: Iterable[str] | None = None,
    seed: int = 0,
) -> Order:
    """The order of absolute value times norm of the input, with the same sparsity for each output of each layer.

    A row of an embedding is one entry of its table.

    Args:
        model: any module with linear, convolutional, embedding and attention layers; it is not changed.
        batches: calibration batches that can be read several times; all are used.
        loss: ``loss(model, batch)``; it calls the model on a batch.
        names: names of the weights to prune; by default all prunable weights that are not frozen.
        seed: not used.

    Returns:
        Scores are ranks within the row of absolute weight times `input_norms`, as fractions of the row's length.

    Raises:
        InputError: there are no batches, a name is unknown, or a layer is of another kind.

    Source: Sun et al. (2023), A simple and effective pruning approach for large language models.

    >>> batches = [(torch.tensor([[1.0, 10.0, 3.0, 2.0]]), torch.tensor([0]))]
    >>> wanda_row(nn.Linear(4, 2), batches).mask(0.5)["weight"].sum(1).tolist()
    [2, 2]
    """
    sizes, note = _scores("wanda-row", model, batches, loss, names)
    scores = {
        name: from_rows(model, name, rank_fractions(as_rows(model, name, size)), size.shape)
        for name, size in sizes.items()
    }
    return make_order("wanda-row", model, scores, f"rank within each row of {note}")


def input_norms(risk: EmpiricalRisk) -> dict[str, Tensor]:
    """Norm of the input that each weight multiplies, over all examples and positions, by weight name.

    For a convolution, it is the norm over all places to which the kernel is applied, with padding. For an embedding, it
    is the square root of the number of times that a token occurs. If several layers use a weight, their squared norms
    are added. Every position of a sequence counts, including padding.

    Args:
        risk: the empirical risk of the model and the calibration batches.

    Returns:
        Tensors of the weights' shapes.

    Raises:
        InputError: a layer is of a kind whose inputs are not known, or its weight is used without calling the layer.

    Source: Sun et al. (2023), A simple and effective pruning approach for large language models.

    >>> risk = EmpiricalRisk(nn.Linear(2, 1), [(torch.tensor([[3.0, 1.0], [4.0, 0.0]]), torch.tensor([0, 0]))])
    >>> input_norms(risk)["weight"].tolist()
    [[5.0, 1.0]]
    """
    totals = {
        name: torch.zeros_like(leaf, requires_grad=False) for name, leaf in zip(risk.names, risk.leaves, strict=True)
    }
    readers = _readers(risk)
    called: set[str] = set()
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)  # the fused kernel does not call the layers
        call = stack.enter_context(risk.standing_in())
        stack.enter_context(torch.no_grad())
        for module, places in readers.items():
            hook = _hook(places, totals, called)
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        for batch, _ in risk.on_device():
            call(risk.loss, batch)
    _check_called(risk, called)
    return {name: sum_(total).sqrt_() for name, total in totals.items()}


def _scores(
    order: str, model: nn.Module, batches: Iterable[Any] | None, loss: Loss, names: Iterable[str] | None
) -> tuple[dict[str, Tensor], str]:
    risk = risk_for(order, model, batches, loss, names)
    leaves = dict(zip(risk.names, risk.leaves, strict=True))
    scores = {name: norm.mul_(leaves[name].detach().abs()) for name, norm in input_norms(risk).items()}
    return scores, f"|weight| times norm of its input, {risk.num_examples:,} examples"


def _readers(risk: EmpiricalRisk) -> dict[nn.Module, Places]:
    """For each layer, the weights under study that its call reads."""
    names = {id(w): name for name, w in select_weights(risk.model, risk.names).items()}
    readers: dict[nn.Module, Places] = {}
    for path, module in risk.model.named_modules():
        for leaf, parameter in _parameters(module):
            if id(parameter) in names:
                place = (names[id(parameter)], leaf.removesuffix("_orig"), _squares(module, leaf, path))
                readers.setdefault(module, []).append(place)
    return readers


def _parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters that the call of a layer reads. Attention reads its output projection without calling it."""
    own = list(module.named_parameters(recurse=False))
    if isinstance(module, nn.MultiheadAttention):
        own += [(f"out_proj.{leaf}", p) for leaf, p in module.out_proj.named_parameters(recurse=False)]
    return own


def _squares(module: nn.Module, leaf: str, path: str) -> Squares:
    """The function that sums the squared inputs of one of a layer's weights."""
    if isinstance(module, nn.MultiheadAttention):
        return _of_projection if leaf.startswith("out_proj.") else _of_attention
    if leaf.removesuffix("_orig") == "weight":
        if isinstance(module, nn.Linear):
            return _of_linear
        if is_conv1d(module):
            return _of_conv1d
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return _of_convolution
        if isinstance(module, nn.Embedding):
            return _of_embedding
    raise InputError(
        f"the inputs of '{leaf}' in layer '{path}' ({type(module).__name__}) are not known to this order;"
        " use another order, or give names without this layer"
    )


def _hook(places: Places, totals: dict[str, Tensor], called: set[str]) -> Callable[..., None]:
    """A hook that adds the squared inputs of each call of a layer."""
    busy = False

    def add(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal busy
        if busy:  # `_of_projection` calls the layer again
            return
        busy = True
        try:
            given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
            for name, leaf, squares in places:
                totals[name].add_(squares(module, leaf, given))
                called.add(name)
        finally:
            busy = False

    return add


def _check_called(risk: EmpiricalRisk, called: set[str]) -> None:
    """Raise an error if the loss depends on a weight whose layer was never called."""
    if called.issuperset(risk.names):
        return
    with risk.standing_in() as call:
        value = call(risk.loss, risk.on(next(iter(risk.all_batches))))
        slopes = torch.autograd.grad(value, risk.leaves, materialize_grads=True)
    for name, slope in zip(risk.names, slopes, strict=True):
        if name not in called and slope.any():
            raise InputError(
                f"'{name}' is used without a call of its layer, so its inputs are not seen;"
                " use another order, or give names without it"
            )


def _per_feature(values: Tensor) -> Tensor:
    """Sum of squares over everything but the last dimension, ``(features,)``."""
    return values.reshape(-1, values.shape[-1]).square().sum(0)


def _first(given: dict[str, Any]) -> Tensor:
    value: Tensor = next(iter(given.values()))
    return value


def _of_linear(layer: nn.Linear, leaf: str, given: dict[str, Any]) -> Tensor:
    return _per_feature(_first(given))


def _of_conv1d(layer: nn.Module, leaf: str, given: dict[str, Any]) -> Tensor:
    return _per_feature(_first(given))[:, None]


def _of_embedding(layer: nn.Embedding, leaf: str, given: dict[str, Any]) -> Tensor:
    return torch.bincount(_first(given).flatten(), minlength=layer.num_embeddings)[:, None]


def _of_convolution(layer: nn.Conv2d, leaf: str, given: dict[str, Any]) -> Tensor:
    """The gradient, in the kernel, of the sum of the convolution of squared inputs; one output for each group."""
    squared = _first(given).square()
    kernel = torch.zeros_like(layer.weight[: layer.groups], requires_grad=True)
    with torch.enable_grad():
        total = layer._conv_forward(squared, kernel, None).sum()
    (sums,) = torch.autograd.grad(total, kernel)
    return sums.repeat_interleave(layer.out_channels // layer.groups, dim=0)


def _of_attention(layer: nn.MultiheadAttention, leaf: str, given: dict[str, Any]) -> Tensor:
    sums = {part: _per_feature(given[part]) for part in ("query", "key", "value")}
    if leaf == "in_proj_weight":
        return torch.stack(list(sums.values())).repeat_interleave(layer.embed_dim, dim=0)
    return {"q_proj_weight": sums["query"], "k_proj_weight": sums["key"], "v_proj_weight": sums["value"]}[leaf]


def _of_projection(layer: nn.MultiheadAttention, leaf: str, given: dict[str, Any]) -> Tensor:
    """The inputs of the output projection: the outputs of the attention layer with the identity as its projection."""
    weight = layer.out_proj.weight
    identity = {"out_proj.weight": torch.eye(len(weight)).to(weight)}
    if layer.out_proj.bias is not None:
        identity["out_proj.bias"] = torch.zeros_like(layer.out_proj.bias)
    joined, _ = torch.func.functional_call(layer, identity, (), given | {"need_weights": False})
    return _per_feature(joined)
