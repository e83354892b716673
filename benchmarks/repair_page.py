"""The page docs/repair.md, from the records of `benchmarks.repair`."""

import math
from collections.abc import Iterable
from typing import Any

__all__ = ["page"]

Line = dict[str, Any]

INTRODUCTION = """# Repair without training

This page shows the accuracy of networks after pruning, and after each repair of `howsparse.pruning.repair`. It is for
readers who cannot or do not want to train again. A repair changes the weights that stay, from a few hundred training
examples, without labels and without epochs.

- *BatchNorm*: the statistics of the inputs of BatchNorm are computed again (`repair_batchnorm`).
- *layers*: in one layer after the other, the kept weights are fitted to the outputs of the dense layer
  (`repair_layers`).
- *rounds*: weights are removed in several rounds, from few to many, and the layers are repaired after each round
  (`repair_rounds`). A *path of rounds* gives a network at each of its sparsities (`repair_path`); its seconds are those
  from the dense network to this sparsity.
- *global*: all kept weights, biases and norms are fitted together, by Gauss-Newton steps towards the features and
  outputs of the dense network (`repair_globally`).

What the tables say:

- **A path of rounds is the best repair that needs no gradients.** On ResNet20, six rounds with 500 images were chosen
  on the first 2,000 test images. The other 8,000 test images, which have a table of their own, confirm the choice. On
  two quiet cores the path to 90 % takes 43 seconds.
- **The global step helps if much was lost**: on the Llama, and on ResNet20 at 90 %. It takes several times as long as
  the path. Without another repair before it, it is worse than *layers* on ResNet20, and better on the Llama.
- **The objective of the global step matters.** With few examples, a network that is fitted to outputs alone fits only
  these examples. Features contain more about each example: on the Llama they are better than the squares of the
  outputs, the divergence and the labels. So features are the default.
- **Magnitude is the best order with a repair**, of those tried (layerwise, ERK, Wanda). The exceptions are a few tenths
  of a point on FC5 at 80 % and 90 %, and the Llama at 30 %. On ResNet20, the order that looks at the inputs (Wanda) is
  much worse.
- **At 90 %, a repair brings FC5 without l1 back to nearly its dense accuracy.** It is then close to the network that
  was trained with l1. At 98 % it stays some points below.
- Computing the statistics of BatchNorm again helps a network that was only pruned, and harms one that was repaired.

In the tables, each row is a repair, and each column a sparsity. The numbers are accuracies on test data in per cent, or
perplexities for the Llama. *Seconds* go from the fastest sparsity to the slowest, and *of the processor* is processor
time, if it was recorded. The order is magnitude if no other is named. Made by `python -m benchmarks.repair`; the
records with command, commit, machine and notes are in `results/repair.jsonl`.
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
    dense = f"{math.exp(first['dense_loss']):.2f} (perplexity)" if text else f"{100 * first['dense_accuracy']:.2f} %"
    which = f"{first['test_images']:,} {'texts' if text else 'test images'}"
    if skipped:
        which += f" after the first {skipped:,}"
    threads = max(line["threads"] for line in lines)
    notes = "; ".join(dict.fromkeys(line["note"] for line in lines if line["note"]))
    seconds = f"Seconds are for one sparsity, with {threads} thread{'s' * (threads > 1)}{f', {notes}' if notes else ''}"
    return f"Before pruning: {dense} on {which}. {seconds}."
