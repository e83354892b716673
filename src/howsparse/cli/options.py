"""Arguments and options that several commands share, and options that are made of a dataclass's fields."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin, get_type_hints

import typer

__all__ = [
    "BatchOption",
    "DataOption",
    "EpochsOption",
    "FolderOption",
    "ForceOption",
    "ImagesOption",
    "JsonOption",
    "KeepOption",
    "L1Option",
    "ModelArgument",
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
WeightsOption = Annotated[Path | None, typer.Option("--weights", help="State dict: safetensors, or torch's own.")]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="For a task, a hub name or local folder; else an .npz file or package.module:batches."),
]
ImagesOption = Annotated[int | None, typer.Option(min=1, help="Use only the first so many training examples.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Examples in a batch of an .npz file.")]
EpochsOption = Annotated[int | None, typer.Option(min=1, help="Of each training, instead of the problem's.")]
L1Option = Annotated[float | None, typer.Option(min=0, help="Strength of the l1 term, instead of the problem's.")]
SeedOption = Annotated[int, typer.Option(min=0, help="The same seed gives the same answer, to the last bit.")]
FolderOption = Annotated[
    Path, typer.Option(help="Where trainings, limits and studies are kept, so that none is done twice.")
]
KeepOption = Annotated[
    Path | None,
    typer.Option(help="Folder for what is computed: the same command goes on from there if it was stopped."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace output files that exist.")]
RecordOption = Annotated[Path | None, typer.Option(help="Append the run to this JSON-lines file.")]
PlotOption = Annotated[Path | None, typer.Option(help="Draw the answer into this .png, .svg or .pdf file.")]


def with_dataclass_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters of a dataclass type become one option for each field that has a help text.

    Args:
        command: takes its parameters by name.

    Returns:
        The command with options in place of these parameters; it makes the dataclasses of what is typed.
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
    """A field as an option. Choices stay plain text: the dataclass checks them and says in one line what is wrong."""
    assert field.default is not MISSING
    plain = str if get_origin(kind) is Literal else kind
    annotation = Annotated[plain, typer.Option(help=field.metadata["help"])]  # type: ignore[valid-type]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)
