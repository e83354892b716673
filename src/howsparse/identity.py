"""Names and digests of functions, objects and networks, so that a changed one is not taken for the old one."""

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from torch import Tensor, nn

from howsparse.store import digest

__all__ = ["architecture", "describe"]

_KNOWN = ("howsparse", "torch", "builtins")  # packages whose code is identified by their versions


def architecture(model: nn.Module) -> dict[str, object]:
    """What defines a network apart from the values of its parameters: its printed form, and the source of its classes.

    Args:
        model: any module.

    >>> from torch import nn
    >>> architecture(nn.Linear(2, 3))
    {'text': 'Linear(in_features=2, out_features=3, bias=True)', 'classes': []}
    """
    classes = {type(module) for module in model.modules()}
    named = [_named(kind) for kind in classes if kind.__module__.partition(".")[0] not in _KNOWN]
    return {"text": repr(model), "classes": sorted(named, key=lambda each: each["name"])}


def describe(thing: object) -> Any:
    """The name and the settings of a function, a class or an object, as JSON values.

    For a function or class that is not of this package or torch, the result has a digest of its source. For a function
    it also has the values that the function takes from the function around it, and for an object its attributes. If
    one of these changes, the result changes. Functions that a function calls are not included.

    Args:
        thing: anything; one with a method ``settings()`` describes itself by that.

    >>> describe(partial(max, 1))
    {'name': 'builtins.max', 'arguments': [1], 'keywords': {}}
    """
    return _described(thing, ())


def _described(thing: Any, around: tuple[int, ...]) -> Any:
    """`describe`; ``around`` are the ids of the objects that hold this one, so that a cycle ends."""
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if id(thing) in around:
        return "itself"
    around = (*around, id(thing))
    if isinstance(thing, Tensor):
        return {"name": "tensor", "digest": digest(thing)[:12]}
    if isinstance(thing, list | tuple):
        return [_described(item, around) for item in thing]
    if isinstance(thing, Mapping):
        return {str(key): _described(value, around) for key, value in thing.items()}
    if isinstance(thing, nn.Module):
        return {**architecture(thing), "state": digest(thing.state_dict())[:12]}
    own = getattr(thing, "settings", None)
    if callable(own) and not inspect.isclass(thing):
        return own()
    if isinstance(thing, partial):
        named = _described(thing.func, around)
        arguments = {"arguments": list(thing.args), "keywords": dict(thing.keywords)}
        return named | _described(arguments, around)
    if inspect.isroutine(thing) or inspect.isclass(thing):
        return _named(thing) | _closure(thing, around)
    return _named(type(thing)) | _attributes(thing, around)


def _named(thing: Any) -> dict[str, str]:
    """Module and name of a function or class, with a digest of its source unless it is of this package or torch."""
    module = getattr(thing, "__module__", None) or "builtins"
    named = {"name": f"{module}.{thing.__qualname__}"}
    if module.partition(".")[0] in _KNOWN:
        return named
    try:
        source = inspect.getsource(thing)
    except (OSError, TypeError):
        return named
    return named | {"source": sha256(source.encode()).hexdigest()[:12]}


def _closure(thing: Any, around: tuple[int, ...]) -> dict[str, Any]:
    """The values that a function takes from the function around it, and its defaults."""
    names = getattr(getattr(thing, "__code__", None), "co_freevars", ())
    cells = getattr(thing, "__closure__", None) or ()
    defaults = getattr(thing, "__defaults__", None)
    values = {name: cell.cell_contents for name, cell in zip(names, cells, strict=True) if _filled(cell)}
    values |= {} if defaults is None else {"defaults": defaults}
    return {"values": _described(values, around)} if values else {}


def _filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return False
    return True


def _attributes(thing: Any, around: tuple[int, ...]) -> dict[str, Any]:
    """The attributes of an object; those of a dataclass by its fields."""
    if is_dataclass(thing):
        values = {field.name: getattr(thing, field.name) for field in fields(thing)}
    else:
        values = dict(getattr(thing, "__dict__", {}))
    return {"attributes": _described(values, around)} if values else {}
