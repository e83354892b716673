"""What the fuzzer draws: for each kind, a call of the program with something right, wrong or broken.

All names of files are from a fixed list without folders above the working directory, so no drawn path leads out of it.
"""

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
import yaml
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

import howsparse
from benchmarks.fuzz_samples import LOADERS, evil_npz, evil_pickle, tiny_batches, tiny_network
from benchmarks.fuzz_sandbox import command
from howsparse.cli import app
from howsparse.experiments.sweep import jobs_of, load_sweep
from howsparse.loading import load_weights
from howsparse.pruning.orders import ORDERS
from howsparse.pruning.repair import REPAIRS
from howsparse.records import CaseRecord, Measurement, TrainRecord, read_lines, read_records
from howsparse.tasks.recipe import check_recipe, load_recipe

__all__ = ["KINDS", "Attempt"]


@dataclass(frozen=True)
class Attempt:
    """One input.

    Attributes:
        call: gives it to the program; returns what is wrong with the answer.
        shown: what the input is, for the report of a fault.
        may_change: sample files that it names as files to write.
    """

    call: Callable[[], str | None]
    shown: str
    may_change: frozenset[str] = frozenset()


_NUMBERS = (
    *("0", "1", "-1", "2", "5", "0.5", "0.95", "1e-3", "nan", "inf", "-inf", "1e308", "1e-320", "-0.0", "1e400"),
    *("99999999999999999999", "18446744073709551616", "1_0", "0x1", " 1", "", "é", "½", "٣", "a b", "--force", "1,2"),
)
_FILES = (
    *("net.safetensors", "net.pt", "evil.pt", "batches.npz", "evil.npz", "link.npz", "runs.jsonl", "sweep.yaml"),
    *("mask.safetensors", "measured.json", "limit.safetensors", "certificate.safetensors", "deployed.safetensors"),
    *("empty", "folder", "fifo", "dangling", "model", "new", "new.png", "new.jsonl", "new.safetensors", "folder/new"),
    *("missing.npz", "", " ", "é.npz", "x" * 300, "empty/new", "new.html", "nets.py"),
)
_MODELS = (
    *("nets:net",) * 12,
    *("nets:frozen", "nets:weightless", "nets:number", "nets:missing", "nets:", ":", ":net", "nothing:net", "digits"),
    *("hf:model", "hf:folder", "hf:missing", "hf:", "", "é", "nets.net", "fc5-cifar10", "nets:problem", "nets:empty"),
)
_PROBLEMS = (*("nets:problem",) * 12, "nets:net", "nets:number", "nets:missing", ":", "", "nothing", "fc5-cifar10")
_BATCHES = ("nets:batches", "nets:empty", "nets:number", "nets:net", *_FILES)
_WORDS: dict[str, tuple[str, ...]] = {  # values of options that are neither numbers nor files
    "model": _MODELS,
    "problem": _PROBLEMS,
    "data": _BATCHES,
    "held_out": _BATCHES,
    "loss": ("nets:loss", "nets:number", "nets:missing", "cross_entropy", ""),
    "metric": ("accuracy", "perplexity", "", "é"),
    "order": (*ORDERS, "best", "", "none"),
    "repair": ("auto", "none", "", "obs", *REPAIRS),
    "sparsity": ("measured", "predicted", "limit", *_NUMBERS),
    "sparsities": ("0.5", "limit", "predicted", "0.5,0.50", ",", *_NUMBERS),
    "methods": ("dense", "one_shot", "random", "none", "", "dense,dense", "one_shot:x=1", "lottery_ticket:rate=1e-300"),
    "method": ("dense", "one_shot", "random", "none", "", "lottery_ticket:fraction=nan", "one_shot:fine_tune=-1"),
    "curvature": ("hessian", "ggn", "gauss-newton", "", "é"),
    "negative": ("wall", "unbounded", "", "x"),
    "backend": ("loky", "", "none"),
    "number": ("1", "2", "3", "4", "0", "x"),
    "name": ("2", "3", "4", "rows", "magnitudes", "5", "", "é"),
    **dict.fromkeys(("epochs", "seeds", "jobs", "points", "batches"), ("0", "1", "-1", "nan", "x", "1.5")),
    "probes": ("0", "1", "2", "-1", "nan"),
    "max_products": ("0", "32", "31", "-1", "nan", "40"),
    "address": ("", "x"),
}  # fmt: skip
_FILE_OPTIONS = frozenset(
    ("weights", "output", "plot", "record", "keep", "folder", "certificate", "mask", "deploy", "onnx", "change", "file")
)
_WEIGHTED = (
    *("measure",) * 8,
    *("audit", "certify", "prune", "train") * 4,
    *("table", "sweep", "compare") * 3,
    "figure",
)
_SLOW = ("limit", "report", "bench", "run")  # a valid input takes a second and more
_COMMANDS = {name: each.params for name, each in typer.main.get_command(app).commands.items()}  # type: ignore[attr-defined]
_DROP = {"max_drop": "5"}
_CHEAP = {  # options that are always given, so that a valid input takes little time
    "measure": {"max_drop": "0.2"},
    "certify": {"max_drop": "50"},
    "compare": {"methods": "dense", "sparsities": "0.5", "seeds": "1", "epochs": "1"},
}


