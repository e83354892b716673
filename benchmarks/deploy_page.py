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
- **Fewer channels.** A mask of single weights leaves few channels dead, so that convolutions stay as they are.
  `howsparse.channel_mask` removes whole channels, the least worth for each multiplication first. They go 8 at a time,
  because processors multiply in blocks, and other numbers of channels save less time:

```python
mask = howsparse.channel_mask(network, images, saved=0.5)  # half of the multiplications
howsparse.repair_layers(network, mask, batches)  # the kept weights make good what they can
howsparse.settle_batchnorm(network, batches)  # so that training begins where the repair ended
network = howsparse.compact(network, images)  # the smaller network: train it on
```

- On a GPU, `howsparse.deploy.semi_structured` replaces linear layers by torch's 2:4 tensors if their masks allow it. It
  was not measured, because no GPU was available.
"""
_SIZES = ("parameters", "multiplications")
CHANNELS = """{command} A pretrained ResNet20 loses channels inside its blocks, 8 at a time, by `channel_mask` and by
Torch-Pruning (`MagnitudePruner`, global, group magnitudes, `round_to=8`). Both are then trained for {epochs} epochs of
{images:,} of CIFAR-10's training images, drawn anew for each epoch, with the same optimizer, batches and schedule.
`channel_mask` takes the order Wanda; it, `repair_layers` and `settle_batchnorm` see {calibration:,} training images.
Outputs after compaction differ by {difference:.0e} of the largest one in float64, and those of each program from
float64 by at most {error:.0e}.

{found} An earlier way, l1 on BatchNorm's scales and a cut of the smallest scales of all layers, lost more accuracy: its
records are in the file too.

Times are lower quartiles of a call, since other work on the machine only makes calls slower; threads: {threads}. Those
of torch are in the faster of its two layouts. The number after a time says how many times faster than the dense network
in the same program it is.
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
random, because the time does not depend on their values.

Fewer channels are not always faster. The VGG16 of the last table lost a few channels in most layers when single weights
were removed, and its compacted network is slower in onnxruntime than the dense one, because kernels work on blocks of
channels. So measure before you deploy: `howsparse bench` and `howsparse prune --deploy` do.
"""
    networks = dict.fromkeys(name for name, _ in groups)
    return HEAD + text + "".join(_section(name, shown) + _repeats(name, groups) for name in networks)


def _section(network: str, shown: dict[tuple[str, int], Line]) -> str:
    mine = [line for (name, _), line in shown.items() if name == network]
    return _fewer_channels(mine) if "multiplications" in mine[0] else _table(mine)


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


def _table(mine: list[Line]) -> str:
    heads = "".join(f" batch {line['batch']} | times faster |" for line in mine)
    rows = [f"| |{heads}", f"|---|{'---|---|' * len(mine)}"]
    for way in mine[0]["seconds"]:
        cells = "".join(_cells(line, way) for line in mine)
        rows.append(f"| {way} |{cells}")
    return f"\n### {mine[0]['network']}\n\n{_made(mine)} {_about(mine)}\n\n" + "\n".join(rows) + "\n"


def _made(mine: list[Line]) -> str:
    made = mine[0]["made"]
    return f"Made by `{made['command']}` on this processor: {made['machine']['processor']}."


def _fewer_channels(mine: list[Line]) -> str:
    """One row for each network, one column for each program and batch size; the dense network is 1.0."""
    first = mine[0]
    columns = [(program, line) for program in ("torch", "onnxruntime") for line in mine]
    heads = "".join(f" {program}, batch {line['batch']} |" for program, line in columns)
    rows = [f"| | accuracy | parameters | multiplications |{heads}", f"|---|---|---|---|{'---|' * len(columns)}"]
    for name in first["parameters"]:
        cells = "".join(_time_cell(line, program, name) for program, line in columns)
        sizes = " | ".join(f"{100 * first[kind][name] / first[kind]['dense']:.0f} %" for kind in _SIZES)
        accuracy = f"{100 * first['accuracy'][name]:.2f} %" if name in first["accuracy"] else ""
        rows.append(f"| {name} | {accuracy} | {sizes} |{cells}")
    text = CHANNELS.format(
        command=_made(mine), threads=first["threads"], difference=max(line["compaction_error"] for line in mine),
        error=max(max(ways.values()) for line in mine for ways in line["errors"].values()),
        found=_found(first), **first["training"],
    )  # fmt: skip
    return f"\n### {first['network']}\n\n{text}\n" + "\n".join(rows) + "\n"


def _time_cell(line: Line, program: str, network: str) -> str:
    seconds, dense = (_seconds(line, program, name) for name in (network, "dense"))
    return f" {1e3 * seconds:.3f} ms, {dense / seconds:.2f} |"


def _seconds(line: Line, program: str, network: str) -> float:
    """The lower quartile of the times of a network in a program, in the layout that is fastest for it."""
    ways = {name: each["low"] for name, each in line["seconds"].items()}
    return float(min(ways[name] for name in ways if name.startswith(program) and name.endswith(f", {network}")))


def _found(line: Line) -> str:
    """The networks of the two ways side by side, from the largest on."""
    cost = line["multiplications"]
    by_size = sorted(line["accuracy"], key=lambda name: -cost[name])
    ours, theirs = ([name for name in by_size if name.startswith(way)] for way in ("channel_mask", "Torch-Pruning"))
    return " ".join(_side_by_side(line, *pair) for pair in zip(ours, theirs, strict=True))


def _side_by_side(line: Line, one: str, other: str) -> str:
    ahead = 100 * (line["accuracy"][one] - line["accuracy"][other])
    left, left_there = (100 * line["multiplications"][name] / line["multiplications"]["dense"] for name in (one, other))
    return (
        f"*{one}* has {abs(ahead):.2f} points {'more' if ahead > 0 else 'less'} than *{other}*, with {left:.0f} % of"
        f" the multiplications against {left_there:.0f} %."
    )


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
