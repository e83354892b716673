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

What the tables say:

- **A path of rounds is the best repair by forward passes alone.** On ResNet20, six rounds with 500 images were chosen
  on the first 2,000 test images. The other 8,000 confirm them: they have a table of
  their own. On two quiet cores the path takes 43 seconds to 90 %.
- **The global step helps where much was lost**: the Llama, and ResNet20 at 90 %. It costs several times as much as the
  path. By itself, it is worse than the layers on ResNet20, and better on the Llama.
- **Its objective matters.** Few examples learn the outputs alone by heart. Features say more about each example: on the
  Llama they are better than the outputs' squares, the divergence and the labels. So they are the default.
- **The best order after repair is magnitude**, of those tried (layerwise, ERK, Wanda), but for a few tenths of a point
  on FC5 at 80 % and 90 %, and for the Llama at 30 %. An order that looks at the inputs repairs badly on ResNet20.
- **FC5 without l1 is repaired to nearly its dense accuracy at 90 %.** The repair brings it near the network that was
  trained with l1; at 98 % a gap of some points stays.
- BatchNorm's statistics help a network right after its mask, and harm a repaired one.

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
    head = ["repair", *(f"{100 * sparsity:.0f} %" for sparsity in sparsities), "seconds", "of the processor"]
    rows = [head, ["---"] * len(head)]
    for repair in dict.fromkeys(line["repair"] for line in lines):
        found = {line["sparsity"]: line for line in lines if line["repair"] == repair}
        cells = [_cell(found[s], text) if s in found else "" for s in sparsities]
        rows.append([repair, *cells, _range(found.values(), "seconds"), _range(found.values(), "processor_seconds")])
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## {network}\n\n{_caption(lines, text)}\n\n{body}\n"


def _range(lines: Iterable[Line], key: str) -> str:
    """From the fewest seconds of a sparsity to the most; empty if they were not measured."""
    known = sorted(line[key] for line in lines if key in line)
    return f"{known[0]:.0f} to {known[-1]:.0f}" if known else ""


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
    seconds = f"seconds for one sparsity, with {threads} thread{'s' * (threads > 1)}{f' ({notes})' if notes else ''}"
    return f"{dense} before pruning, by {which}; {seconds}."
