"""The tables of docs/deploy.md, made from the records of `benchmarks.deploy`."""

from typing import Any

__all__ = ["page"]

Line = dict[str, Any]
SPARSE = "compacted and sparse"
DENSE = ("dense, torch", "dense, oneDNN", "dense, oneDNN with packed weights")
HEAD = """# Smaller and faster on this machine

A mask alone saves nothing. Three functions turn zeros into time and memory, and `howsparse bench` says whether they do:

```python
smaller = howsparse.compact(model, example)  # dead units and channels are removed; outputs stay the same
faster = howsparse.sparsify(smaller, example)  # sparse layers where they are faster on this machine
print(howsparse.bench(model, example))  # times of each layer and of the whole
```

```
howsparse bench fc5-cifar10 --weights net.safetensors --data uoft-cs/cifar10 --sparsity 0.98
```

- **Compaction** removes a unit or channel if all its inputs or all its outputs are zero. A unit without inputs is a
  constant, which moves into the bias of the next layer. A convolution that pads with zeros keeps one channel for all
  constants. A BatchNorm scale of zero counts as zero. Torch-Pruning's dependency graph says which weights belong to a
  channel. Outputs are compared in float64; a network that cannot be traced stays as it is, and `howsparse.bench` and
  `howsparse.deploy.compacted` say why.
- **Sparse layers** hold the nonzero weights with 32-bit indices. Each layer is timed with every kernel for each batch
  size: torch's CSR by MKL, SciPy's CSR, weighted sums of embedding rows (FBGEMM), dense MKL and dense oneDNN. A call
  takes the kernel that won. Copies, pickles and state dicts hold the nonzero weights. Under `torch.compile` a sparse
  layer is compiled with the rest, and takes embedding sums. In an `nn.Sequential`, sparse layers that follow each
  other, with their ReLUs, run as one step without gradients: activations stay transposed between them.
- **Break-even** is the smallest sparsity, of those tried with random masks at the layer's shape, at which a sparse
  kernel wins. Below it, stay dense, or train with l1.
- On a GPU, `howsparse.deploy.semi_structured` puts torch's 2:4 tensors in the place of linear layers whose masks allow
  it. It was not measured: no GPU was at hand.
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

Records are in `results/deploy.jsonl`. All ways to run a network took turns in one process. Times are medians of a call.
*Times faster* is beside the fastest dense way of torch. torch's default is MKL; oneDNN is faster on AMD processors, and
fastest with weights in its own layout, which `torch.compile` uses for frozen weights.
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
        f"\nThe command ran {network} several times, and the table shows the median. *{SPARSE}*: {'; '.join(found)}.\n"
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
    sentences = [f"{first['compaction'].capitalize()}; the largest relative difference is"]
    sentences[0] += f" {max(line['compaction_error'] for line in mine):.0e} in float64."
    if first.get("accuracy"):
        each = ", ".join(f"{name}: {100 * value:.2f} %" for name, value in first["accuracy"].items())
        sentences.append(f"Accuracy on the test images: {each}.")
        sizes = ", ".join(f"{name}: {value:,}" for name, value in first["parameters"].items())
        sentences.append(f"Parameters: {sizes}.")
    memory = ", ".join(f"{name}: {value / 2**20:.2f} MiB" for name, value in first["bytes"].items())
    sentences.append(f"Memory: {memory}. {first['threads']} threads.")
    return " ".join(sentences)
