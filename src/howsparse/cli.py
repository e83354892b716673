"""The command line: a thin face on the library."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from howsparse.errors import InputError

__all__ = ["app", "main"]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(stderr=True)


@app.callback()
def howsparse() -> None:
    """How sparse can a neural network be pruned before it gets worse? Computed, not swept for."""


DataOption = Annotated[
    str | None, typer.Option("--data", help="Data set: a hub name, or a local folder in its schema.")
]
SeedOption = Annotated[int, typer.Option(help="The same seed gives the same answer, to the last bit.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace output files that exist.")]
RecordOption = Annotated[Path | None, typer.Option(help="Append the run to this JSON-lines file.")]


@app.command()
def train(
    task: Annotated[str, typer.Argument(help="Name of a task, such as fc5-cifar10.")],
    output: Annotated[Path, typer.Option(help="Where the trained weights go (safetensors).")],
    data: DataOption = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    l1: Annotated[float | None, typer.Option(min=0, help="Strength of the l1 term, instead of the recipe's.")] = None,
    seed: SeedOption = 0,
    record: RecordOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a task's network with l1. Ctrl-C or a crash loses at most one epoch: the same command resumes."""
    from howsparse.experiments.record import append_record, provenance
    from howsparse.experiments.train import train_task
    from howsparse.files import refuse_to_overwrite, save_tensors
    from howsparse.tasks import load_task
    from howsparse.training import Epoch

    refuse_to_overwrite(output, force)
    loaded = load_task(task, data)
    changes = {"epochs": epochs, "l1": l1}
    loaded = loaded.with_recipe(**{name: value for name, value in changes.items() if value is not None})
    checkpoint = output.with_name(output.name + ".checkpoint")
    with progress_bar() as bar:
        row = bar.add_task(f"training {task}", total=loaded.recipe.epochs)

        def show(epoch: Epoch) -> None:
            bar.update(row, completed=epoch.epoch + 1, description=f"training {task}, loss {epoch.loss:.4f}")

        try:
            trained = train_task(loaded, seed, checkpoint, on_epoch=show)
        except KeyboardInterrupt:
            bar.stop()
            note(f"stopped; the same command goes on from {checkpoint}")
            raise typer.Exit(130) from None
    save_tensors(trained.model.state_dict(), output)
    checkpoint.unlink(missing_ok=True)
    result = trained.summary() | {"weights": str(output)}
    if record is not None:
        append_record(result | provenance(), record)
    if as_json:
        print_json(result)
    else:
        note(
            f"{task}: test accuracy {100 * trained.accuracy:.2f} %, training loss {trained.loss:.4f}; weights in {output}"
        )


def progress_bar() -> Progress:
    """Bars on stderr, so that stdout stays for the answer."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Progress(*columns, console=console, transient=True)


def note(text: str) -> None:
    """One line for a person, on stderr."""
    console.print(text, highlight=False, soft_wrap=True)


def print_json(result: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")


def main() -> None:
    """Entry point: input errors become one line and exit code 2."""
    try:
        app()
    except InputError as error:
        note(f"howsparse: {error}")
        sys.exit(2)
