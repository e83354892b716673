"""Batches of tokens from text, by the tokenizer in a model's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.arrays import dict_batches
from howsparse.errors import InputError, first_line
from howsparse.integrations.expects import checked, fitting_size, positions, task_of
from howsparse.integrations.quiet import quiet
from howsparse.risk.losses import IGNORED

__all__ = ["label_batches", "load_tokenizer", "text_batches"]

_BLOCK = 512  # tokens in a block
_SHARE = 0.15  # share of the tokens of a block that a masked language model has to predict
_SEED = 0


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a model's folder from its tokenizer.json. No code in the folder is run.

    Args:
        folder: folder of the model, with tokenizer.json.

    Returns:
        The tokenizer of transformers.

    Raises:
        InputError: there is no tokenizer.json, or it is damaged.

    >>> from tempfile import TemporaryDirectory
    >>> from tokenizers import Tokenizer, models
    >>> with TemporaryDirectory() as folder:
    ...     Tokenizer(models.BPE({"a": 0, "b": 1, "c": 2}, [])).save(f"{folder}/tokenizer.json")
    ...     load_tokenizer(Path(folder))("cab")["input_ids"]
    [2, 0, 1]
    """
    if not (folder / "tokenizer.json").is_file():
        raise InputError(
            f"no tokenizer in {folder}: copy tokenizer.json there, or give token ids as .safetensors or .npz"
        )
    with quiet():
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise InputError(f"cannot read the tokenizer in {folder}: {first_line(error)}; restore it") from error


def text_batches(text: str, model: nn.Module, folder: Path, batch_size: int, where: object) -> list[dict[str, Tensor]]:
    """Split a text into consecutive blocks of tokens for a causal or masked language model.

    A block has 512 tokens, or the model's positions if these are fewer. The last block may be shorter. A causal model
    predicts every token of a block but the first. For a masked model, a block is between the first and the last
    token that its tokenizer adds, and 15 % of its tokens have to be predicted, as in BERT's training: 80 % of these
    are replaced by the mask token, 10 % by another token, and 10 % are unchanged. They are drawn once with a fixed
    seed, so they are the same in every pass and every call.

    Args:
        text: the text.
        model: a causal or masked language model of transformers.
        folder: its folder, with tokenizer.json.
        batch_size: blocks in a batch; fewer if they need much memory.
        where: file of the text, for messages.

    Returns:
        Batches of ``input_ids``, ``attention_mask`` and ``labels``, each ``(blocks, tokens)``.

    Raises:
        InputError: the text has no two tokens, the tokenizer is missing, or the model is no language model.

    >>> from tempfile import TemporaryDirectory
    >>> from tokenizers import Tokenizer, models
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    >>> model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=3, max_position_embeddings=4))
    >>> with TemporaryDirectory() as folder:
    ...     Tokenizer(models.BPE({"a": 0, "b": 1, "c": 2}, [])).save(f"{folder}/tokenizer.json")
    ...     batches = text_batches("abcabc", model, Path(folder), 8, "text.txt")
    >>> [batch["input_ids"].tolist() for batch in batches]  # a block has the four tokens that the model can read
    [[[0, 1, 2, 0]], [[1, 2]]]
    """
    task = task_of(model)
    if task not in ("causal", "masked"):
        raise InputError(f"{where} is text, but {type(model).__name__} is no language model; give texts with labels")
    tokenizer = load_tokenizer(folder)
    if task == "masked" and tokenizer.mask_token_id is None:
        raise InputError(f"the tokenizer in {folder} has no mask token; give input_ids and labels as .safetensors")
    with quiet():
        ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.long)
    ends = [tokenizer.cls_token_id, tokenizer.sep_token_id] if task == "masked" else []
    ends = ends if None not in ends else []
    length = min(_BLOCK, positions(model) or _BLOCK) - len(ends)
    batches: list[dict[str, Tensor]] = []
    for blocks in _blocks(ids, length, least=2 if task == "causal" else 1, where=where):
        arrays = _masked(blocks, ends, tokenizer, _SEED + len(batches)) if task == "masked" else _plain(blocks)
        arrays = checked(arrays, model, where)
        batches += dict_batches(arrays, fitting_size(model, (length,), batch_size))
    return batches


