"""What `howsparse prune` and `howsparse limit` write, and the certificate that `prune` may read."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from howsparse.cli.subject import Subject
from howsparse.errors import InputError
from howsparse.records.origin import portable_command

if TYPE_CHECKING:
    from howsparse.limit.certificate import Certificate
    from howsparse.pruning.masks import Mask
    from howsparse.pruning.network import PrunedNetwork

__all__ = ["read_certificate", "write_pruned", "write_record"]


def read_certificate(path: Path, model: nn.Module) -> "Certificate":
    """Read a certificate, and check that it is for this network.

    Raises:
        InputError: the file is no certificate, certifies nothing, or is for other weights.
    """
    from howsparse.limit.certificate import Certificate

    found = Certificate.load(path)
    if not found.holds:
        raise InputError(f"{path} certifies nothing; certify again with a larger --max-drop or more held-out data")
    if not found.matches(model):
        raise InputError(f"{path} is for other weights than these; certify this network")
    return found


def write_pruned(
    subject: Subject, pruned: "Mask | PrunedNetwork", output: Path, sentence: str | None, force: bool
) -> None:
    """Write the pruned weights: a file, or for a network of Hugging Face a folder with mask and model card.

    A repaired network is written with the weights, biases and buffers that the repair changed.
    """
    from howsparse.files import save_tensors
    from howsparse.integrations.huggingface import hub_folder
    from howsparse.limit.sequence import as_mask

    mask = as_mask(pruned)
    pruned.apply_(subject.model)
    folder = hub_folder(subject.name)
    if folder is not None:
        from howsparse.integrations.card import card_block
        from howsparse.integrations.saving import save_pruned

        card = card_block(mask, certificate=sentence, command=portable_command(["howsparse", *sys.argv[1:]]))
        save_pruned(subject.model, mask, output, card, source=folder, force=force)
    else:
        save_tensors(subject.model.state_dict(), output)


def write_record(
    kind: Literal["limit", "prune"],
    model: str,
    answer: dict[str, Any],
    seed: int,
    images: int | None,
    path: Path | None,
    weights: Path | None = None,
) -> None:
    """Append the answer to the file of records ``path``, if it is not None."""
    if path is None:
        return
    from howsparse.records import AnswerRecord, append_record, provenance

    named = None if weights is None else str(weights)
    fields: dict[str, Any] = {"model": model, "seed": seed, "examples": images, "weights": named, "answer": answer}
    append_record(AnswerRecord(kind=kind, made=provenance(), **fields), path)
