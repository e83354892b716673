"""How much faster pruned networks are on this machine, beside torch, Torch-Pruning and onnxruntime.

    python -m benchmarks.deploy --data FOLDER_OR_HUB_NAME --nets FOLDER [--weights FILE] [--record results/deploy.jsonl]
        [--page docs/deploy.md]

Four networks: FC5 at 98 % (--weights: after 30 epochs with l1 1e-4; else it is trained here), AlexNet's linear part at
98 %, a pretrained ResNet20 that loses channels by `channel_mask` and by Torch-Pruning, and a VGG16 with few channels,
trained with l1, that loses weights or channels and is not trained after that. All ways to run a network take
turns in one process, so that a slow phase of the machine affects all of them. Ratios are of medians. With --prepare,
networks are trained and kept, and nothing is timed. The page shows the last record of each network and batch size.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import howsparse
from benchmarks.commands import own_command
from benchmarks.deploy_networks import (
    TRAINING,
    Sources,
    accuracy,
    alexnet_linear,
    dense_resnet20,
    pruned_fc5,
    small_vgg16,
    torch_pruned,
    with_any_width,
    without_channels,
)
from benchmarks.deploy_page import page
from howsparse.deploy import Compacted, SparseLinear, bytes_of, compacted
from howsparse.deploy.kernels import KERNELS, csr_of
from howsparse.files import write_whole
from howsparse.matmul import fast_matmul
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.tasks.data import Images

BATCHES = (1, 32)
SPARSITY = 0.98
SAVED, RATIOS = (0.4, 0.5), (0.3, 0.5)  # how much channel_mask and Torch-Pruning remove
ANY_WIDTH = f"channel_mask, {SAVED[-1]:g} saved with multiple 1, not trained"
Way = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--nets", type=Path, default=Path("nets"))
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--folder", type=Path, default=Path("runs/deploy"))
    parser.add_argument("--record", type=Path, default=Path("results/deploy.jsonl"))
    parser.add_argument("--page", type=Path, default=Path("docs/deploy.md"))
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--repeats", type=int, default=1, help="records of each network and batch size")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each network and batch size")
    options = parser.parse_args()
    made = provenance(own_command("benchmarks.deploy"))
    sources = Sources(options.data, options.nets, options.weights, options.folder)
    for name, batch in product(options.networks * options.repeats, BATCHES):
        found = NETWORKS[name](sources, batch)
        if options.prepare:
            continue
        seconds = interleaved(found.pop("ways"), options.seconds)
        line = {"network": name, "batch": batch, "threads": torch.get_num_threads(), **found, "seconds": seconds}
        print(line, file=sys.stderr)
        append_record(Measurement(kind="deploy", made=made, **line), options.record)
    if not options.prepare:
        text = page(list(read_lines(options.record)))
        write_whole(options.page, lambda file: file.write_text(text))


def fc5(sources: Sources, batch: int) -> dict[str, Any]:
    model = pruned_fc5(sources, SPARSITY)
    return unstructured(model, torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def alexnet(sources: Sources, batch: int) -> dict[str, Any]:
    model = alexnet_linear(SPARSITY)
    return unstructured(model, torch.randn(batch, 6400, generator=torch.Generator().manual_seed(0)))


def unstructured(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """A network with zeros: dense by every kernel, masked, sparse, compacted and sparse, and by onnxruntime."""
    smaller = compacted(model, x)
    sparse = howsparse.sparsify(model, x, batches=[len(x)])
    both = howsparse.sparsify(smaller.model, x, batches=[len(x)])
    masked = copy.deepcopy(model)
    howsparse.prune(masked, kept_by(masked))
    networks = {
        "dense, torch": model,
        "dense, oneDNN with packed weights": packed(model),
        "torch.nn.utils.prune": masked,
        "compacted": smaller.model,
        "sparse": sparse,
        "compacted and sparse": both,
    }
    ways: dict[str, Way] = {name: partial(each, x) for name, each in networks.items()}
    ways["dense, oneDNN"] = with_onednn(ways["dense, torch"])
    ways |= onnx_ways({"dense": model, "compacted": smaller.model}, x)
    kernels = {name: layer.kernels for name, layer in both.named_modules() if isinstance(layer, SparseLinear)}
    return {
        "ways": ways,
        "errors": errors(ways, model, x),
        "compaction": smaller.sentence,
        "compaction_error": smaller.difference,
        "kernels": kernels,
        "bytes": {
            name: bytes_of(each) for name, each in networks.items() if name != "dense, oneDNN with packed weights"
        },
    }


@cache
def resnets(sources: Sources) -> tuple[dict[str, nn.Module], dict[str, Compacted], Images]:
    """ResNet20 and what is left of it by Torch-Pruning; the same by `channel_mask`; and the test images."""
    dense, _, test = dense_resnet20(sources)
    x = test.normalised(test.pixels[:1])
    ours = {f"channel_mask, {saved:g} saved": without_channels(sources, saved, x) for saved in SAVED}
    theirs = {f"Torch-Pruning, ratio {ratio:g}": torch_pruned(sources, ratio, x) for ratio in RATIOS}
    return {"dense": dense.eval()} | theirs, ours, test


def resnet20(sources: Sources, batch: int) -> dict[str, Any]:
    """A convolutional network with fewer channels, by `channel_mask` and by Torch-Pruning, trained equally long."""
    networks, ours, test = resnets(sources)
    x = test.normalised(test.pixels[:batch])
    networks = networks | {name: smaller.model for name, smaller in ours.items()}
    timed = networks | {ANY_WIDTH: with_any_width(sources, SAVED[-1], x[:1])}
    ways: dict[str, Way] = {f"torch, {name}": partial(each, x) for name, each in timed.items()}
    for name, each in timed.items():
        ways[f"torch, channels last, {name}"] = partial(
            copy.deepcopy(each).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            x.to(memory_format=torch.channels_last),
        )
    ways |= onnx_ways(timed, x)
    return {
        "ways": ways,
        "errors": {name: errors(_ways_of(name, ways), each, x) for name, each in timed.items()},
        "training": TRAINING,
        "compaction": {name: smaller.sentence for name, smaller in ours.items()},
        "compaction_error": max(smaller.difference for smaller in ours.values()),
        "accuracy": {name: accuracy(each, test) for name, each in networks.items()} if batch == BATCHES[0] else {},
        "parameters": {name: sum(p.numel() for p in each.parameters()) for name, each in timed.items()},
        "multiplications": {name: multiplications(each, x[:1]) for name, each in timed.items()},
        "bytes": {name: bytes_of(each) for name, each in timed.items()},
    }


def _ways_of(network: str, ways: dict[str, Way]) -> dict[str, Way]:
    return {name: way for name, way in ways.items() if name.endswith(f", {network}")}


def multiplications(model: nn.Module, x: Tensor) -> int:
    """Multiplications of linear layers and convolutions."""
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        model(x)
    return int(counted.get_total_flops()) // 2


vgg16_networks = cache(small_vgg16)


def vgg16(sources: Sources, batch: int) -> dict[str, Any]:
    """A convolutional network that was trained with l1 and has lost weights, or channels, without training."""
    dense, smaller, test = vgg16_networks(sources)
    x = test.normalised(test.pixels[:batch])
    networks = {"dense": dense} | {name: each.model for name, each in smaller.items()}
    ways: dict[str, Way] = {}
    for name, each in networks.items():
        ways[f"{name}, torch"] = partial(each, x)
        last = copy.deepcopy(each).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        ways[f"{name}, torch, channels last"] = partial(last, x.to(memory_format=torch.channels_last))
    ways |= onnx_ways(networks, x)
    return {
        "ways": ways,
        "errors": {name: errors({name: partial(each, x)}, each, x)[name] for name, each in networks.items()},
        "compaction": "; ".join(f"{name}: {each.sentence}" for name, each in smaller.items()),
        "compaction_error": max(each.difference for each in smaller.values()),
        "accuracy": {name: accuracy(each, test) for name, each in networks.items()} if batch == BATCHES[0] else {},
        "parameters": {name: sum(p.numel() for p in each.parameters()) for name, each in networks.items()},
        "bytes": {name: bytes_of(each) for name, each in networks.items()},
    }


NETWORKS = {"FC5": fc5, "AlexNet, linear part": alexnet, "ResNet20": resnet20, "VGG16, a quarter": vgg16}


def kept_by(model: nn.Module) -> howsparse.Mask:
    """The mask of the weights that are not zero."""
    return howsparse.Mask({name: w.detach() != 0 for name, w in howsparse.prunable_weights(model).items()})


def packed(model: nn.Module) -> nn.Module:
    """The network with oneDNN's own layout of the weights, which torch.compile uses for frozen weights."""
    made = copy.deepcopy(model)
    assert isinstance(made, nn.Sequential)
    for i, layer in enumerate(made):
        if isinstance(layer, nn.Linear):
            made[i] = _Packed(layer)
    return made


