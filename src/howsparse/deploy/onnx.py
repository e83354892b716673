"""`export_onnx`: write a network as an ONNX file for batches of any size, and check it against torch first."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from howsparse.deploy.timing import of_batch
from howsparse.errors import InputError, first_line
from howsparse.files import refuse_to_overwrite, write_whole
from howsparse.risk.batches import batch_length
from howsparse.risk.modes import evaluation_mode

__all__ = ["Exported", "export_onnx"]

_TOLERANCE, _HALF = 1e-4, 2e-2  # largest relative error; of networks with numbers of half precision
_OTHERS = (1, 5)  # batch sizes that are checked besides that of the example
_LOUD = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")  # loggers


@dataclass(frozen=True)
class Exported:
    """An ONNX file that was checked.

    Attributes:
        path: path of the file.
        error: largest difference of an output from torch's, relative to the largest output.
        batches: batch sizes at which this was checked.
        num_bytes: size of the file.

    >>> Exported(Path("model.onnx"), error=1e-6, batches=(2, 1, 5), num_bytes=1000).num_bytes
    1000
    """

    path: Path
    error: float
    batches: tuple[int, ...]
    num_bytes: int


def export_onnx(
    model: nn.Module, example: Any, path: str | Path, *, tolerance: float | None = None, force: bool = False
) -> Exported:
    """Export a network in evaluation mode by `torch.export`, and check the file with onnxruntime against torch.

    The file takes batches of any size; other dimensions are those of the example. It is checked at the batch size of
    the example, at 1 and at 5. A network that was pruned by a mask is exported with its zeros; compact it first, and
    the file is smaller and faster.

    Args:
        model: a network; it comes back as it was.
        example: its input, with batches along the first dimension: a tensor, a tuple of arguments, or a dict of keyword
            arguments.
        path: path of the file. If the export or the check fails, no file is left.
        tolerance: largest relative error that is accepted; by default 1e-4, or 0.02 for networks of half precision.
        force: whether an existing file is replaced.

    Returns:
        The error that was found, and the size of the file.

    Raises:
        InputError: the file exists and ``force`` is False, the network cannot be exported, or its outputs differ.
        ModuleNotFoundError: onnx, onnxscript or onnxruntime is not installed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     exported = export_onnx(nn.Linear(3, 2), torch.ones(4, 3), f"{folder}/net.onnx")
    >>> exported.batches, exported.error < 1e-6
    ((1, 4, 5), True)
    """
    path = Path(path)
    refuse_to_overwrite(path, force)
    import onnxruntime
    import onnxscript  # noqa: F401 (torch.onnx needs it, and its own message is longer)

    with evaluation_mode(model), _without_cache(model):
        args, kwargs = _arguments(of_batch(example, 2) if batch_length(example) < 2 else example)
        program = _exported(model, args, kwargs)
        error, sizes = 0.0, (batch_length(example), *_OTHERS)

        def write(file: Path) -> None:
            nonlocal error
            _save(program, file)
            session = _session(onnxruntime, file)
            error = max(_error(session, model, of_batch(example, size)) for size in sizes)
            half = any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters())
            allowed = tolerance if tolerance is not None else _HALF if half else _TOLERANCE
            if not error <= allowed:
                raise InputError(
                    f"onnxruntime and torch differ by {error:.1e} of the largest output, more than {allowed:.1e};"
                    f" {path} was not written; give a larger tolerance if this is small enough"
                )

        write_whole(path, write)
    return Exported(path, error, tuple(sorted(set(sizes))), path.stat().st_size)


def _exported(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The ONNX program of a network, for any batch size."""
    batch = torch.export.Dim("batch")
    length = batch_length((args, kwargs))

    def free(leaf: Any) -> dict[int, Any] | None:
        whole = isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == length
        return {0: batch} if whole else None

    shapes: Any = pytree.tree_map(free, kwargs if kwargs else args)
    try:
        with _quiet(), torch.no_grad():
            return torch.onnx.export(
                model, args, kwargs=kwargs or None, dynamic_shapes=shapes, dynamo=True, verbose=False
            )
    except Exception as error:
        raise InputError(
            f"the network cannot be exported to ONNX: {_reason(error)}; change this part of the network"
        ) from error


def _save(program: Any, file: Path) -> None:
    try:
        program.save(str(file), external_data=False)
    except Exception as error:  # protobuf: a file is at most 2 GB
        raise InputError(f"the ONNX file cannot be written: {_reason(error)}; export a smaller network") from error


def _session(onnxruntime: Any, file: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised too
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"onnxruntime cannot run the network: {_reason(error)}; export it in float32") from error


def _error(session: Any, model: nn.Module, example: Any) -> float:
    """The largest difference of an output of onnxruntime from torch's, relative to the largest output."""
    args, kwargs = _arguments(example)
    with torch.no_grad():
        expected = [leaf for leaf in pytree.tree_leaves(model(*args, **kwargs)) if isinstance(leaf, Tensor)]
    given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    names = [each.name for each in session.get_inputs()]
    try:
        found = session.run(None, {name: each.cpu().numpy() for name, each in zip(names, given, strict=True)})
    except Exception as error:
        size = batch_length(example)
        raise InputError(
            f"onnxruntime fails at batch size {size}: {_reason(error)}; let the network accept any batch size"
        ) from error
    return max(_difference(torch.from_numpy(a), b) for a, b in zip(found, expected, strict=True))


def _difference(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    a, b = found.double(), expected.detach().cpu().double()
    largest = float(b.abs().max()) if b.numel() else 0.0
    difference = float((a - b).abs().max()) if b.numel() else 0.0
    return difference / largest if largest > 0 else difference


@contextmanager
def _without_cache(model: nn.Module) -> Iterator[None]:
    """In this context, generating models of Hugging Face do not return their cache."""
    config: Any = getattr(model, "config", None)
    before = getattr(config, "use_cache", None)
    if before is None:
        yield
        return
    config.use_cache = False
    try:
        yield
    finally:
        config.use_cache = before


def _arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if isinstance(example, tuple | list) else (example,)), {}


def _reason(error: BaseException) -> str:
    """The most useful line of an error: the first line of its first cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """No messages of the exporter; errors are raised."""
    levels = {name: logging.getLogger(name).level for name in _LOUD}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        silent = io.StringIO()
        with redirect_stdout(silent), redirect_stderr(silent), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
