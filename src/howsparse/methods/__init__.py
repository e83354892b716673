"""Pruning methods, a file each: a task, a sparsity and a seed in, a pruned and trained network out."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

from howsparse.errors import InputError
from howsparse.methods.stages import Limits, Run, Sparsity, Stage, Stages, Ticket

__all__ = ["Limits", "Method", "Run", "Sparsity", "Stage", "Stages", "Ticket", "load_method", "method_names"]

Method = functools.partial[Ticket]

_SHARED = "stages"


def method_names() -> list[str]:
    """Every method: the files of this folder, each holding the function of its name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != _SHARED)


def load_method(name: str) -> Method:
    """A method by its name, with options after a colon if it is to have some.

    Raises:
        InputError: no such method or option, or a value of another kind than the option's default.

    >>> load_method("lottery_ticket:rate=0.5,rewind=2").keywords
    {'rate': 0.5, 'rewind': 2}
    """
    name, _, options = name.partition(":")
    if name not in method_names():
        raise InputError(f"no method is called '{name}'; choose from: {', '.join(method_names())}")
    method: Callable[..., Ticket] = getattr(importlib.import_module(f"howsparse.methods.{name}"), name)
    known = {
        parameter.name: parameter.default
        for parameter in inspect.signature(method).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and not callable(parameter.default)
    }
    return functools.partial(method, **dict(_option(name, part, known) for part in _parts(options)))


def _parts(options: str) -> list[str]:
    return [part.strip() for part in options.split(",") if part.strip()]


def _option(method: str, text: str, known: dict[str, Any]) -> tuple[str, Any]:
    """``key=value`` as a pair, the value of its default's type."""
    key, _, value = text.partition("=")
    if key not in known:
        raise InputError(f"{method} has no option '{key}'; it has: {', '.join(known) or 'none'}")
    kind = type(known[key])
    try:
        return key, kind(value)
    except ValueError:
        raise InputError(f"option {key} of {method} takes a value such as {known[key]}, not '{value}'") from None