@st.composite
def options(draw: st.DrawFn) -> Attempt:
    """A command with right and wrong values of its options."""
    name = draw(st.sampled_from(_WEIGHTED if draw(st.integers(0, 30)) else _SLOW))
    return _command(draw, name, frozenset())


@st.composite
def paths(draw: st.DrawFn) -> Attempt:
    """A command whose paths are files of other kinds, folders, pipes, links, or the same file twice."""
    name = draw(st.sampled_from(_WEIGHTED))
    return _command(draw, name, _FILE_OPTIONS | {"data", "held_out"})


def _command(draw: st.DrawFn, name: str, only: frozenset[str]) -> Attempt:
    words, written, recorded = [name], set[str](), set[str]()
    for parameter in _COMMANDS[name]:
        needed, what = parameter.required or parameter.name in ("data", "weights", "record"), parameter.name
        wanted = needed if draw(st.integers(0, 9)) else draw(st.booleans())
        drawn = draw(st.booleans()) if what in only else not only and draw(st.integers(0, 7)) == 0
        if not (wanted or drawn or what in _CHEAP.get(name, _DROP)) or what in ("help", "deploy", "onnx"):
            continue
        if getattr(parameter, "is_flag", False):
            words.append(parameter.opts[0])
            continue
        value = _value(draw, name, what, what in only)
        words += [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]
        if what in _FILE_OPTIONS - {"weights", "certificate", "change", "file"}:
            written.add(value)
        if what == "record":
            recorded.add(value)
    allowed = written if "--force" in words else recorded & {"runs.jsonl", "empty"}  # records are added to these
    return Attempt(lambda: command(words), json.dumps(words, ensure_ascii=False), frozenset(allowed))


def _value(draw: st.DrawFn, name: str, what: str, wrong: bool) -> str:
    """A value of an option; a right one for most."""
    right = {"model": "nets:net", "problem": "nets:problem", "data": "nets:batches", "output": "new.safetensors"}
    right |= {"weights": "net.safetensors", "record": "runs.jsonl", "file": "sweep.yaml", "change": "mask.safetensors"}
    right |= {"epochs": "1", "max_products": "32", "points": "2"} | _CHEAP.get(name, _DROP)
    if what == "data" and name in ("train", "compare", "run"):
        right.pop("data")
    if what in right and draw(st.integers(0, 9)) and not (wrong and draw(st.booleans())):
        return right[what]
    return draw(st.sampled_from(_FILES if what in _FILE_OPTIONS else _WORDS.get(what, _NUMBERS)))


