"""`howsparse bench`: what pruning brings on this machine."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from howsparse.cli.app import app
from howsparse.cli.deployed import example_of
from howsparse.cli.measuring import write_measurement
from howsparse.cli.options import (
    DataOption,
    JsonOption,
    ModelArgument,
    RecordOption,
    WeightsOption,
    with_dataclass_options,
)
from howsparse.cli.subject import DataOptions, load_subject
from howsparse.cli.terminal import note, print_json, show_lines, show_table
from howsparse.errors import InputError

if TYPE_CHECKING:
    from howsparse.deploy.bench import Benched

__all__ = ["bench"]


@app.command()
@with_dataclass_options
def bench(
    model: ModelArgument,
    *,
    weights: WeightsOption = None,
    data: DataOption = None,
    parts: DataOptions,
    sparsity: Annotated[
        float | None,
        typer.Option(help="First remove this fraction of the weights, by magnitude; default: remove none."),
    ] = None,
    batches: Annotated[str, typer.Option(help="Batch sizes to time, with commas between them.")] = "1,8,32,128,256",
    as_json: JsonOption = False,
    record: RecordOption = None,
) -> None:
    """Time a network on this machine: dense, compacted and sparse, and where sparse begins to win in each layer."""
    from howsparse.deploy.bench import bench as timed
    from howsparse.deploy.sparsify import check_batches
    from howsparse.pruning.masks import check_sparsity

    if sparsity is not None:
        check_sparsity(sparsity)
    sizes = check_batches(_sizes(batches))
    subject = load_subject(model, weights, data, parts)
    note("timing every layer with every kernel; other programs that run now make the times wrong")
    found = timed(subject.model, example_of(subject), sparsity=sparsity, batches=sizes)
    numbers = {
        "threads": found.threads,
        "compaction": found.compaction,
        "bytes": found.bytes,
        "layers": [asdict(each) | {"advice": each.sentence} for each in found.layers],
        "network": [asdict(each) for each in found.network],
    }
    about: dict[str, object] = {"kind": "bench", "model": model, "sparsity": sparsity}
    write_measurement(record, about | numbers)
    if as_json:
        print_json(numbers | about)
        return
    show(found)


def show(found: "Benched") -> None:
    """Print the times of the layers and of the network, and what to do with each layer."""
    from howsparse.report.benched import layers_table

    show_table(layers_table(found))
    show_lines(str(found).splitlines())


def _sizes(batches: str) -> list[int]:
    try:
        return [int(size) for size in batches.split(",")]
    except ValueError:
        raise InputError(f"--batches '{batches}' is not a list of numbers; give for example 1,32") from None
