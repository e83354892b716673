"""The sample files that inputs are made from: a tiny network with data, and one file of each kind that is read."""

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import howsparse
from benchmarks.fuzz_sandbox import CANARY
from howsparse.limit.certificate import Certificate
from howsparse.records import Measurement, append_record, provenance

__all__ = ["LOADERS", "Evil", "fill", "tiny_batches", "tiny_network"]

_MODULE = """
import torch
from torch import nn
from howsparse import Problem
from benchmarks.fuzz_samples import tiny_batches, tiny_network as net

def problem():
    return Problem(net, train=tiny_batches(), test=tiny_batches(), epochs=1)

def frozen():
    return net().requires_grad_(False)

def weightless():
    return nn.BatchNorm1d(4)

def batches():
    return tiny_batches()

def empty():
    return []

def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

number = 3
"""
_EVIL = f"open({CANARY!r}, 'w').close()\n"
_SWEEP = "tasks:\n  - {task: 'nets:problem'}\nmethods: [dense, one_shot]\nsparsities: [0.5]\nseeds: 1\n"


class Evil:
    """An object whose pickle runs code."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, (_EVIL,)


def tiny_network() -> nn.Module:
    """A 4-6-3 network, the same in every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def tiny_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """48 examples in two batches, labelled by their largest input."""
    inputs = torch.randn(48, 4, generator=torch.Generator().manual_seed(1))
    return list(zip(inputs.split(24), inputs[:, :3].argmax(1).split(24), strict=True))


def fill() -> None:
    """Write the sample files into the working directory."""
    model, batches = tiny_network(), tiny_batches()
    Path("nets.py").write_text(_MODULE)
    Path("evil.py").write_text(_EVIL)
    Path("sweep.yaml").write_text(_SWEEP)
    inputs, targets = (torch.cat(part).numpy() for part in zip(*batches, strict=True))
    np.savez("batches.npz", inputs=inputs, targets=targets)
    save_file(model.state_dict(), "net.safetensors")
    torch.save(model.state_dict(), "net.pt")
    torch.save({"state_dict": Evil()}, "evil.pt")
    Path("evil.npz").write_bytes(evil_npz())
    append_record(Measurement(kind="sample", made=provenance("sample")), "runs.jsonl")
    _documents(model, batches)
    Path("empty").touch()
    Path("folder").mkdir()
    Path("folder", "kept.txt").write_text("kept")
    os.mkfifo("fifo")
    Path("dangling").symlink_to("nowhere")
    Path("link.npz").symlink_to("batches.npz")
    Path("model").mkdir()
    Path("model", "evil.py").write_text(_EVIL)
    Path("model", "config.json").write_text(
        json.dumps({"model_type": "bert", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}})
    )


def evil_npz() -> bytes:
    """An npz file whose array of objects would run code."""
    file = io.BytesIO()
    np.savez(file, inputs=np.array([Evil()], dtype=object), targets=np.zeros(1))
    return file.getvalue()


def evil_pickle() -> bytes:
    """A plain pickle that would run code."""
    return pickle.dumps(Evil())


def _documents(model: nn.Module, batches: Any) -> None:
    howsparse.magnitude_mask(model, 0.5).save("mask.safetensors")
    howsparse.measure(model, batches, max_drop=0.5, progress=False).save("measured.json")
    howsparse.pruning_limit(model, batches, tolerance=0.1, max_products=32, progress=False).save("limit.safetensors")
    held = [(x + 0.001, y) for x, y in batches]
    howsparse.certify(model, held, max_drop=0.5, chosen_on=batches, progress=False).save("certificate.safetensors")
    howsparse.save_deployed(model, "deployed.safetensors")


LOADERS: dict[str, Callable[[Path], object]] = {
    "mask.safetensors": howsparse.Mask.load,
    "measured.json": howsparse.Measured.load,
    "limit.safetensors": howsparse.PruningLimit.load,
    "certificate.safetensors": Certificate.load,
    "deployed.safetensors": howsparse.DeployedNetwork.load,
}
