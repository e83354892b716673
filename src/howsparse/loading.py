"""Load problems, models and data by the names that a command line gives. No code inside data files is run."""

import importlib
import inspect
import pickle
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from howsparse.arrays import array_batches, check_lengths, dict_batches, read_arrays, train_and_test
from howsparse.errors import InputError
from howsparse.files import document_kind
from howsparse.problem import Problem
from howsparse.pruning.masks import Mask
from howsparse.tasks import load_task

__all__ = [
    "array_batches",
    "call_if_function",
    "check_changes",
    "check_weights",
    "importing_from_here",
    "load_batches",
    "load_named",
    "load_problem",
    "load_weights",
    "read_change",
    "read_tensors",
]

_ENTRIES = ("state_dict", "model_state_dict", "model")  # where checkpoints hold the state dict


def load_problem(spec: str, source: str | None = None, **changes: Any) -> Problem:
    """Load a task, or import a `Problem` or a function that returns one.

    Args:
        spec: name of a task, or ``package.module:name``.
        source: for a task, the name of a data set on the hub, or a folder with its data.
        **changes: fields to change: fields of the recipe for a task, else ``epochs`` or ``l1``.

    Returns:
        The problem with the changed fields.

    Raises:
        InputError: the name does not exist or is not a problem, or a field cannot be changed.
    """
    if ":" not in spec:
        return load_task(spec, source, **changes)
    if source is not None:
        raise InputError(f"--data is for tasks, but '{spec}' is a problem with its own data; leave out --data")
    made = load_named(spec)
    made = made if isinstance(made, Problem) else call_if_function(spec, made)
    if not isinstance(made, Problem):
        raise InputError(f"'{spec}' is a {type(made).__name__}; it must be a howsparse.Problem or return one")
    check_changes(spec, changes)
    named = spec if made.name == "problem" else made.name
    return replace(made, name=named, **changes)


def check_changes(spec: str, changes: Mapping[str, object]) -> None:
    """Check the names of the fields of a problem that are to be changed.

    Raises:
        InputError: a field other than ``epochs`` and ``l1``.
    """
    unknown = [name for name in changes if name not in ("epochs", "l1")]
    if unknown:
        raise InputError(f"problem '{spec}' has no field '{unknown[0]}' to change; change epochs or l1")


def load_named(spec: str) -> Any:
    """Import ``name`` from the module of ``package.module:name``.

    Raises:
        InputError: ``spec`` has another form, the module cannot be imported, or it does not have the name.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise InputError(f"'{spec}' does not have the form package.module:name; write it in this form")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"cannot import '{module_name}' for '{spec}': {error}; correct the name or the module"
        ) from error
    if not hasattr(module, attribute):
        raise InputError(f"module '{module_name}' has no '{attribute}'; correct the name in '{spec}'")
    return getattr(module, attribute)


def call_if_function(spec: str, thing: Any) -> Any:
    """Call a named function or class without arguments, and return the result; return any other object as it is.

    Args:
        spec: the name, for messages.
        thing: what the name stands for.

    Raises:
        InputError: the function or class needs arguments.
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
    """Search the working directory first for modules, as ``python -m`` does. The path is restored afterwards."""
    before = list(sys.path)
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before