def _damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes of a file, cut short, with other bytes in them, or as they are."""
    how = draw(st.sampled_from(("cut", "flip", "put", "none", "none", "more")))
    at = draw(st.integers(0, max(0, len(content) - 1)))
    if how == "cut":
        return content[:at]
    if how == "flip" and content:
        return content[:at] + bytes([content[at] ^ (1 << draw(st.integers(0, 7)))]) + content[at + 1 :]
    if how == "put":
        put = draw(st.binary(min_size=1, max_size=8))
        return content[:at] + put + content[at + len(put) :]
    return content + draw(st.binary(max_size=8)) if how == "more" else content


_DTYPES = ("f4", "f8", "f2", "i8", "u1", "b1", "c8", "U3", "M8[s]", "i2")


@st.composite
def npz(draw: st.DrawFn) -> Attempt:
    """A command with an npz file of any arrays, possibly damaged."""
    names = draw(
        st.lists(st.sampled_from(("inputs", "targets", "test_inputs", "test_targets", "labels", "é")), max_size=5)
    )
    arrays = {
        name: _array(draw, name) for name in ["inputs", "targets", *names][(draw(st.integers(0, 9)) == 0 and 2) or 0 :]
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    content = evil_npz() if draw(st.integers(0, 40)) == 0 else _damaged(draw, file.getvalue())
    words = ["measure", "nets:net", "--data", "new.npz", "--max-drop", "50"]

    def call() -> str | None:
        Path("new.npz").write_bytes(content)
        return command(words)

    return Attempt(call, f"npz { ({k: (a.dtype.str, a.shape) for k, a in arrays.items()}) }")


def _array(draw: st.DrawFn, name: str) -> Any:
    """An array for a name: mostly of the right shape, with some wrong values."""
    examples = 8 if draw(st.integers(0, 9)) else draw(st.integers(0, 9))
    inputs = name.endswith("inputs")
    shape: tuple[int, ...] = (examples, 4) if inputs else (examples,)
    if draw(st.integers(0, 9)) == 0:
        shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    dtype = ("f4" if inputs else "i8") if draw(st.integers(0, 3)) else draw(st.sampled_from(_DTYPES))
    array = (np.arange(math.prod(shape)) % 3).reshape(shape).astype(dtype)
    if array.size and array.dtype.kind in "fic" and draw(st.integers(0, 3)) == 0:
        odd = (np.nan, np.inf, -np.inf, 1e38, -1) if array.dtype.kind in "fc" else (-1, -100, 3, 99, -(2**15))
        array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from(odd))
    return array


_TORCH_DTYPES = (
    *(torch.float32,) * 8,
    *(torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8, torch.complex64),
    torch.float8_e4m3fn,
)


@st.composite
def weights(draw: st.DrawFn) -> Attempt:
    """A file of weights with any tensors, or a damaged one, read into a network; some are measured by the command."""
    state: dict[str, Any] = dict(tiny_network().state_dict())
    for name in draw(st.lists(st.sampled_from([*state, "module.0.weight", "é", ""]), max_size=3)):
        shape = (
            state[name].shape
            if name in state and draw(st.integers(0, 3))
            else draw(st.lists(st.integers(0, 4), max_size=3))
        )
        value = draw(st.sampled_from((0.0, 1.0, math.nan, math.inf, 1e-30, 1e30)))
        state[name] = torch.full(tuple(shape), value).to(draw(st.sampled_from(_TORCH_DTYPES)))
    path = draw(st.sampled_from(("new.safetensors", "new.pt", "new.bin", "new")))
    file = io.BytesIO()
    if path == "new.safetensors":
        file.write(save(state))
    else:
        torch.save({"state_dict": state} if draw(st.booleans()) else state, file)
    content = _damaged(draw, file.getvalue())
    if draw(st.integers(0, 40)) == 0:
        content = draw(st.sampled_from((Path("evil.pt").read_bytes(), evil_pickle(), b"", b"{}", b"\x80\x04.")))
    whole = draw(st.integers(0, 5)) == 0

    def call() -> str | None:
        Path(path).write_bytes(content)
        if whole:
            return command(["measure", "nets:net", "--data", "nets:batches", "--weights", path, "--max-drop", "50"])
        load_weights(tiny_network(), Path(path))
        return None

    return Attempt(call, f"{path} { ({k: (t.dtype, tuple(t.shape)) for k, t in state.items()}) }")


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
_KINDS_OF_RECORDS = ("sample", "train", "run", "method", "limit", "iteration", "é")
_LINES = (
    [json.loads(line) for line in Path("results/runs.jsonl").read_text().splitlines()[:3]]
    if Path("results/runs.jsonl").is_file()
    else []
)


@st.composite
def records(draw: st.DrawFn) -> Attempt:
    """A file of records whose lines are changed or damaged, or no records."""
    line: Any = {"kind": "run"}
    if draw(st.integers(0, 3)) and _LINES:
        line = dict(draw(st.sampled_from(_LINES)))
    for name in draw(st.lists(st.sampled_from([*line, "hash", "x"]), max_size=2)):
        line[name] = draw(_JSON)
    line["kind"] = draw(st.sampled_from(_KINDS_OF_RECORDS)) if draw(st.booleans()) else line["kind"]
    line["schema_version"] = draw(st.sampled_from((0, 1, 1, 2, -1, "1", None)))
    line = line if draw(st.integers(0, 5)) else draw(_JSON)
    content = _damaged(draw, json.dumps(line).encode() + b"\n") + draw(
        st.sampled_from((b"", b"\n", b"{", b"\xff", b"[]\n"))
    )
    shown = draw(st.sampled_from(("read",) * 5 + ("table",)))

    def call() -> str | None:
        Path("new.jsonl").write_bytes(content)
        if shown == "table":
            return command(["table", "2", "--record", "new.jsonl"])
        read_lines("new.jsonl")
        for model, kind in ((CaseRecord, "run"), (TrainRecord, "train"), (Measurement, "sample")):
            read_records(model, (kind,), "new.jsonl")
        return None

    return Attempt(call, f"record, {shown}: {content[:300]!r}")


_TAGS = (
    "!!python/object/apply:os.system ['touch canary']",
    "!!python/name:os.system",
    "!!python/module:evil",
    "&a [*a]",
)


@st.composite
def yamls(draw: st.DrawFn) -> Attempt:
    """The file of a sweep, or the fields of a recipe."""
    task: dict[str, Any] = {"task": draw(st.sampled_from(("digits", "nets:problem", "none", ""))), "recipe": {}}
    fields: dict[str, Any] = {"tasks": [task], "methods": ["dense"], "sparsities": [0.5], "seeds": 1}
    recipe = load_recipe("digits").model_dump()
    changed = fields if draw(st.booleans()) else recipe
    for name in draw(st.lists(st.sampled_from([*changed, "x"]), max_size=2)):
        changed[name] = draw(
            _JSON | st.sampled_from((10**30, -1, 0, math.nan, math.inf, [], {}, "", "limit", [1.0], ["random"]))
        )
    task["recipe"] = draw(_JSON) if draw(st.integers(0, 5)) == 0 else draw(st.sampled_from(({}, {"epochs": 2})))
    text = yaml.safe_dump(fields)
    if draw(st.integers(0, 3)) == 0:
        text = text.replace("dense", draw(st.sampled_from(_TAGS)))
    content = _damaged(draw, text.encode())

    def call() -> str | None:
        Path("new.yaml").write_bytes(content)
        if changed is recipe:
            check_recipe(recipe, "new")
        else:
            jobs_of(load_sweep(Path("new.yaml")), Path("new.jsonl"), Path("runs"))
        return None

    return Attempt(call, f"yaml {content[:300]!r}, recipe {changed is recipe and recipe}")


@st.composite
def documents(draw: st.DrawFn) -> Attempt:
    """A saved limit, mask, measurement, certificate or deployed file, damaged or in the place of another one."""
    reader, name = draw(st.sampled_from(list(LOADERS))), draw(st.sampled_from(list(LOADERS)))
    content = _damaged(draw, Path(name).read_bytes())

    def call() -> str | None:
        Path("new").write_bytes(content)
        LOADERS[reader](Path("new"))
        return None

    return Attempt(call, f"{name} read as {reader}, {len(content)} bytes")


@st.composite
def folders(draw: st.DrawFn) -> Attempt:
    """A folder in the place of a model of Hugging Face, or of a task's data."""
    config: dict[str, Any] = {
        "model_type": draw(st.sampled_from(("bert", "gpt2", "none", "", None, 3))),
        "hidden_size": 8,
    }
    config |= {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9, "intermediate_size": 8}
    config |= {
        "architectures": draw(st.sampled_from((["BertForSequenceClassification"], ["Evil"], [], None, [3], "x")))
    }
    config |= (
        {"auto_map": {"AutoConfig": "evil.C", "AutoModelForSequenceClassification": "evil.M"}}
        if draw(st.booleans())
        else {}
    )
    content = _damaged(draw, json.dumps(config).encode())
    state = draw(
        st.sampled_from((b"", b"\x08\0\0\0\0\0\0\0{}      ", Path("net.safetensors").read_bytes(), evil_pickle()))
    )
    names = draw(st.sampled_from(("model.safetensors", "pytorch_model.bin", "test.parquet", "train.csv", "0.png")))
    words = draw(
        st.sampled_from(
            (
                ["measure", "hf:tried", "--data", "batches.npz"],
                ["train", "fc5-cifar10", "--data", "tried", "--output", "new"],
            )
        )
    )

    def call() -> str | None:
        folder = Path("tried")
        folder.mkdir()
        (folder / "config.json").write_bytes(content)
        (folder / "evil.py").write_bytes(Path("evil.py").read_bytes())
        (folder / names).write_bytes(state)
        return command(words)

    return Attempt(call, f"{words}: {content[:300]!r}, {names} {state[:20]!r}")


