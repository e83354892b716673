"""Deployed files: how large they are, and what happens to damaged ones. None may load, and none may end in a traceback.

    python -m benchmarks.damage [--files 1000] [--record results/damage.jsonl] [--table docs/deploy-files.md]

Sizes are those of FC5, VGG16 and ResNet18 as they are initialised, pruned by magnitude; the bytes of a file depend on
the number of weights that stay and where they are, hardly on their values.

Files of an MLP, a convolutional network, a transformer with tied weights and a network in bfloat16 are damaged in ten
ways, in turn. Each is read as a `DeployedNetwork`, and loaded into a network of its class. Every damaged file that
loads counts as wrong, also if its weights are those of before.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import howsparse
from benchmarks.commands import own_command
from howsparse import DeployedNetwork, InputError, load_deployed, save_deployed
from howsparse.files import save_tensors, write_whole
from howsparse.records import Measurement, append_record, provenance, read_lines
from howsparse.tasks.networks import NETWORKS as TASKS
from howsparse.tasks.networks import digits_convnet, digits_mlp

Random = np.random.Generator
_SUM = b'"{\\"sha256\\":\\"'


class Tied(nn.Module):
    """A small language model whose embedding is also its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm, self.out = nn.Embedding(40, 16), nn.LayerNorm(16), nn.Linear(16, 40, bias=False)
        self.mix = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.out.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(self.norm(self.mix(self.words(ids))))
        return out


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": digits_mlp,
    "convnet": digits_convnet,
    "tied": Tied,
    "bfloat16": lambda: digits_mlp().bfloat16(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, default=Path("results/damage.jsonl"))
    parser.add_argument("--table", type=Path, default=Path("docs/deploy-files.md"))
    options = parser.parse_args()
    found = damaged_files(options.files, options.seed) | {"sizes": sizes(options.seed)}
    made = provenance(own_command("benchmarks.damage"))
    append_record(Measurement(kind="damage", made=made, seed=options.seed, **found), options.record)
    text = page(options.table.read_text(), list(read_lines(options.record))[-1])
    write_whole(options.table, lambda file: file.write_text(text))
    print(options.table.read_text())


def damaged_files(count: int, seed: int) -> dict[str, Any]:
    """Damage files, load them, and count what happens."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in DAMAGES}
    with tempfile.TemporaryDirectory() as folder:
        whole = {name: saved(make(), Path(folder) / name) for name, make in NETWORKS.items()}
        bad = Path(folder) / "bad"
        for i in range(count):
            damage, network = list(DAMAGES)[i % len(DAMAGES)], list(NETWORKS)[i // len(DAMAGES) % len(NETWORKS)]
            content = whole[network].read_bytes()
            bad.write_bytes(DAMAGES[damage](content, random))
            assert bad.read_bytes() != content, damage
            outcomes[damage][outcome(bad, network)] += 1
    return {
        "files": count,
        "wrong": sum(each["wrong"] for each in outcomes.values()),
        "tracebacks": sum(each["traceback"] for each in outcomes.values()),
        "damages": {name: dict(each) for name, each in outcomes.items()},
    }


def sizes(seed: int) -> list[dict[str, Any]]:
    """Bytes of files of networks, in full and deployed, and the time to write and to read the deployed ones."""
    found: list[dict[str, Any]] = []
    for name in ("fc5", "vgg16_bn", "resnet18_100"):
        torch.manual_seed(seed)
        model = TASKS[name]()
        for sparsity in (0.9, 0.95, 0.98):
            found.append({"network": name, "sparsity": sparsity, **size(model, sparsity)})
    return found


def size(model: nn.Module, sparsity: float) -> dict[str, float]:
    """Bytes and seconds of one network."""
    mask = howsparse.magnitude_mask(model, sparsity)
    with tempfile.TemporaryDirectory() as folder:
        dense, path = Path(folder) / "dense", Path(folder) / "deployed"
        save_tensors(model.state_dict(), dense)
        began = time.perf_counter()
        save_deployed(model, path, mask)
        written = time.perf_counter()
        load_deployed(path)
        seconds = {"write_seconds": written - began, "read_seconds": time.perf_counter() - written}
        return {"dense_bytes": dense.stat().st_size, "deployed_bytes": path.stat().st_size} | seconds


def saved(model: nn.Module, path: Path) -> Path:
    """A pruned network in a file."""
    save_deployed(model, path, howsparse.magnitude_mask(model, 0.9), network="nets:net", evidence={"measured": 0.9})
    return path


def outcome(path: Path, network: str) -> str:
    """What happens when a damaged file is loaded: "refused", "wrong", or "traceback"."""
    ends = set()
    loads = DeployedNetwork.load, lambda path: load_deployed(path, NETWORKS[network]())
    for load in loads:
        try:
            load(path)
            ends.add("wrong")
        except InputError as error:
            ends.add("refused" if "\n" not in str(error) else "traceback")
        except Exception as error:  # what this benchmark looks for
            print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
            ends.add("traceback")
    return next(end for end in ("traceback", "wrong", "refused") if end in ends)


def parts(content: bytes) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The header of safetensors, this package's description in it, and where the tensors begin."""
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    return header, json.loads(header["__metadata__"]["howsparse"]), begin


