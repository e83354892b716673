"""The block of a model card (README.md) that says what was pruned, how much, and what it cost."""

import re
from typing import Any

from howsparse.errors import InputError, first_line
from howsparse.limit.measure import Measured, Point
from howsparse.pruning.masks import Mask

__all__ = ["card_block", "model_card"]

_BEGIN, _END = "<!-- howsparse -->", "<!-- /howsparse -->"
_BLOCK = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}\n?", re.DOTALL)
_FRONT = re.compile(r"\A---\s*?\n(.*?)^---\s*?(?:\n|\Z)", re.DOTALL | re.MULTILINE)


def card_block(
    mask: Mask, *, measured: Measured | None = None, certificate: Any = None, command: str | None = None
) -> str:
    """Describe a pruned model in Markdown, for `save_pruned`.

    Args:
        mask: the mask that was applied.
        measured: the measurement that chose the sparsity. Its loss and metric appear only if it evaluated a network of
            exactly the mask's sparsity.
        certificate: what was certified on held-out data: an object with ``sentence``, or a sentence.
        command: the command that pruned the model.

    Returns:
        Lines of Markdown.

    >>> import torch
    >>> print(card_block(Mask(fc=torch.tensor([True, False, False, False])), command="howsparse prune hf:net"))
    This model was pruned with howsparse: 75.00 % of its prunable weights (3 of 4) are zero. ...
    <BLANKLINE>
    Command: `howsparse prune hf:net`
    """
    removed = mask.num_weights - mask.num_kept
    parts = [
        f"This model was pruned with howsparse: {mask.sparsity:.2%} of its prunable weights ({removed:,} of"
        f" {mask.num_weights:,}) are zero.".replace("%", " %", 1)
        + " The removed weights are the entries `False` of `mask.safetensors`."
    ]
    if measured is not None:
        parts[0] += f" Order of removal: {measured.order}. Goal: {measured.goal.describe(measured.metric)}."
        at = _point_of(mask, measured)
        if at is not None:
            parts.append(_table(measured.dense, at, measured.metric))
    if certificate is not None:
        parts.append(f"On held-out data: {getattr(certificate, 'sentence', certificate)}")
    if command:
        parts.append(f"Command: `{command}`")
    return "\n\n".join(parts)


def model_card(existing: str | None, block: str) -> str:
    """Put a block into a model card, between markers. All other text of the card stays as it is.

    Args:
        existing: the card's text; None makes a new card. A block of an earlier call is replaced. The YAML header gets
            the tag ``pruned`` and a ``library_name``, if it lacks them.
        block: lines of Markdown.

    Returns:
        The text of the card.

    Raises:
        InputError: the card's header is not valid YAML.

    >>> print(model_card("# My model", "Pruned."))
    ---
    library_name: transformers
    tags:
    - pruned
    ---
    # My model
    <BLANKLINE>
    <!-- howsparse -->
    Pruned.
    <!-- /howsparse -->
    """
    text = "# Pruned model\n" if existing is None else existing
    header, body = _header(text)
    marked = f"{_BEGIN}\n{block.strip()}\n{_END}\n"
    if _BLOCK.search(body):
        body = _BLOCK.sub(lambda _: marked, body, count=1)
    else:
        body = f"{body.rstrip()}\n\n{marked}" if body.strip() else marked
    return header + body


def _header(text: str) -> tuple[str, str]:
    """The YAML header between two lines ``---`` with what it must have, and the text behind it."""
    import yaml

    match = _FRONT.match(text)
    body = text[match.end() :] if match else text
    try:
        fields = (yaml.safe_load(match[1]) or {}) if match else {}
    except yaml.YAMLError as error:
        raise InputError(f"the header of README.md is not valid YAML ({first_line(error)}); correct it") from error
    if not isinstance(fields, dict):
        raise InputError("the header of README.md is not a list of names and values in YAML; correct it")
    tags = fields.get("tags") or []
    tags = [tags] if isinstance(tags, str) else list(tags)
    if match and "pruned" in tags and "library_name" in fields:
        return match[0], body
    fields.setdefault("library_name", "transformers")
    fields["tags"] = [*tags, *([] if "pruned" in tags else ["pruned"])]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n", body


def _point_of(mask: Mask, measured: Measured) -> Point | None:
    """The evaluated network with as many weights as the mask keeps."""
    count = mask.num_weights
    return next((p for p in measured.curve if round((1 - p.sparsity) * count) == mask.num_kept), None)


def _table(dense: Point, pruned: Point, metric: str | None) -> str:
    lines = ["| measured | before | after |", "|---|---|---|", f"| loss | {dense.loss:.4f} | {pruned.loss:.4f} |"]
    if dense.accuracy is not None and pruned.accuracy is not None:
        lines.append(f"| {metric or 'metric'} | {dense.accuracy:.4f} | {pruned.accuracy:.4f} |")
    return "\n".join(lines)
