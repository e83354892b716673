"""Arguments and options that several commands use, and options that are made from a dataclass's fields."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin, get_type_hints

import typer

__all__ = [
    "DataOption",
    "DirectionalOption",
    "EpochsOption",
    "FolderOption",
    "ForceOption",
    "ImagesOption",
    "JsonOption",
    "KeepOption",
    "L1Option",
    "ModelArgument",
    "OrderOption",
    "PlotOption",
    "ProblemArgument",
    "RecordOption",
    "SeedOption",
    "WeightsOption",
    "with_dataclass_options",
]

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A task, such as fc5-cifar10, or package.module:name of a network or problem."
    ),
]
ProblemArgument = Annotated[
    str, typer.Argument(metavar="PROBLEM", help="A task, such as digits, or package.module:problem.")
]
WeightsOption = Annotated[Path | None, typer.Option("--weights", help="State dict in safetensors or torch format.")]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="Task: hub name or local folder. Network: .npz file or package.module:batches."),
]
ImagesOption = Annotated[int | None, typer.Option(min=1, help="Number of training examples to use for the limit.")]
OrderOption = Annotated[
    str, typer.Option("--order", help="Which weights go first: magnitude, wanda, curvature, ...; best tries all.")
]
EpochsOption = Annotated[
    int | None, typer.Option(min=1, max=1_000_000, help="Epochs of each training; default: the problem's.")
]
L1Option = Annotated[float | None, typer.Option(min=0, help="Strength of the l1 term; default: the problem's.")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed; the same seed gives the same bits.")]
FolderOption = Annotated[
    Path, typer.Option(help="Folder that stores trainings, limits and studies, so that none is computed twice.")
]
KeepOption = Annotated[
    Path | None,
    typer.Option(help="Folder that stores the computation; if it is stopped, run the same command to continue."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
DirectionalOption = Annotated[
    bool,
    typer.Option(
        "--directional", help="Also compute the limit with the gradient and the direction of the removed weights."
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace existing output files.")]
RecordOption = Annotated[Path | None, typer.Option(help="Append the run to this JSON-lines file.")]
PlotOption = Annotated[Path | None, typer.Option(help="Draw the answers into this .png, .svg or .pdf file.")]


def with_dataclass_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a dataclass type by one option for each field of it that has a help text.

    Args:
        command: a function that takes its parameters by name.

    Returns:
        The command with these options. It makes the dataclasses from the options' values.
    """
    parameters: list[inspect.Parameter] = []
    made: dict[str, tuple[Any, list[str]]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if not is_dataclass(parameter.annotation):
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
            continue
        types = get_type_hints(parameter.annotation)
        shown = [field for field in fields(parameter.annotation) if "help" in field.metadata]
        kind: Any = parameter.annotation
        made[parameter.name] = kind, [field.name for field in shown]
        parameters += [_option(field, types[field.name]) for field in shown]

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        for name, (kind, names) in made.items():
            given[name] = kind(**{field: given.pop(field) for field in names})
        command(**given)

    del with_options.__wrapped__
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _option(field: Field[Any], kind: Any) -> inspect.Parameter:
    """A field as an option. A choice has the type str, because the dataclass checks it with a one-line message."""
    assert field.default is not MISSING
    plain = str if get_origin(kind) is Literal else kind
    annotation = Annotated[plain, typer.Option(help=field.metadata["help"])]  # type: ignore[valid-type]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)