def joined(header: dict[str, Any], about: dict[str, Any], tensors: bytes, *, right: bool) -> bytes:
    """A file of these parts; ``right``: with the checksum that it must have, else with the one that it had."""
    given = about["sha256"]
    said = about | {"sha256": "0" * 64} if right else about
    header["__metadata__"]["howsparse"] = json.dumps(said, separators=(",", ":"))
    text = json.dumps(header, separators=(",", ":")).encode()
    made = len(text).to_bytes(8, "little") + text + tensors
    start = made.index(_SUM) + len(_SUM)
    digits = hashlib.sha256(made).hexdigest() if right else given
    return made[:start] + digits.encode() + made[start + 64 :]


def flip(content: bytes, random: Random, bits: int = 1) -> bytes:
    """Flip bits anywhere."""
    changed = bytearray(content)
    for place in random.choice(8 * len(content), bits, replace=False):
        changed[place // 8] ^= 1 << int(place) % 8
    return bytes(changed)


def flip_header(content: bytes, random: Random) -> bytes:
    """Flip one bit of the header."""
    begin = parts(content)[2]
    return flip(content[:begin], random) + content[begin:]


def cut(content: bytes, random: Random) -> bytes:
    """Lose the end."""
    return content[: random.integers(len(content))]


def add(content: bytes, random: Random) -> bytes:
    """Get bytes more at the end."""
    return content + random.bytes(int(random.integers(1, 100)))


def zero(content: bytes, random: Random) -> bytes:
    """Lose a piece to zeros, as a hole in a download."""
    start = int(random.integers(len(content) - 8))
    length = int(random.integers(8, len(content)))
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def swap(content: bytes, random: Random) -> bytes:
    """Exchange the names of two tensors of the same type and shape, or else of any two."""
    header, about, begin = parts(content)
    names = [name for name in header if name != "__metadata__"]
    pairs = [(a, b) for a in names for b in names if a < b and _alike(header[a], header[b])]
    pairs = pairs or [(a, b) for a in names for b in names if a < b]
    a, b = pairs[random.integers(len(pairs))]
    header[a], header[b] = header[b], header[a]
    return joined(header, about, content[begin:], right=False)


def _alike(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return (a["dtype"], a["shape"]) == (b["dtype"], b["shape"]) and a["data_offsets"] != b["data_offsets"]


def edit(content: bytes, random: Random) -> bytes:
    """Change a field of the description, such as the certificate, and nothing else."""
    header, about, begin = parts(content)
    changes: list[dict[str, Any]] = [
        {"evidence": {"measured": 0.99}}, {"network": "other:net"}, {"schema_version": 2}, {"standalone": None},
        {"masked": []}, {"kind": "mask"}, {"class_name": "os.system"},
    ]  # fmt: skip
    return joined(header, about | changes[random.integers(len(changes))], content[begin:], right=False)


def forge(content: bytes, random: Random) -> bytes:
    """Contradict the tensors or the schema in the description, with a checksum that is right again."""
    header, about, begin = parts(content)
    packed = [name for name, stored in about["tensors"].items() if stored["bits"] is not None]
    packed = [name for name in packed if name.rpartition(".")[0] in about["layers"]]  # whose shapes are said twice
    one, layer = packed[random.integers(len(packed))], next(iter(reversed(about["layers"])))
    stored = about["tensors"][one]
    changes: list[Callable[[], object]] = [
        lambda: about.update(schema_version=int(random.integers(2, 99))),
        lambda: about.update(kind="mask"),
        lambda: about["tensors"].pop(one),
        lambda: stored.update(shape=[each + 1 for each in stored["shape"]]),
        lambda: stored.update(shape=[*stored["shape"], 1]),
        lambda: stored.update(bits=None),
        lambda: stored.update(bits=int(random.integers(17, 99))),
        lambda: about.update(masked=["none"]),
        lambda: about.update(tied={"none": "nothing"}),
        lambda: about["layers"][layer].update(kind="system"),
        lambda: about["layers"][layer]["settings"].update(more=1),
        lambda: about.pop("tensors"),
        lambda: about.update(layers=[1, 2]),
        lambda: about.update(evidence="rm -rf"),
    ]
    changes[random.integers(len(changes))]()
    return joined(header, about, content[begin:], right=True)


def foreign(content: bytes, random: Random) -> bytes:
    """Something else: bytes at random, a pickle, a mask, a state dict, nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path, weight = Path(folder) / "file", {"weight": torch.ones(2, 2)}
        makers: list[Callable[[], object]] = [
            lambda: path.write_bytes(random.bytes(500)),
            lambda: torch.save(weight, path),
            lambda: howsparse.Mask(weight=torch.ones(2).bool()).save(path),
            lambda: save_tensors(weight, path),
            lambda: path.write_bytes(b""),
            lambda: path.write_bytes((2**63).to_bytes(8, "little") + content[8:]),
        ]
        makers[random.integers(len(makers))]()
        return path.read_bytes()


DAMAGES: dict[str, Callable[[bytes, Random], bytes]] = {
    "one bit flipped": flip,
    "one bit of the header flipped": flip_header,
    "20 bits flipped": lambda content, random: flip(content, random, 20),
    "cut off": cut,
    "bytes added": add,
    "a piece lost to zeros": zero,
    "two tensors swapped": swap,
    "the description edited": edit,
    "contradictions with a right checksum": forge,
    "another file": foreign,
}


def page(text: str, record: dict[str, Any]) -> str:
    """The page in docs with the tables of this record."""
    made = record["made"]
    end = (
        f"In all: {record['wrong']} wrong loads, {record['tracebacks']} tracebacks. Made by `{made['command']}` on this"
        f" processor: {made['machine']['processor']}; the record is in `results/damage.jsonl`."
    )
    tables = {"sizes": size_table(record["sizes"]), "damages": f"{damage_table(record['damages'])}\n{end}\n"}
    for name, table in tables.items():
        head = f"<!-- {name}, by benchmarks.damage -->\n"
        before, after = text.split(head)
        text = f"{before}{head}{table}<!-- end -->{after.split('<!-- end -->', 1)[1]}"
    return text


def size_table(found: list[dict[str, Any]]) -> str:
    """A row for each file."""
    lines = ["| network | removed | in full | deployed | share | write | read |", "|---|---|---|---|---|---|---|"]
    for each in found:
        dense, small = each["dense_bytes"], each["deployed_bytes"]
        times = f"{each['write_seconds']:.2f} s | {each['read_seconds']:.2f} s"
        lines.append(
            f"| {each['network']} | {100 * each['sparsity']:.0f} % | {dense / 1e6:.2f} MB | {small / 1e6:.2f} MB"
            f" | {100 * small / dense:.1f} % | {times} |"
        )
    return "\n".join(lines) + "\n"


def damage_table(damages: dict[str, dict[str, int]]) -> str:
    """A row for each kind of damage."""
    lines = ["| damage | files | refused | wrong | traceback |", "|---|---|---|---|---|"]
    for name, each in damages.items():
        counts = " | ".join(str(each.get(end, 0)) for end in ("refused", "wrong", "traceback"))
        lines.append(f"| {name} | {sum(each.values())} | {counts} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
