"""Pruning methods. A method is a function that takes a problem, a sparsity and a seed, and returns a `Ticket`."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from howsparse.errors import InputError
from howsparse.methods.dense import dense
from howsparse.methods.gradual import gradual
from howsparse.methods.limit_guided import limit_guided
from howsparse.methods.lottery_ticket import lottery_ticket
from howsparse.methods.one_shot import one_shot
from howsparse.methods.random import random
from howsparse.methods.rare_gems import rare_gems
from howsparse.methods.smart_ratio import smart_ratio
from howsparse.methods.stages import Run, Sparsity, Stages
from howsparse.methods.surgeon import surgeon
from howsparse.methods.ticket import Stage, Ticket

__all__ = [
    "METHODS",
    "Method",
    "Run",
    "Sparsity",
    "Stage",
    "Stages",
    "Ticket",
    "dense",
    "gradual",
    "limit_guided",
    "load_method",
    "lottery_ticket",
    "one_shot",
    "random",
    "rare_gems",
    "smart_ratio",
    "surgeon",
]

_LARGEST = 1_000_000  # epochs, rounds, products: more would never end

Method = functools.partial[Ticket]

METHODS: dict[str, Callable[..., Ticket]] = {
    method.__name__: method
    for method in (dense, gradual, limit_guided, lottery_ticket, one_shot, random, rare_gems, smart_ratio, surgeon)
}


def load_method(name: str) -> Method:
    """The method with the given name. Options may follow the name after a colon, as ``key=value`` with commas.

    Args:
        name: the method's name, with options if any: ``NAME:KEY=VALUE,KEY=VALUE``.

    Returns:
        The method, with its options set.

    Raises:
        InputError: the method or option does not exist, or a value has the wrong type.

    >>> load_method("lottery_ticket:fraction=0.5,rewind=2").keywords
    {'fraction': 0.5, 'rewind': 2}
    """
    name, _, options = name.partition(":")
    if name not in METHODS:
        raise InputError(f"no method is called '{name}'; choose from: {', '.join(METHODS)}")
    method = METHODS[name]
    types = get_type_hints(method)
    known = {
        parameter.name: types[parameter.name]
        for parameter in inspect.signature(method).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and not callable(parameter.default)
    }
    return functools.partial(method, **dict(_option(name, part, known) for part in _parts(options)))


def _parts(options: str) -> list[str]:
    return [part.strip() for part in options.split(",") if part.strip()]


def _option(method: str, text: str, known: dict[str, Any]) -> tuple[str, Any]:
    """Read ``key=value``; convert the value to the option's type."""
    from pydantic import TypeAdapter, ValidationError  # costs a tenth of a second, which a plain import need not

    key, _, value = text.partition("=")
    if key not in known:
        raise InputError(f"{method} has no option '{key}'; it has: {', '.join(known) or 'none'}")
    try:
        found = TypeAdapter(known[key]).validate_strings(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InputError(f"option {key} of {method} does not take '{value}': {reason}; correct it") from None
    if isinstance(found, int | float) and abs(found) > _LARGEST:
        raise InputError(f"option {key} of {method} does not take '{value}'; give at most {_LARGEST:,}")
    return key, found
