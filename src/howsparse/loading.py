"""Problems, models and data named on a command line; files are read as data and never run."""

import importlib
import inspect
import pickle
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from howsparse.errors import InputError
from howsparse.problem import Problem
from howsparse.tasks import load_task

__all__ = [
    "array_batches",
    "call_if_function",
    "importing_from_here",
    "load_batches",
    "load_model",
    "load_named",
    "load_problem",
    "load_weights",
    "read_tensors",
]


def load_problem(spec: str, source: str | None = None, **changes: Any) -> Problem:
    """The problem that is named: a task, or ``package.module:name`` for a `Problem` or a function that returns one.

    Args:
        spec: the name.
        source: for a task, a hub name or a folder with its data.
        **changes: fields to change: of the recipe for a task, else ``epochs`` or ``l1`` of the problem.

    Raises:
        InputError: nothing of that name, something that is no problem, or a field that cannot be changed.
    """
    if ":" not in spec:
        return load_task(spec, source, **changes)
    if source is not None:
        raise InputError(f"--data is for tasks; the problem '{spec}' brings its own data")
    made = load_named(spec)
    made = made if isinstance(made, Problem) else call_if_function(spec, made)
    if not isinstance(made, Problem):
        raise InputError(f"'{spec}' gives a {type(made).__name__}, not a howsparse.Problem")
    known = [field.name for field in fields(Problem) if field.name in ("epochs", "l1")]
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise InputError(f"problem '{spec}' has no field '{unknown[0]}' to change; it has: {', '.join(known)}")
    named = spec if made.name == "problem" else made.name
    return replace(made, name=named, **changes)


def load_named(spec: str) -> Any:
    """What ``package.module:name`` names, imported.

    Raises:
        InputError: not of that form, no such module, a package that it needs is missing, or no such name in it.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise InputError(f"'{spec}' is not of the form package.module:name")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"cannot import '{module_name}' for '{spec}': {error}") from error
    if not hasattr(module, attribute):
        raise InputError(f"module '{module_name}' has no '{attribute}', asked for as '{spec}'")
    return getattr(module, attribute)


def call_if_function(spec: str, thing: Any) -> Any:
    """What a named function or class gives when it is called without arguments; anything else as it is.

    Args:
        spec: the name, for messages.
        thing: what the name stands for.

    Raises:
        InputError: it needs arguments.
    """
    if not callable(thing):
        return thing
    try:
        inspect.signature(thing).bind()
    except ValueError:
        pass  # it does not tell what it takes
    except TypeError as error:
        raise InputError(f"'{spec}' cannot be called without arguments ({error}); name a function that can") from error
    return thing()


@contextmanager
def importing_from_here() -> Iterator[None]:
    """Within, modules of the working directory are found first, as for ``python -m``; the path is put back."""
    before = list(sys.path)
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before


def load_model(spec: str) -> nn.Module:
    """The module that ``package.module:name`` names, or that the function of this name returns.

    Raises:
        InputError: as for `load_named`, or something else than a module.
    """
    made = load_named(spec)
    made = made if isinstance(made, nn.Module) else call_if_function(spec, made)
    if not isinstance(made, nn.Module):
        raise InputError(f"'{spec}' gives a {type(made).__name__}, not a torch.nn.Module")
    return made


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict, safetensors or torch's own with ``weights_only``, into ``model``.

    Raises:
        InputError: no such file, not a state dict, code inside the file, or a state dict of another model.
    """
    state = read_tensors(path)
    expected = model.state_dict()
    missing, unexpected = [n for n in expected if n not in state], [n for n in state if n not in expected]
    if missing or unexpected:
        lacks = f"it lacks '{missing[0]}'" if missing else f"it has '{unexpected[0]}', which the model has not"
        more = len(missing) + len(unexpected) - 1
        raise InputError(f"{path} is not a state dict of this model: {lacks}{f' (and {more} more)' if more else ''}")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)} in the file, {tuple(expected[name].shape)} in the model"
            raise InputError(f"{path} is not a state dict of this model: '{name}' has shape {shapes}")
    model.load_state_dict(state)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a state dict saved by torch.

    Raises:
        InputError: no such file, or it holds something else.
    """
    if not path.is_file():
        raise InputError(f"no weights file at {path}; make one with `howsparse train`, or correct the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd pickles; what matters of that is said below
            state = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds pickled objects, which could run code, and is not loaded;"
            " save model.state_dict(), best as safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a readable weights file: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} does not hold a state dict (names to tensors); save model.state_dict()")
    return state


def load_batches(spec: str, batch_size: int) -> tuple[Iterable[Any], Iterable[Any]]:
    """Training and test batches, from an ``.npz`` file of arrays or from ``package.module:name``.

    An npz file holds ``inputs`` and ``targets``, and may hold ``test_inputs`` and ``test_targets``. A name is a
    re-iterable of batches, a function that returns one, or one that returns a (train, test) tuple of two. Where there
    are no test batches, the training batches serve for both.

    Raises:
        InputError: neither form, or the named thing is missing or malformed.
    """
    path = Path(spec)
    if path.suffix == ".npz":
        return _load_npz(path, batch_size)
    if ":" not in spec:
        raise InputError(f"--data '{spec}' is neither an .npz file nor package.module:name")
    made = load_named(spec)
    made = call_if_function(spec, made)
    if isinstance(made, tuple) and len(made) == 2 and not isinstance(made[0], Tensor):
        return made[0], made[1]
    if not isinstance(made, Iterable):
        raise InputError(f"--data '{spec}' gives a {type(made).__name__}, not batches; return a list or a DataLoader")
    return made, made


def array_batches(inputs: Tensor, targets: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Consecutive batches of two tensors of equal length."""
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def _load_npz(path: Path, batch_size: int) -> tuple[Iterable[Any], Iterable[Any]]:
    if not path.is_file():
        raise InputError(f"no data file at {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    except (ValueError, OSError, TypeError) as error:
        raise InputError(f"{path} is not an .npz of plain arrays: {str(error).splitlines()[0]}") from error
    for name in ("inputs", "targets"):
        if name not in arrays:
            raise InputError(f"{path} has no array '{name}'; it has: {', '.join(arrays) or 'none'}")
    if len(arrays["inputs"]) != len(arrays["targets"]):
        raise InputError(f"{path}: {len(arrays['inputs'])} inputs but {len(arrays['targets'])} targets")
    train = array_batches(arrays["inputs"], arrays["targets"], batch_size)
    if "test_inputs" not in arrays or "test_targets" not in arrays:
        return train, train
    return train, array_batches(arrays["test_inputs"], arrays["test_targets"], batch_size)
