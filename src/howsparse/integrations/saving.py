"""Save a pruned model of Hugging Face in a folder that `from_pretrained` reads."""

import copy
import shutil
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from howsparse.errors import InputError
from howsparse.files import refuse_to_overwrite
from howsparse.integrations.card import model_card
from howsparse.integrations.quiet import quiet
from howsparse.parallel import is_first
from howsparse.pruning.masks import Mask
from howsparse.pruning.prune import pruned
from howsparse.risk.alone import alone
from howsparse.risk.pretrained import is_adapter
from howsparse.risk.weights import prunable_weights, torch_masks

__all__ = ["save_pruned"]

_BESIDE = (  # files of a tokenizer or processor; none of them is code
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"),
    *("vocab.json", "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
    *("chat_template.jinja", "chat_template.json", "preprocessor_config.json", "processor_config.json"),
)


@alone
def save_pruned(
    model: nn.Module,
    mask: Mask,
    folder: str | Path,
    card: str | None = None,
    *,
    source: Path | None = None,
    force: bool = False,
) -> None:
    """Save a pruned model with `save_pretrained`, its mask, and a model card.

    The weights are stored in full, with zeros for the removed ones, as safetensors. `from_pretrained` of transformers
    loads the folder. The mask is in mask.safetensors, for `Mask.load`. ``model`` is unchanged.

    Args:
        model: a model with ``save_pretrained``, not pruned by torch.
        mask: a mask over its weights.
        folder: folder to write.
        card: text for the block of README.md, for example of `card_block`; None writes no card. The text of a README.md
            that is in ``folder`` or ``source`` stays around the block.
        source: folder from which the files of the tokenizer or the image processor are copied.
        force: whether files in an existing folder are replaced. Other files in it stay.

    Raises:
        InputError: the folder exists and ``force`` is False, the mask does not fit, or the model cannot be saved.

    >>> save_pruned(nn.Linear(2, 2), Mask(), "folder")
    Traceback (most recent call last):
    howsparse.errors.InputError: Linear has no save_pretrained; save model.state_dict() after mask.apply_(model)
    """
    folder = Path(folder)
    _check(model, mask)
    refuse_to_overwrite(folder, force)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder")
    text = None if card is None else model_card(_existing_card(folder, source), card)
    if not is_first():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        made = Path(name) / "model"
        _write(model, mask, made)
        for beside in _BESIDE:
            if source is not None and (source / beside).is_file():
                shutil.copyfile(source / beside, made / beside)
        if text is not None:
            (made / "README.md").write_text(text, encoding="utf-8")
        _move(made, folder)


def _check(model: nn.Module, mask: Mask) -> None:
    if is_adapter(model):
        raise InputError("the model has PEFT adapters; merge them first: model = model.merge_and_unload()")
    if not hasattr(model, "save_pretrained"):
        kind = type(model).__name__
        raise InputError(f"{kind} has no save_pretrained; save model.state_dict() after mask.apply_(model)")
    if torch_masks(model):
        raise InputError(
            "torch.nn.utils.prune holds the model's weights, which could not be loaded again; call"
            " torch.nn.utils.prune.remove for each, or use a model that prune was not called for"
        )
    mask._check(prunable_weights(model))


def _existing_card(folder: Path, source: Path | None) -> str | None:
    """The text of the README.md in the first of both folders that has one."""
    for place in (folder, source):
        if place is not None and (place / "README.md").is_file():
            try:
                return (place / "README.md").read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{place / 'README.md'} is not text in UTF-8; convert it") from error
    return None


def _write(model: Any, mask: Mask, folder: Path) -> None:
    config = copy.deepcopy(vars(model.config))  # save_pretrained notes the class and the data type in it
    try:
        with quiet(), pruned(model, mask):
            model.save_pretrained(folder)
    finally:
        vars(model.config).clear()
        vars(model.config).update(config)
    mask.save(folder / "mask.safetensors")


def _move(made: Path, folder: Path) -> None:
    """Move all files of ``made`` to ``folder``, and remove weights of an earlier model there."""
    if not folder.exists():
        made.replace(folder)
        return
    names = {file.name for file in made.iterdir()}
    for file in made.iterdir():
        file.replace(folder / file.name)
    for old in folder.glob("model*.safetensors*"):
        if old.name not in names:
            old.unlink()