def label_batches(
    texts: Sequence[str], labels: Tensor, model: nn.Module, folder: Path, batch_size: int, where: object
) -> list[dict[str, Tensor]]:
    """Batches of texts with a label each, for a classifier of texts. Texts are cut to 512 tokens or the
    model's positions.

    Texts are padded to the longest of their batch. If the tokenizer or the model has no padding token, a batch has one
    text.

    Args:
        texts: the texts.
        labels: their classes, ``(n,)``.
        model: a classifier of texts of transformers.
        folder: its folder, with tokenizer.json.
        batch_size: texts in a batch; fewer if they need much memory.
        where: file of the texts, for messages.

    Returns:
        Batches of ``input_ids``, ``attention_mask`` and ``labels``.

    Raises:
        InputError: a text is empty, or its tokens or its label do not fit the model.

    >>> from tempfile import TemporaryDirectory
    >>> from tokenizers import Tokenizer, models
    >>> from transformers import LlamaConfig, LlamaForSequenceClassification
    >>> sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    >>> model = LlamaForSequenceClassification(LlamaConfig(**sizes, vocab_size=3, num_labels=2))
    >>> with TemporaryDirectory() as folder:
    ...     Tokenizer(models.BPE({"a": 0, "b": 1, "c": 2}, [])).save(f"{folder}/tokenizer.json")
    ...     batches = label_batches(["cab", "ba"], torch.tensor([0, 1]), model, Path(folder), 8, "texts.csv")
    >>> [(batch["input_ids"].tolist(), batch["labels"].tolist()) for batch in batches]  # no padding: one text in each
    [([[2, 0, 1]], [0]), ([[1, 0]], [1])]
    """
    tokenizer = load_tokenizer(folder)
    limit = positions(model)
    longest = min(_BLOCK, limit or _BLOCK)
    can_pad = tokenizer.pad_token_id is not None and getattr(model.config, "pad_token_id", None) is not None
    size = fitting_size(model, (longest,), batch_size) if can_pad else 1
    batches = []
    for start in range(0, len(texts), size):
        with quiet():
            made = tokenizer(list(texts[start : start + size]), padding=can_pad, truncation=True, max_length=longest)
        ids, mask = torch.tensor(made["input_ids"]), torch.tensor(made["attention_mask"])
        if not ids.numel() or not bool(mask.any(1).all()):
            empty = start + (int(mask.any(1).logical_not().nonzero()[0]) if ids.numel() else 0)
            raise InputError(f"{where}: text {empty} is empty; remove the row")
        arrays = {"input_ids": ids, "attention_mask": mask, "labels": labels[start : start + size]}
        batches.append(checked(arrays, model, where))
    return batches


def _blocks(ids: Tensor, length: int, least: int, where: object) -> list[Tensor]:
    """The whole blocks ``(blocks, length)``, and the rest ``(1, tokens)`` if it has at least ``least`` tokens."""
    if len(ids) < least:
        raise InputError(f"{where} has {len(ids)} tokens; give a text of at least {least}")
    whole = len(ids) // length * length
    parts = [ids[:whole].view(-1, length), ids[None, whole:]]
    return [part for part in parts if len(part) and part.shape[1] >= least]


def _plain(blocks: Tensor) -> dict[str, Tensor]:
    return {"input_ids": blocks, "attention_mask": torch.ones_like(blocks), "labels": blocks}


def _masked(blocks: Tensor, ends: list[int], tokenizer: Any, seed: int) -> dict[str, Tensor]:
    """15 % of each block's tokens, at least one, become labels: 80 % of them masked, 10 % drawn, 10 % as they are."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(blocks.shape, generator=generator)
    count = max(1, round(_SHARE * blocks.shape[1]))
    chosen = torch.zeros_like(blocks, dtype=torch.bool).scatter_(1, draws.topk(count, dim=1).indices, True)
    fate = torch.rand(blocks.shape, generator=generator)
    others = torch.randint(len(tokenizer), blocks.shape, generator=generator)
    ids = torch.where(chosen & (fate < 0.8), tokenizer.mask_token_id, blocks)
    ids = torch.where(chosen & (fate >= 0.9), others, ids)
    labels = blocks.masked_fill(~chosen, IGNORED)
    if ends:
        first, last = (torch.full((len(blocks), 1), end) for end in ends)
        ids = torch.cat([first, ids, last], 1)
        labels = nn.functional.pad(labels, (1, 1), value=IGNORED)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