class _Packed(nn.Module):
    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.product = KERNELS["onednn"](csr_of(layer.weight, layer.bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x)


def with_onednn(way: Way) -> Way:
    """The way with oneDNN's matrix products."""

    def run() -> Any:
        with fast_matmul(torch.device("cpu")):
            return way()

    return run


def onnx_ways(networks: dict[str, nn.Module], x: Tensor) -> dict[str, Way]:
    """Networks by onnxruntime, with as many threads as torch has."""
    import onnxruntime

    ways: dict[str, Way] = {}
    for name, model in networks.items():
        with quiet():
            program = torch.onnx.export(copy.deepcopy(model).eval(), (x,), dynamo=True, input_names=["x"])
        assert program is not None
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        settings.log_severity_level = 3
        file = program.model_proto.SerializeToString()
        session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
        ways[f"onnxruntime, {name}"] = partial(session.run, None, {"x": x.numpy()})
    return ways


@contextmanager
def quiet() -> Iterator[None]:
    """Without what an export says."""
    import logging
    import warnings
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@torch.inference_mode()
def errors(ways: dict[str, Way], model: nn.Module, x: Tensor) -> dict[str, float]:
    """Largest difference of each way from the network in float64, relative to the largest output."""
    exact = copy.deepcopy(model).double()(x.double())
    found = {}
    for name, way in ways.items():
        out = way()
        out = torch.from_numpy(out[0]) if isinstance(out, list) else out
        found[name] = float((out.double() - exact).abs().max() / exact.abs().max())
    return found


def interleaved(ways: dict[str, Way], seconds: float) -> dict[str, dict[str, float]]:
    """Median and quartiles of each way's time in seconds. The ways take turns, a few calls at a time."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    calls = {}
    with torch.inference_mode():
        for name, way in ways.items():
            for _ in range(5):
                way()
            began = time.perf_counter()
            way()
            calls[name] = max(3, min(100, round(2e-3 / (time.perf_counter() - began))))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(next(iter(times.values()))) < 30:
            for name, way in ways.items():
                time.sleep(0.02)  # the threads of the way before wait for work, and would take time from this one
                for _ in range(3):
                    way()
                for _ in range(calls[name]):
                    began = time.perf_counter()
                    way()
                    times[name].append(time.perf_counter() - began)
    return {name: _quartiles(each) for name, each in times.items()}


def _quartiles(times: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(times, n=4)
    return {"median": median, "low": low, "high": high}


if __name__ == "__main__":
    main()
