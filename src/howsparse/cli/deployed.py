"""What `howsparse prune` writes besides the weights, and what pruning brought on this machine."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from howsparse.cli.subject import Subject
from howsparse.cli.terminal import note
from howsparse.errors import InputError

if TYPE_CHECKING:
    from howsparse.deploy.gain import Gain
    from howsparse.pruning.masks import Mask

__all__ = ["DeployOptions", "example_of", "measure_gain", "write_onnx"]

_BATCH = 32


@dataclass(frozen=True)
class DeployOptions:
    """Files for running the pruned network."""

    deploy: Path | None = field(
        default=None,
        metadata={"help": "Also write the network to one small file, which howsparse.load_deployed reads."},
    )
    onnx: Path | None = field(
        default=None, metadata={"help": "Also write the network without dead units as ONNX, checked by onnxruntime."}
    )

    def check(self) -> None:
        """Check before long work that the packages for the asked files are installed.

        Raises:
            ModuleNotFoundError: a package for ONNX is not installed.
        """
        for package in ("onnx", "onnxscript", "onnxruntime") if self.onnx is not None else ():
            if find_spec(package) is None:
                raise ModuleNotFoundError(f"No module named '{package}'", name=package)


def write_onnx(subject: Subject, path: Path, force: bool) -> InputError | None:
    """Compact the pruned network and export it. An error is returned, not raised, so that the other files are written.

    Args:
        subject: the pruned network.
        path: path of the file.
        force: whether an existing file is replaced.
    """
    from howsparse.deploy.compact import compacted
    from howsparse.deploy.onnx import export_onnx

    try:
        example = example_of(subject)
        found = compacted(subject.model, example)
        if found.weights_after < found.weights_before:
            note(found.sentence)
        made = export_onnx(found.model, example, path, force=force)
    except InputError as error:
        return error
    note(f"ONNX: {path}, {made.num_bytes:,} bytes; onnxruntime differs from torch by {made.error:.1e} of the output")
    return None


def measure_gain(
    subject: Subject, mask: "Mask", output: Path, deploy: Path | None, evidence: Mapping[str, Any], force: bool
) -> "Gain | None":
    """Write the deployed file, and measure what pruning brought; None if the network cannot be run by itself.

    Args:
        subject: the pruned network.
        mask: weights that stay.
        output: the file or folder with the weights in full.
        deploy: path of the deployed file; None writes a temporary file, only to learn its size.
        evidence: what the network was pruned by.
        force: whether an existing file is replaced.
    """
    from howsparse.deploy.deployed import save_deployed
    from howsparse.deploy.gain import gain

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deployed.safetensors" if deploy is None else deploy
        save_deployed(subject.model, path, mask, network=subject.name, evidence=evidence, force=force)
        sizes = {"file_before": _num_bytes(output), "file_after": path.stat().st_size}
    try:
        return gain(subject.model, example_of(subject), **sizes, batch=_BATCH)
    except (InputError, RuntimeError, TypeError, ValueError) as error:
        note(f"the size and the times of the pruned network are not measured: {str(error).splitlines()[0]}")
        return None


def example_of(subject: Subject) -> Any:
    """The network's input for the first test batch."""
    from howsparse.deploy.gain import inputs_of
    from howsparse.risk.batches import move
    from howsparse.risk.losses import as_loss
    from howsparse.risk.modes import device_of

    batch = move(next(iter(subject.test)), device_of(subject.model))
    return inputs_of(subject.model, as_loss(subject.loss, subject.model), batch)


def _num_bytes(output: Path) -> int:
    """Bytes of a file of weights, or of the weights in a folder of Hugging Face."""
    files = output.glob("model*.safetensors") if output.is_dir() else [output]
    return sum(file.stat().st_size for file in files)