def check_weights(model: str, weights: Path | None) -> None:
    """Check that there is a file of weights for a network that ``howsparse train`` trains.

    Raises:
        InputError: no file is given, or it does not exist.
    """
    if weights is None:
        raise InputError(f"give --weights FILE; `howsparse train {model} --output FILE` makes one")
    if not weights.is_file():
        raise InputError(f"no weights file at {weights}; `howsparse train {model} --output {weights}` makes one")


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict into ``model`` from a safetensors file, or from torch's format with ``weights_only``.

    The state dict may be an entry ("state_dict", "model_state_dict" or "model") of a checkpoint. Its names may begin
    with "module." (DataParallel) or "_orig_mod." (torch.compile). It may lack the counters of BatchNorm.

    Raises:
        InputError: the file does not exist, is not a state dict, contains code, or belongs to another model, or its
            numbers are of another kind, for example complex.
    """
    expected = model.state_dict()
    state = _without_prefix(read_tensors(path), expected)
    counters = {name: tensor for name, tensor in expected.items() if name.endswith("num_batches_tracked")}
    state = counters | state
    missing, unexpected = [n for n in expected if n not in state], [n for n in state if n not in expected]
    if missing or unexpected:
        lacks = f"it lacks '{missing[0]}'" if missing else f"it has '{unexpected[0]}', which the model lacks"
        more = len(missing) + len(unexpected) - 1
        also = f" (and {more} more)" if more else ""
        raise InputError(f"{path} is not a state dict of this model: {lacks}{also}; give this model's weights")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)} in the file, {tuple(expected[name].shape)} in the model"
            raise InputError(f"{path} is not for this model: '{name}' has shape {shapes}; give this model's weights")
        if not _keeps_value(tensor.dtype, expected[name].dtype):
            raise InputError(
                f"{path}: '{name}' is {_plain_name(tensor.dtype)} in the file and {_plain_name(expected[name].dtype)}"
                " in the model; save it in the model's type"
            )
    model.load_state_dict(state)


def _keeps_value(given: torch.dtype, own: torch.dtype) -> bool:
    """Whether a conversion between two types keeps numbers up to rounding: not for complex or quantised types."""
    return given == own or (given.is_floating_point == own.is_floating_point and not given.is_complex)


def _plain_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def read_change(path: Path, model: nn.Module) -> Mask | dict[str, Tensor]:
    """Read a change of a model's weights: a mask that `Mask.save` wrote, or a state dict or a part of one.

    Raises:
        InputError: the file does not exist or has other contents.
    """
    if path.is_file() and document_kind(path) == "mask":
        return Mask.load(path)
    return _without_prefix(read_tensors(path), model.state_dict())


def _without_prefix(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under the model's names, if the names differ only by a wrapper's prefix."""
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in expected):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, or of a state dict that torch saved.

    Raises:
        InputError: the file does not exist or has other contents.
    """
    if not path.is_file():
        raise InputError(f"no weights file at {path}; make one with `howsparse train`, or correct the path")
    try:
        if path.suffix == ".safetensors" or _is_safetensors(path):
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of unusual pickles; the errors below report what is wrong
            state = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} has pickled objects, which could run code, so it is not loaded;"
            " save model.state_dict(), preferably as safetensors"
        ) from error
    except Exception as error:  # a damaged file may raise anything
        reason = (str(error).splitlines() or ["it is damaged or empty"])[0]
        raise InputError(f"{path} is not a readable weights file: {reason}; save it again") from error
    inner = [state[name] for name in _ENTRIES if name in state] if isinstance(state, dict) else []
    state = inner[0] if len(inner) == 1 and isinstance(inner[0], dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} does not hold a state dict (names to tensors); save model.state_dict()")
    return state


def _is_safetensors(path: Path) -> bool:
    """Whether a file is safetensors in spite of its suffix, as ``--output weights.pt`` writes it."""
    with path.open("rb") as file:
        length, first = int.from_bytes(file.read(8), "little"), file.read(1)
    return first == b"{" and 0 < length <= path.stat().st_size - 8


def load_batches(spec: str, batch_size: int) -> tuple[Iterable[Any], Iterable[Any]]:
    """Load training and test batches from an ``.npz`` file of arrays or from ``package.module:name``.

    An npz file has the arrays ``inputs`` and ``targets``, and may have ``test_inputs`` and ``test_targets``. For a
    model that reads dicts, as those of Hugging Face do, it has ``labels`` and the model's arguments, such as
    ``input_ids``; the names of test data begin with ``test_``. A name refers to batches that can be read several times,
    or to a function that returns them. The function may also return the tuple (train, test). If there are no test
    batches, the training batches are used for both.

    Args:
        spec: path of the file, or the name.
        batch_size: examples in a batch of an npz file.

    Returns:
        Training batches and test batches.

    Raises:
        InputError: ``spec`` has another form, or the file or object is missing or has the wrong contents.
    """
    path = Path(spec)
    if path.suffix == ".npz":
        return _load_npz(path, batch_size)
    if ":" not in spec:
        raise InputError(f"--data '{spec}' is neither an .npz file nor package.module:name; give one of these")
    made = load_named(spec)
    made = call_if_function(spec, made)
    if isinstance(made, tuple) and len(made) == 2 and not isinstance(made[0], Tensor):
        return made[0], made[1]
    if not isinstance(made, Iterable):
        raise InputError(f"--data '{spec}' is a {type(made).__name__}, not batches; use a list or a DataLoader")
    return made, made


def _load_npz(path: Path, batch_size: int) -> tuple[Iterable[Any], Iterable[Any]]:
    arrays = read_arrays(path)
    if "inputs" not in arrays and "labels" in arrays:
        train, test = train_and_test(arrays)
        for part in (train, test):
            check_lengths(part, path)
        return dict_batches(train, batch_size), dict_batches(test, batch_size)
    for name in ("inputs", "targets"):
        if name not in arrays:
            raise InputError(f"{path} has no array '{name}' (it has: {', '.join(arrays) or 'none'}); add it")
    has_test = "test_inputs" in arrays and "test_targets" in arrays
    for prefix in ("", "test_") if has_test else ("",):
        check_lengths({name: arrays[name] for name in (f"{prefix}inputs", f"{prefix}targets")}, path)
    pairs = array_batches(arrays["inputs"], arrays["targets"], batch_size)
    if not has_test:
        return pairs, pairs
    return pairs, array_batches(arrays["test_inputs"], arrays["test_targets"], batch_size)
