"""A deployed network comes back as it was: outputs, masks, and the bytes of the file. A damaged file is refused."""

import copy
import hashlib
import itertools
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import howsparse
from howsparse import InputError, Mask, load_deployed, magnitude_mask, save_deployed
from howsparse.deploy import DeployedNetwork
from howsparse.deploy.packing import pack_positions, unpack_positions
from howsparse.tasks.networks import NETWORKS

pytestmark = pytest.mark.usefixtures("one_thread")

TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class Tied(nn.Module):
    """An embedding whose weight is also that of the output, with a buffer of integers."""

    def __init__(self, words: int = 12, width: int = 6) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.mix = nn.Linear(width, width)
        self.out = nn.Linear(width, words, bias=False)
        self.out.weight = self.words.weight
        self.register_buffer("seen", torch.arange(5))

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.out(self.mix(self.words(ids)))
        return out


class Branches(nn.Module):
    """A network that is no sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.norm = nn.Linear(6, 5), nn.Linear(6, 5, bias=False), nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.left(x).relu() + self.right(x))
        return out


def mlp(widths: list[int]) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after, bias=after % 2 == 0), nn.BatchNorm1d(after), nn.LeakyReLU(0.1)]
    return nn.Sequential(nn.Flatten(), *layers)


def convnet(widths: list[int]) -> nn.Module:
    first, second = widths[0], widths[-1]
    return nn.Sequential(
        nn.Conv2d(2, first, 3, padding=1), nn.GroupNorm(1, first), nn.GELU(),
        nn.Sequential(nn.Conv2d(first, first, 3, groups=first), nn.BatchNorm2d(first)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(first, second), nn.PReLU(),
    )  # fmt: skip


KINDS: dict[str, Callable[[list[int]], tuple[nn.Module, Tensor]]] = {
    "mlp": lambda widths: (mlp(widths), torch.randn(3, widths[0])),
    "convnet": lambda widths: (convnet(widths), torch.randn(2, 2, 5, 5)),
    "tied": lambda widths: (Tied(2 * widths[0], widths[-1]), torch.arange(2 * widths[0])),
    "branches": lambda widths: (Branches(), torch.randn(3, 6)),
}


def random_mask(model: nn.Module, density: float, blocks: bool) -> Mask:
    """A mask of this density, over whole rows or entries; now and then a weight that stays is zero itself."""
    weights = howsparse.prunable_weights(model)
    with torch.no_grad():
        for weight in weights.values():
            weight.masked_fill_(torch.rand(weight.shape) < 0.1, 0.0)
    shapes = {name: (len(w), *[1] * (w.ndim - 1)) if blocks else tuple(w.shape) for name, w in weights.items()}
    return Mask({name: (torch.rand(shapes[name]) < density).expand(w.shape).clone() for name, w in weights.items()})


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    dtype=st.sampled_from(TYPES),
    density=st.sampled_from((0.0, 0.01, 0.05, 0.3, 0.9, 1.0)),
    blocks=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_round_trip(kind: str, widths: list[int], dtype: torch.dtype, density: float, blocks: bool, seed: int) -> None:
    torch.manual_seed(seed)
    model, inputs = KINDS[kind](widths)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    model = model.to(dtype).eval()
    mask = random_mask(model, density, blocks)
    fresh = KINDS[kind](widths)[0]
    with tempfile.TemporaryDirectory() as folder:
        path, again = Path(folder) / "net.safetensors", Path(folder) / "again.safetensors"
        save_deployed(model, path, mask, network="nets:net", evidence={"measured": density})
        read = DeployedNetwork.load(path)
        loaded = load_deployed(path) if read.standalone else load_deployed(path, lambda: fresh)
        save_deployed(loaded, again, read.mask, network=read.network, evidence=read.evidence)
        assert again.read_bytes() == path.read_bytes()
        read.save(again)
        assert again.read_bytes() == path.read_bytes()
    assert read.standalone == (kind in ("mlp", "convnet"))
    assert list(read.mask) == list(mask)
    assert all(torch.equal(read.mask[name], kept) for name, kept in mask.items())
    mask.apply_(model)
    state = loaded.state_dict()
    assert all(torch.equal(state[name], value) and state[name].dtype == value.dtype for name, value in
               model.state_dict().items())  # fmt: skip
    assert torch.equal(loaded(inputs), model(inputs))
    assert (read.network, read.evidence) == ("nets:net", {"measured": density})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**17), max_size=30), st.integers(0, 100))
def test_positions_come_back_in_no_more_bytes_than_masks_or_indices_take(runs: list[int], tail: int) -> None:
    length = sum(runs) + len(runs) + tail
    positions = np.cumsum(np.array(runs, dtype=np.int64) + 1) - 1
    kept = torch.zeros(length, dtype=torch.bool)
    kept[torch.from_numpy(positions)] = True
    bits, packed = pack_positions(kept)
    assert unpack_positions(packed, bits, len(runs), length).tolist() == positions.tolist()
    assert len(packed) <= (length + 7) // 8
    assert len(packed) <= 2 * len(runs) if length <= 2**16 - 1 else len(packed) <= 8 * len(runs)


def test_fc5_at_98_per_cent_takes_at_most_a_twentieth(tmp_path: Path) -> None:
    model = NETWORKS["fc5"]()
    save_deployed(model, tmp_path / "fc5.safetensors", magnitude_mask(model, 0.98))
    save_file(model.state_dict(), tmp_path / "dense.safetensors")
    sizes = [(tmp_path / name).stat().st_size for name in ("fc5.safetensors", "dense.safetensors")]
    assert sizes[0] < 0.025 * sizes[1]


@pytest.mark.parametrize("name", ["digits_convnet", "resnet18_100"])
def test_networks_of_tasks_need_no_class(name: str, tmp_path: Path) -> None:
    """A network with shortcuts and BatchNorm, and one that is trained on digits."""
    model, x = NETWORKS[name]().eval(), torch.randn(2, 1 if "digits" in name else 3, 8, 8)
    mask = magnitude_mask(model, 0.99)
    save_deployed(model, tmp_path / "net", mask)
    mask.apply_(model)
    loaded = load_deployed(tmp_path / "net")
    assert repr(loaded) == repr(model)
    assert not loaded.training
    assert torch.equal(loaded(x), model(x))


def test_torchs_pruning_and_zeros_give_the_mask(tmp_path: Path) -> None:
    model = mlp([8, 6, 4])
    mask = magnitude_mask(model, 0.5)
    zeros = copy.deepcopy(model)
    mask.apply_(zeros)
    save_deployed(howsparse.prune(model, mask), tmp_path / "pruned")
    save_deployed(zeros, tmp_path / "zeros")
    assert (tmp_path / "pruned").read_bytes() == (tmp_path / "zeros").read_bytes()
    read = DeployedNetwork.load(tmp_path / "pruned")
    assert all(torch.equal(read.mask[name], kept) for name, kept in mask.items())


def test_smaller_layers_fit_into_the_class(tmp_path: Path) -> None:
    """The network that was saved has fewer channels and units, and a bias that its class does not have."""
    torch.manual_seed(0)
    small, x = convnet([3, 2]).eval(), torch.randn(2, 2, 5, 5)
    save_deployed(small, tmp_path / "net")
    large = convnet([5, 2])
    large.register_module("0", nn.Conv2d(2, 5, 3, padding=1, bias=False))
    loaded = load_deployed(tmp_path / "net", large)
    assert loaded is large
    assert large.training
    assert torch.equal(large.eval()(x), small(x))
    depthwise: Any = large.get_submodule("3.0")
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (3, 3, 3)


def test_ties_stay_and_contradictions_are_refused(tmp_path: Path) -> None:
    model = Tied()
    save_deployed(model, tmp_path / "net", magnitude_mask(model, 0.9))
    loaded: Any = load_deployed(tmp_path / "net", Tied())
    assert loaded.words.weight is loaded.out.weight
    wider: Any = load_deployed(tmp_path / "net", Tied(14))
    assert wider.words.weight is wider.out.weight
    assert wider.words.num_embeddings == wider.out.out_features == 12
    model.out.weight = nn.Parameter(model.out.weight + 1)
    save_deployed(model, tmp_path / "untied")
    with pytest.raises(InputError, match=r"'words\.weight' and 'out\.weight' are tied in the network and differ"):
        load_deployed(tmp_path / "untied", Tied())


def test_networks_by_name(tmp_path: Path) -> None:
    model = NETWORKS["digits_mlp"]()
    save_deployed(model, tmp_path / "net")
    for name in ("digits", "howsparse.tasks.networks:digits_mlp"):
        loaded = load_deployed(tmp_path / "net", name)
        assert torch.equal(loaded.state_dict()["1.weight"], model.state_dict()["1.weight"])


def test_evidence(tmp_path: Path) -> None:
    """A measurement as it is, a certificate by its summary; NaN is null."""
    torch.manual_seed(0)
    model = mlp([4, 3])
    x = torch.randn(400, 4)
    batches = [(x, model.eval()(x).argmax(1))]
    measured = howsparse.measure(model, batches, max_drop=0.2)
    certificate = howsparse.certify(model, batches, max_drop=0.2)
    for evidence in (measured, certificate, {"loss": float("nan"), "many": (1, 2)}):
        save_deployed(model, tmp_path / "net", evidence=evidence, force=True)
        found = DeployedNetwork.load(tmp_path / "net").evidence
        assert found is not None
        if evidence is measured:
            assert (found["kind"], found["measured"]) == ("measured", measured.sparsity)
            assert found["pruned"]["loss"] == measured.pruned.loss
        elif evidence is certificate:
            assert (found["kind"], found["sentence"]) == ("certificate", certificate.sentence)
        else:
            assert found == {"loss": None, "many": [1, 2]}


class State(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"a": 1}


REFUSED: list[tuple[nn.Module, dict[str, Any], str]] = [
    (nn.ReLU(), {}, "the network has no parameters"),
    (State(2, 2), {}, "'_extra_state' of the network's state is a dict; only tensors"),
    (nn.Linear(2, 2, device="meta"), {}, "'bias' is a tensor without values"),
    (
        nn.ParameterList([torch.ones(2, dtype=torch.complex128)]),
        {},
        "'0' is a tensor of torch.strided and torch.complex128",
    ),
    (nn.Linear(2, 2), {"mask": Mask(weight=torch.ones(3, 2).bool())}, "the mask of 'weight' fits no weight"),
    (nn.Linear(2, 2), {"mask": Mask(other=torch.ones(2, 2).bool())}, "the mask of 'other' fits no weight"),
    (nn.Linear(2, 2), {"evidence": {"a": Path()}}, "the evidence has a PosixPath"),
]


@pytest.mark.parametrize(("model", "options", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_what_cannot_be_saved(model: nn.Module, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        save_deployed(model, tmp_path / "net", **options)
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "net"
    model = Branches()
    save_deployed(model, path)
    with pytest.raises(InputError, match="net exists"):
        save_deployed(model, path)
    with pytest.raises(InputError, match=r"holds a .*Branches, which cannot be made from known layers alone; pass net"):
        load_deployed(path)
    with pytest.raises(InputError, match=r"the file has 'left.bias', which it lacks"):
        load_deployed(path, nn.Linear(2, 2))
    with pytest.raises(InputError, match="the network is a list"):
        load_deployed(path, list)  # type: ignore[arg-type]
    more: Any = Branches()
    more.third = nn.Linear(2, 2)
    before = more.left.weight.clone()
    with pytest.raises(InputError, match=r"it has 'third.weight', which the file lacks"):
        load_deployed(path, more)
    other: Any = Branches()
    other.right = nn.Bilinear(6, 6, 5, bias=False)
    with pytest.raises(InputError, match=r"'right.weight' has shape \(5, 6\) in the file and \(5, 6, 6\) in"):
        load_deployed(path, other)
    assert torch.equal(more.left.weight, before)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small file with masked and whole tensors."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))
    save_deployed(model, tmp_path / "net", Mask({"0.weight": torch.rand(3, 5) < 0.4}))
    return tmp_path / "net"


def test_every_flipped_bit_is_found(file: Path, tmp_path: Path) -> None:
    """One bit of each byte is flipped, all eight of them in turn."""
    content, bad = bytearray(file.read_bytes()), tmp_path / "bad"
    for place in range(len(content)):
        content[place] ^= 1 << place % 8
        bad.write_bytes(content)
        with pytest.raises(InputError, match=r"bad is (damaged or cut off|not a file)") as caught:
            load_deployed(bad)
        assert "\n" not in str(caught.value)
        content[place] ^= 1 << place % 8


def test_cut_and_foreign_files_are_refused(file: Path, tmp_path: Path) -> None:
    content, bad = file.read_bytes(), tmp_path / "bad"
    for length in range(0, len(content), 9):
        bad.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"bad is (damaged or cut off|not a file)"):
            load_deployed(bad)
    bad.write_bytes(content + b"\0")
    with pytest.raises(InputError, match="copy it again, or write it again by `howsparse prune --deploy`"):
        load_deployed(bad)
    save_file(load_file(file), bad)
    with pytest.raises(InputError, match="not a file of `howsparse prune --deploy`"):
        load_deployed(bad)
    Mask(weight=torch.ones(2).bool()).save(bad)
    with pytest.raises(InputError, match="holds a mask, not a deployed network"):
        load_deployed(bad)
    with pytest.raises(InputError, match="cannot read"):
        load_deployed(tmp_path)


def forged(content: bytes, edit: Callable[[dict[str, Any]], object]) -> bytes:
    """The file with another header, and a checksum that is right again."""
    length = int.from_bytes(content[:8], "little")
    outer = json.loads(content[8 : 8 + length])
    about = json.loads(outer["__metadata__"]["howsparse"])
    edit(about)
    about = {"sha256": "0" * 64} | {name: value for name, value in about.items() if name != "sha256"}
    outer["__metadata__"]["howsparse"] = json.dumps(about, separators=(",", ":"))
    text = json.dumps(outer, separators=(",", ":")).encode()
    made = len(text).to_bytes(8, "little") + text + content[8 + length :]
    return made.replace(b"0" * 64, hashlib.sha256(made).hexdigest().encode(), 1)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "newer howsparse \\(schema version 2\\); upgrade": lambda about: about.update(schema_version=2),
    "kind: Input should be 'deployed network'": lambda about: about.update(kind="limit"),
    "schema_version": lambda about: about.update(schema_version="one"),
    "layers: Field required": lambda about: about.pop("layers"),
    "more: Extra inputs": lambda about: about.update(more=1),
    "'0.weight' does not fit its Linear": lambda about: about["tensors"]["0.weight"].update(shape=[5, 3]),
    "beyond the end": lambda about: about["tensors"]["0.weight"].update(shape=[2, 2]),
    "not stored as values": lambda about: about["tensors"]["0.weight"].update(shape=[-3, -5]),
    "contradicts itself": lambda about: about["tensors"]["0.weight"].update(bits=16),
    "numbers have 40 bits": lambda about: about["tensors"]["0.weight"].update(bits=40),
    "whole:0.weight": lambda about: about["tensors"]["0.weight"].update(bits=None),
    "has shape \\(3,\\), not \\(4,\\)": lambda about: about["tensors"]["0.bias"].update(shape=[4]),
    "belongs to no tensor": lambda about: about["tensors"].pop("0.bias"),
    "absent": lambda about: about.update(masked=["absent"]),
    "nothing": lambda about: about.update(tied={"3.weight": "nothing"}),
    "is a Trojan with unknown arguments": lambda about: (
        about.update(standalone=False),
        about["layers"]["1"].update(kind="Trojan"),
    ),
    "'1' is a ReLU with unknown": lambda about: about["layers"]["1"].update(settings={"inplace": True, "file": "x"}),
    "'2' cannot be made": lambda about: about["layers"]["2"]["settings"].update(out_features="many"),
    "'2.weight' does not fit": lambda about: about["layers"]["2"]["settings"].update(out_features=2**40),
    "'0' is in no module": lambda about: about["layers"].pop(""),
}  # fmt: skip


@pytest.mark.parametrize("message", EDITS)
def test_contradictions_with_a_right_checksum_are_refused(message: str, file: Path) -> None:
    file.write_bytes(forged(file.read_bytes(), lambda about: None))
    load_deployed(file)
    file.write_bytes(forged(file.read_bytes(), EDITS[message]))
    with pytest.raises(InputError, match=message) as caught:
        load_deployed(file)
    assert "\n" not in str(caught.value)