_FLOATS = (0.0, 1.0, -1.0, 0.5, 0.01, 2.0, math.nan, math.inf, -math.inf, 1e-320, 1e308)


@st.composite
def calls(draw: st.DrawFn) -> Attempt:
    """A function of the package with odd weights, odd data and odd numbers."""
    model, data = tiny_network(), tiny_batches()
    if draw(st.integers(0, 1)):
        value = draw(st.sampled_from((0.0, 1.0, -1.0, math.nan, math.inf, 1e-40, 1e38)))
        with torch.no_grad():
            draw(st.sampled_from(list(model.parameters()))).fill_(value)
    model = model.to(
        draw(st.sampled_from((torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)))
    )
    if draw(st.integers(0, 2)) == 0:
        data = _odd_batches(draw)
    data = [(x.to(next(model.parameters()).dtype) if x.is_floating_point() else x, y) for x, y in data]
    number, name = draw(st.sampled_from(_FLOATS)), draw(st.sampled_from(list(_CALLS)))

    _mark_errors(model)

    def call() -> str | None:
        before = {key: value.clone() for key, value in model.state_dict().items()}
        try:
            _CALLS[name](model, data, number)
        except OwnError:
            pass  # a user's network may raise what it likes
        finally:
            changed = [
                k for k, v in model.state_dict().items() if not torch.equal(v.nan_to_num(), before[k].nan_to_num())
            ]
        return f"the model came back changed: {changed}" if changed else None

    shapes = [(tuple(x.shape), x.dtype, tuple(y.shape), y.dtype) for x, y in data]
    return Attempt(call, f"{name}, {number}, {next(model.parameters()).dtype}, {shapes}")


