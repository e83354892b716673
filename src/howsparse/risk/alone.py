"""One thread at a time for each model, because a computation may change its weights and modes for a time."""

import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from torch import nn

__all__ = ["alone", "alone_with"]

Function = TypeVar("Function", bound=Callable[..., Any])

# By id, because a module need not be hashable. An entry goes when its model does, before the id can belong to another.
_locks: dict[int, threading.RLock] = {}


@contextmanager
def alone_with(model: nn.Module) -> Iterator[None]:
    """Wait until no other thread is in this context with the same module; then keep other threads out until its end.

    A thread may enter the context again inside of it. A module and its parts, or two modules that share weights, are
    different modules: threads must not use both at the same time.

    Args:
        model: any module.

    >>> model = nn.Linear(1, 1)
    >>> with alone_with(model), alone_with(model):
    ...     print("inside")
    inside
    """
    with _lock_of(model):
        yield


def alone(function: Function) -> Function:
    """Make a function of a model wait while another thread computes with this model; see `alone_with`.

    Args:
        function: a function whose first argument is a module.

    >>> alone(lambda model, name: f"{name} of {type(model).__name__}")(nn.ReLU(), "slope")
    'slope of ReLU'
    """

    @functools.wraps(function)
    def waiting(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(model, nn.Module):
            return function(model, *args, **kwargs)  # it says itself what is wrong
        with _lock_of(model):
            return function(model, *args, **kwargs)

    return cast(Function, waiting)


def _lock_of(model: nn.Module) -> threading.RLock:
    key, made = id(model), threading.RLock()
    lock = _locks.setdefault(key, made)  # one step for all threads; no other lock that Ctrl-C could leave locked
    if lock is made:
        weakref.finalize(model, _locks.pop, key, None)
    return lock
