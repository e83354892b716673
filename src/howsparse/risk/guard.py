"""Decorators that restore the model if a function of it ends with an exception, for example after Ctrl-C.

A context manager alone is not enough: Python may be interrupted between the end of ``__enter__`` and the body, or at
the beginning of ``__exit__``, and then nothing is restored. So the functions that users call also have a decorator. It
is active before the first context is entered.
"""

import functools
import traceback
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack, _pop_mode

__all__ = ["guarded", "guarded_with_values"]

_ATTENTION = ("flash", "mem_efficient", "math", "cudnn")  # torch's kernels for it

Function = TypeVar("Function", bound=Callable[..., Any])


def guarded(function: Function) -> Function:
    """Restore the model if the function ends with an exception, for example by Ctrl-C at any of its lines.

    For every argument that is a module, this restores the attributes, hooks and modes of its layers, its parameters,
    gradients and buffers. It also restores torch's random state and settings. It does not restore the numbers in
    parameters: use `guarded_with_values` for a function that changes them.

    Args:
        function: a function of a model.

    >>> @guarded
    ... def interrupted(model):
    ...     model.eval()
    ...     raise KeyboardInterrupt
    >>> layer = nn.Linear(1, 1)
    >>> try:
    ...     interrupted(layer)
    ... except KeyboardInterrupt:
    ...     print(layer.training)
    True
    """
    return _guarded(function, values=False)


def guarded_with_values(function: Function) -> Function:
    """`guarded`, for a function that changes numbers in the model's parameters. It keeps a copy of them.

    Args:
        function: a function whose first parameter is the model that it changes, named ``model``.

    >>> @guarded_with_values
    ... def interrupted(model):
    ...     model.weight.data.fill_(7.0)
    ...     raise KeyboardInterrupt
    >>> layer = nn.Linear(1, 1)
    >>> try:
    ...     interrupted(layer)
    ... except KeyboardInterrupt:
    ...     print(layer.weight.item() == 7.0)
    False
    """
    return _guarded(function, values=True)


def _guarded(function: Function, values: bool) -> Function:
    @functools.wraps(function)
    def guarding(*args: Any, **kwargs: Any) -> Any:
        models = [value for value in (*args, *kwargs.values()) if isinstance(value, nn.Module)]
        changed = kwargs.get("model", args[0] if args else None) if values else None
        steps = [_settings()]
        for model in models:
            steps += [*_state(model), *_tensors(model, model is changed)]
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):  # a context that was not left ends now, not after what follows
                traceback.clear_frames(error.__traceback__)
            for step in steps:
                step()
            raise

    return cast(Function, guarding)


def _state(model: nn.Module) -> list[Callable[[], None]]:
    """Functions that put back the attributes of each module, and the dicts and lists in them, such as hooks."""
    steps: list[Callable[[], None]] = []
    for module in model.modules():
        attributes = vars(module)
        inner = [(value, value.copy()) for value in attributes.values() if type(value) in (dict, OrderedDict, list)]
        steps.append(functools.partial(_put_back, [(attributes, dict(attributes)), *inner]))
    return steps


def _put_back(pairs: list[tuple[Any, Any]]) -> None:
    for now, before in pairs:
        now.clear()
        now.extend(before) if isinstance(now, list) else now.update(before)


def _tensors(model: nn.Module, values: bool) -> list[Callable[[], None]]:
    """Functions that put back each parameter's tensor and gradient, and the numbers in buffers (and in parameters)."""
    steps: list[Callable[[], None]]
    steps = [functools.partial(_set_parameter, p, p.data, p.grad, p.requires_grad) for p in model.parameters()]
    copied = [*model.buffers(), *(model.parameters() if values else ())]
    return [*steps, *(functools.partial(_set_values, tensor, tensor.detach().clone()) for tensor in copied)]


def _set_parameter(p: nn.Parameter, data: Tensor, grad: Tensor | None, requires_grad: bool) -> None:
    p.data = data
    p.grad = grad
    p.requires_grad_(requires_grad)


def _set_values(tensor: Tensor, before: Tensor) -> None:
    tensor.detach().copy_(before)


def _settings() -> Callable[[], None]:
    """A function that puts back torch's random state and all settings that this package changes for a time."""
    random, gpus = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    grad, fastpath = torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()
    modes = len(_get_current_function_mode_stack())
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)
    precision = getattr(matmul, "fp32_precision", None)
    cudnn: Any = torch.backends.cudnn
    flags = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    attention = {name: getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in _ATTENTION}

    def put_back() -> None:
        torch.set_grad_enabled(grad)
        while len(_get_current_function_mode_stack()) > modes:
            _pop_mode()
        torch.backends.mha.set_fastpath_enabled(fastpath)
        if precision is not None and matmul.fp32_precision != precision:
            matmul.fp32_precision = precision
        for name, flag in flags.items():
            setattr(cudnn, name, flag)
        for name, enabled in attention.items():
            getattr(torch.backends.cuda, f"enable_{name}_sdp")(enabled)
        torch.set_rng_state(random)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)

    return put_back
