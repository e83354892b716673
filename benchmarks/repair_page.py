"""The page docs/repair.md, from the records of `benchmarks.repair`."""

import math
from collections.abc import Iterable
from typing import Any

__all__ = ["page"]

Line = dict[str, Any]

INTRODUCTION = """# Repair without training

What a network can do after pruning, and after each repair of `howsparse.pruning.repair`. A repair uses a few hundred
training examples: no labels and no epochs.

- *BatchNorm*: the statistics of BatchNorm's inputs are computed anew (`repair_batchnorm`).
- *layers*: layer by layer, the kept weights are refitted to the dense layer's outputs (`repair_layers`).
- *rounds*, and a *path* of them: order and repair of the layers in turns, from few removed weights to many
  (`repair_rounds`, `repair_path`). A path gives a network at each of its sparsities; its seconds are those from the
  dense network to this sparsity.
- *global*: all kept weights, biases and norms together, by Gauss-Newton steps towards the features and outputs of the
  dense network (`repair_globally`).

The order is magnitude if no other is named. Made by `python -m benchmarks.repair`; the records with command, commit,
machine and notes are in `results/repair.jsonl`.
"""


def page(records: Iterable[Line]) -> str:
    """The page in docs.

    Args:
        records: lines of results/repair.jsonl.
    """
    lines = list(records)
    parts = [INTRODUCTION]
    tables: dict[tuple[str, int, int], list[Line]] = {}
    for line in lines:
        tables.setdefault((line["network"], line["test_images"], line.get("skipped", 0)), []).append(line)
    for (network, *_), own in sorted(tables.items()):
        parts.append(table(network, own))
    return "\n".join(parts)


def table(network: str, lines: list[Line]) -> str:
    """A row for each repair, a column for each sparsity: accuracy in percent, or perplexity of a language model."""
    text = network == "llama"
    sparsities = sorted({line["sparsity"] for line in lines})
    head = ["repair", *(f"{100 * sparsity:.0f} %" for sparsity in sparsities), "seconds for one sparsity"]
    rows = [head, ["---"] * len(head)]
    for repair in dict.fromkeys(line["repair"] for line in lines):
        found = {line["sparsity"]: line for line in lines if line["repair"] == repair}
        seconds = sorted(line["seconds"] for line in found.values())
        cells = [_cell(found[s], text) if s in found else "" for s in sparsities]
        rows.append([repair, *cells, f"{seconds[0]:.0f} to {seconds[-1]:.0f}"])
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## {network}\n\n{_caption(lines, text)}\n\n{body}\n"


def _cell(line: Line, text: bool) -> str:
    return f"{math.exp(line['loss']):.2f}" if text else f"{100 * line['accuracy']:.2f}"


def _caption(lines: list[Line], text: bool) -> str:
    first, skipped = lines[0], lines[0].get("skipped", 0)
    dense = f"Perplexity; {math.exp(first['dense_loss']):.2f}" if text else f"{100 * first['dense_accuracy']:.2f} %"
    which = f"{first['test_images']:,} {'texts' if text else 'test images'}"
    if skipped:
        which += f" after the first {skipped:,}"
    threads = max(line["threads"] for line in lines)
    notes = "; ".join(dict.fromkeys(line["note"] for line in lines if line["note"]))
    seconds = f"seconds with {threads} thread{'s' * (threads > 1)}{f' ({notes})' if notes else ''}"
    return f"{dense} before pruning, by {which}; {seconds}."
