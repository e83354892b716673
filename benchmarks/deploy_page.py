"""The tables of docs/deploy.md, made from the records of `benchmarks.deploy`."""

from typing import Any

__all__ = ["page"]

Line = dict[str, Any]
SPARSE = "compacted and sparse"
DENSE = ("dense, torch", "dense, oneDNN", "dense, oneDNN with packed weights")
HEAD = """# Smaller and faster on this machine

This page is for readers who have a pruned network and want it to take less time and memory. A mask alone saves nothing:
torch multiplies by zeros as by other numbers. Two functions make use of the zeros, and a third one measures whether
this helps on your machine:

```python
smaller = howsparse.compact(model, example)  # dead units and channels are removed; outputs stay the same
faster = howsparse.sparsify(smaller, example)  # sparse layers where they are faster on this machine
print(howsparse.bench(model, example))  # times of each layer and of the whole
```

```
howsparse bench fc5-cifar10 --weights net.safetensors --data uoft-cs/cifar10 --sparsity 0.98
```

- **Compaction** (`howsparse.compact`) removes a unit or channel if all its inputs or all its outputs are zero. A unit
  whose inputs are all zero gives a constant, and the bias of the next layer takes it in. A convolution that pads with
  zeros keeps one channel for all constants. A unit also counts as zero if its BatchNorm scale is zero. Torch-Pruning's
  dependency graph says which weights belong to a channel. The outputs before and after are compared in float64. A
  network that cannot be traced stays as it is, and `howsparse.bench` and `howsparse.deploy.compacted` say why.
- **Sparse layers** (`howsparse.sparsify`) hold only the nonzero weights, with 32-bit indices. For each layer and batch
  size, every kernel is timed: torch's CSR by MKL, SciPy's CSR, weighted sums of embedding rows (FBGEMM), dense MKL and
  dense oneDNN. A call then takes the fastest one. Copies, pickles and state dicts hold the nonzero weights too.
  `torch.compile` compiles a sparse layer with the rest of the network, and then the layer takes embedding sums. Sparse
  layers that follow each other in an `nn.Sequential`, with their ReLUs, run as one step if no gradient is needed; the
  activations stay transposed between them.
- **Break-even** is a column of `howsparse.bench`: the smallest sparsity at which a sparse kernel is faster, of the
  sparsities that were tried with random masks of the layer's shape. If a layer has fewer zeros, keep it dense, or train
  with an l1 term to get more zeros.
- On a GPU, `howsparse.deploy.semi_structured` replaces linear layers by torch's 2:4 tensors if their masks allow it. It
  was not measured, because no GPU was available.
"""


def page(lines: list[Line]) -> str:
    """The page.

    Args:
        lines: records; of each network and batch size those of the last command count.
    """
    groups: dict[tuple[str, int], list[Line]] = {}
    for line in lines:
        if line["kind"] == "deploy":
            key = (line["network"], line["batch"])
            same = [other for other in groups.get(key, []) if other["made"] == line["made"]]
            groups[key] = [*same, line]
    if not groups:
        return HEAD
    shown = {key: sorted(same, key=_order)[len(same) // 2] for key, same in groups.items()}
    text = """
## Measured

Each row of a table is a way to run the network. *Batch 1* and *batch 32* are the median times of one call with 1 and
with 32 examples. *Times faster* compares with the fastest way to run the dense network in torch: 2.0 is twice as fast,
and 0.5 takes twice the time. All ways took turns in one process. The records are in `results/deploy.jsonl`.

*Dense, torch* is torch's default on a CPU, which is MKL. *Dense, oneDNN* uses the other library that torch has, which
is faster on AMD processors. *With packed weights*: oneDNN's own layout of the weights, which `torch.compile` uses for
frozen weights. *torch.nn.utils.prune* is the pruned network as torch's own tool keeps it, with its mask. *Channels
last* is torch's other memory layout of images.

98 of 100 weights of FC5 and of AlexNet's linear part are zero. FC5 was trained with an l1 term. AlexNet's weights are
random, because the time does not depend on their values. ResNet20 was pruned in two ways, each with 5 epochs of
training on 15,000 images. *Structured l1*: an l1 term on BatchNorm scales chose half of the channels inside the blocks,
which were then set to zero. *Torch-Pruning, ratio 0.5*: that tool removed half of these channels.
"""
    networks = dict.fromkeys(name for name, _ in groups)
    return HEAD + text + "".join(_table(name, shown) + _repeats(name, groups) for name in networks)


def _order(line: Line) -> float:
    """By how much the fastest sparse way is faster; records without one stay in order."""
    return _times_faster(line, SPARSE) if SPARSE in line["seconds"] else 0.0


def _repeats(network: str, groups: dict[tuple[str, int], list[Line]]) -> str:
    """How far the records of one command differ, where it made several."""
    found = [
        f"batch {batch}: {', '.join(f'{_order(line):.1f}' for line in same)} times faster"
        for (name, batch), same in groups.items()
        if name == network and len(same) > 1
    ]
    if not found:
        return ""
    return (
        f"\nThe command ran {network} several times, and the table shows the median. All runs of *{SPARSE}*:"
        f" {'; '.join(found)}.\n"
    )


def _table(network: str, shown: dict[tuple[str, int], Line]) -> str:
    mine = [line for (name, _), line in shown.items() if name == network]
    heads = "".join(f" batch {line['batch']} | times faster |" for line in mine)
    rows = [f"| |{heads}", f"|---|{'---|---|' * len(mine)}"]
    for way in mine[0]["seconds"]:
        cells = "".join(_cells(line, way) for line in mine)
        rows.append(f"| {way} |{cells}")
    made = mine[0]["made"]
    command = f"Made by `{made['command']}` on this processor: {made['machine']['processor']}."
    return f"\n### {network}\n\n{command} {_about(mine)}\n\n" + "\n".join(rows) + "\n"


def _cells(line: Line, way: str) -> str:
    return f" {1e3 * line['seconds'][way]['median']:.3f} ms | {_times_faster(line, way):.1f} |"


def _times_faster(line: Line, way: str) -> float:
    """How many times faster than the fastest dense way."""
    seconds = {name: each["median"] for name, each in line["seconds"].items()}
    dense = min(seconds[name] for name in seconds if name in DENSE or name == "dense, torch, channels last")
    return float(dense / seconds[way])


def _about(mine: list[Line]) -> str:
    first = mine[0]
    sentences = [f"{first['compaction'].capitalize()}; the relative difference of the outputs is at most"]
    sentences[0] += f" {max(line['compaction_error'] for line in mine):.0e} in float64."
    if first.get("accuracy"):
        each = ", ".join(f"{name}: {100 * value:.2f} %" for name, value in first["accuracy"].items())
        sentences.append(f"Accuracy on the test images: {each}.")
        sizes = ", ".join(f"{name}: {value:,}" for name, value in first["parameters"].items())
        sentences.append(f"Parameters: {sizes}.")
    memory = ", ".join(f"{name}: {value / 2**20:.2f} MiB" for name, value in first["bytes"].items())
    sentences.append(f"Memory of the weights: {memory}. All ways use {first['threads']} threads.")
    return " ".join(sentences)
