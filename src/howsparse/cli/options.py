"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "BatchOption",
    "CurvatureOption",
    "DataOption",
    "ForceOption",
    "ImagesOption",
    "JsonOption",
    "KeepOption",
    "ModelArgument",
    "NegativeOption",
    "PlotOption",
    "PrecisionOption",
    "ProductsOption",
    "RecordOption",
    "SeedOption",
    "ToleranceOption",
    "WeightsOption",
]

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A task, such as fc5-cifar10, or package.module:factory.")
]
WeightsOption = Annotated[Path | None, typer.Option("--weights", help="State dict: safetensors, or torch's own.")]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="For a task, a hub name or local folder; else an .npz file or package.module:batches."),
]
ImagesOption = Annotated[
    int | None, typer.Option(min=1, help="Use only the first so many training images of a task for the curvature.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Examples in a batch of the curvature.")]
CurvatureOption = Annotated[str, typer.Option(help="hessian, or ggn (Gauss-Newton).")]
NegativeOption = Annotated[
    str, typer.Option(help="Negative curvature: wall (the paper's absolute value) or unbounded (clipped).")
]
ToleranceOption = Annotated[
    float | None, typer.Option(help="Loss increase allowed; else the deviation over mini-batches of 128.")
]
PrecisionOption = Annotated[float, typer.Option(help="Width of the bracket to stop at.")]
ProductsOption = Annotated[int, typer.Option(help="Curvature products to spend at most.")]
SeedOption = Annotated[int, typer.Option(min=0, help="The same seed gives the same answer, to the last bit.")]
KeepOption = Annotated[
    Path | None,
    typer.Option(help="Folder for what is computed until all is: the same command goes on if it was stopped."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace output files that exist.")]
RecordOption = Annotated[Path | None, typer.Option(help="Append the run to this JSON-lines file.")]
PlotOption = Annotated[Path | None, typer.Option(help="Draw the answer into this .png, .svg or .pdf file.")]