class OwnError(Exception):
    """What the network itself raises, for example because its inputs have another width."""


def _mark_errors(model: nn.Module) -> None:
    """Make the errors of a network's own layers `OwnError`."""
    run = model.forward

    def forward(x: torch.Tensor) -> Any:
        try:
            return run(x)
        except RuntimeError as error:
            if "shapes cannot be multiplied" not in str(error):
                raise
            raise OwnError from error

    model.forward = forward


def _odd_batches(draw: st.DrawFn) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches with wrong shapes, types, labels or values."""
    batches = []
    for _ in range(draw(st.integers(0, 2))):
        x, y = (
            torch.ones(draw(st.integers(0, 3)), draw(st.sampled_from((4, 4, 4, 5, 0)))),
            torch.zeros(3, dtype=torch.long),
        )
        y = y[: len(x)] if draw(st.integers(0, 3)) else y
        if x.numel() and draw(st.booleans()):
            x[0, 0] = draw(st.sampled_from((math.nan, math.inf, 1e38)))
        if len(y) and draw(st.integers(0, 2)) == 0:
            y[0] = draw(st.sampled_from((-1, -100, 3, 10**9, 2)))
        batches.append((x, y))
    return batches


def _limit(model: nn.Module, data: Any, number: float) -> object:
    return howsparse.pruning_limit(model, data, tolerance=number, max_products=32, progress=False)


_CALLS: dict[str, Callable[[nn.Module, Any, float], object]] = {
    "measure": lambda model, data, x: howsparse.measure(model, data, max_drop=x, progress=False),
    "measure by loss": lambda model, data, x: howsparse.measure(model, data, tolerance=x, progress=False),
    "measure precision": lambda model, data, x: howsparse.measure(
        model, data, max_drop=0.5, precision=x, progress=False
    ),
    "outcomes": lambda model, data, x: howsparse.outcomes(model, data),
    "rank": lambda model, data, x: howsparse.rank(model, "taylor", data).mask(x),
    "mask": lambda model, data, x: howsparse.magnitude_mask(model, x),
    "layers": lambda model, data, x: howsparse.layerwise_mask(model, x),
    "random": lambda model, data, x: howsparse.random_mask(model, x, seed=0),
    "certify": lambda model, data, x: howsparse.certify(model, data, max_drop=0.5, confidence=x, progress=False),
    "predict": lambda model, data, x: howsparse.predict(model, data, tolerance=x, progress=False),
    "l1": lambda model, data, x: howsparse.attach_l1(
        torch.optim.SGD(model.parameters(), 0.1), model.parameters(), x
    ),
    "bracket": lambda model, data, x: _limit(model, data, x),
}  # fmt: skip

# how many of each kind are tried for one that is tried of the most costly kinds
KINDS: dict[str, tuple[st.SearchStrategy[Attempt], int]] = {
    "options": (options(), 8),
    "paths": (paths(), 6),
    "npz": (npz(), 6),
    "weights": (weights(), 8),
    "records": (records(), 8),
    "yaml": (yamls(), 8),
    "documents": (documents(), 8),
    "calls": (calls(), 6),
    "folders": (folders(), 1),
}
