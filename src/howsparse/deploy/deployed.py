"""`save_deployed` and `load_deployed`: a pruned network as one small file, and back."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.deploy.file import Header, Layer, Stored, read_deployed, write_deployed, wrong
from howsparse.deploy.fitting import fit, named_network
from howsparse.deploy.layers import build, check_layers, describe_layers, is_standalone, with_tensors
from howsparse.deploy.packing import pack_positions, pack_values, unpack_positions, unpack_values
from howsparse.errors import InputError
from howsparse.files import refuse_to_overwrite
from howsparse.limit.certificate import Certificate
from howsparse.limit.measure import Measured
from howsparse.pruning.masks import Mask
from howsparse.risk.weights import prunable_weights, torch_masks

__all__ = ["DeployedNetwork", "load_deployed", "save_deployed"]

_TYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.bool, torch.complex64),
)


@dataclass(frozen=True, eq=False)
class DeployedNetwork:
    """A pruned network as its file describes it.

    Attributes:
        state: parameters and buffers in full, by name, on the CPU. Tied names have one tensor.
        mask: weights that stay.
        network: name of the network, as on the command line; None if it was not given.
        class_name: class of the network that was saved.
        evidence: the certificate or the measurement that the network was pruned by; None if there is none.
        layers: modules of known classes by name; if the network is not standalone, those with tensors only.
        standalone: whether `build` can make the network from ``layers``.
    """

    state: dict[str, Tensor] = field(repr=False)
    mask: Mask
    network: str | None
    class_name: str
    evidence: dict[str, Any] | None = field(repr=False)
    layers: dict[str, Layer] = field(repr=False)
    standalone: bool

    @classmethod
    def of(
        cls,
        model: nn.Module,
        mask: Mask | None = None,
        *,
        network: str | None = None,
        evidence: "Certificate | Measured | Mapping[str, Any] | None" = None,
    ) -> "DeployedNetwork":
        """Take a copy of a network. The arguments are those of `save_deployed`.

        Raises:
            InputError: the mask does not fit, or the network has something that a file cannot hold.
        """
        state = _state(model)
        mask = _own_mask(model, state) if mask is None else mask
        layers = describe_layers(model, state)
        standalone = is_standalone(model, layers)
        _check_mask(mask, state)
        copies: dict[int, Tensor] = {}
        removed = {id(state[name]): ~kept.cpu() for name, kept in mask.items()}
        for tensor in state.values():
            if id(tensor) not in copies:
                copy = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                copies[id(tensor)] = copy.masked_fill_(removed[id(tensor)], 0) if id(tensor) in removed else copy
        return cls(
            {name: copies[id(tensor)] for name, tensor in state.items()},
            Mask({name: kept.cpu().clone() for name, kept in mask.items()}),
            network,
            f"{type(model).__module__}.{type(model).__qualname__}",
            _evidence(evidence),
            layers if standalone else with_tensors(layers, state),
            standalone,
        )

    def save(self, path: str | Path) -> None:
        """Write the file. The same network gives the same bytes."""
        first: dict[int, str] = {}
        for name, tensor in self.state.items():
            first.setdefault(id(tensor), name)
        tied = {name: first[id(tensor)] for name, tensor in self.state.items() if first[id(tensor)] != name}
        masks = {tied.get(name, name): kept for name, kept in self.mask.items()}
        stored, tensors = {}, {}
        for name in first.values():
            tensor, kept = self.state[name], masks.get(name)
            bits = None
            if kept is None or bool(kept.all()):
                tensors[f"whole:{name}"] = tensor
            else:
                bits, tensors[f"positions:{name}"] = pack_positions(kept)
                tensors[f"values:{name}"] = pack_values(tensor, kept)
            stored[name] = Stored(shape=list(tensor.shape), bits=bits)
        header = Header(
            network=self.network,
            class_name=self.class_name,
            standalone=self.standalone,
            evidence=self.evidence,
            tensors=stored,
            tied=tied,
            masked=list(self.mask),
            layers=self.layers,
        )
        write_deployed(path, header, tensors)

    @classmethod
    def load(cls, path: str | Path) -> "DeployedNetwork":
        """Read a file that `save_deployed` wrote. No code is run.

        Raises:
            InputError: the file does not exist, has other contents or a newer version, or is damaged.
        """
        header, tensors = read_deployed(path)
        try:
            state, kept = {}, {}
            for name, stored in header.tensors.items():
                state[name], kept[name] = _unpacked(name, stored, tensors)
            if tensors:
                raise ValueError(f"'{next(iter(tensors))}' belongs to no tensor")
            first = {name: header.tied.get(name, name) for name in (*state, *header.tied)}
            mask = Mask({name: kept[first[name]] for name in header.masked})
            state |= {name: state[one] for name, one in header.tied.items()}
            check_layers(header.layers, state)
            if header.standalone:
                build(header.layers)
        except (ValueError, KeyError, RuntimeError, MemoryError) as error:
            raise InputError(wrong(path, error)) from error
        about = header.network, header.class_name, header.evidence, header.layers, header.standalone
        return cls(state, mask, *about)

    def build(self) -> nn.Module:
        """Make the network of known layers, in evaluation mode.

        Raises:
            InputError: its class is not made of known layers.
        """
        if not self.standalone:
            named = "" if self.network is None else f", such as '{self.network}'"
            raise InputError(
                f"the file holds a {self.class_name}, which is more than a sequence of known layers;"
                f" pass network=, a module of this class or its name{named}"
            )
        return self.into(build(self.layers)).eval()

    def into(self, model: nn.Module) -> nn.Module:
        """Put the network into a model of the same class, in place. Layers of other sizes get those of the file.

        Args:
            model: a model with the same names; it is not changed if the network does not fit.

        Returns:
            ``model`` itself.

        Raises:
            InputError: names differ, or a shape where the sizes of a layer cannot be changed.
        """
        return fit(model, self.state, self.layers)


def save_deployed(
    model: nn.Module,
    path: str | Path,
    mask: Mask | None = None,
    *,
    network: str | None = None,
    evidence: "Certificate | Measured | Mapping[str, Any] | None" = None,
    force: bool = False,
) -> None:
    """Write a pruned network to one small file that `load_deployed` reads.

    The file is safetensors. Of each masked weight it has the values that stay, in their own type, and their positions
    in a few bits each; other tensors are stored as they are, and tied ones once. Its header says how the network is
    called, which layers it has, and by what it was pruned. A checksum covers every byte.

    Args:
        model: a network, pruned or compacted; it is not changed.
        path: path of the file.
        mask: weights that stay; by default those that are not zero, or torch's masks if `howsparse.prune` was called.
        network: name of the network, for the reader: ``package.module:name``, ``hf:FOLDER`` or a task.
        evidence: the certificate or measurement that the network was pruned by, or a JSON object.
        force: whether an existing file is replaced.

    Raises:
        InputError: the file exists and ``force`` is False, the mask does not fit, or the network has something that a
            file cannot hold.

    >>> from tempfile import TemporaryDirectory
    >>> from howsparse import magnitude_mask
    >>> model = nn.Linear(200, 100)
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "net.safetensors"
    ...     save_deployed(model, path, magnitude_mask(model, 0.98))
    ...     path.stat().st_size < 0.05 * 4 * 20_100
    ...     load_deployed(path)
    True
    Linear(in_features=200, out_features=100, bias=True)
    """
    deployed = DeployedNetwork.of(model, mask, network=network, evidence=evidence)
    refuse_to_overwrite(Path(path), force)
    deployed.save(path)


def load_deployed(path: str | Path, network: nn.Module | Callable[[], nn.Module] | str | None = None) -> nn.Module:
    """Load a network that `save_deployed` wrote. No code in the file is run; a name in it is never imported.

    Args:
        path: path of the file.
        network: where to put the network: a module, which is changed in place; a function that makes one; or its name,
            ``package.module:name``, ``hf:FOLDER`` or a task, of which the code is run. Layers that compaction made
            smaller become so in it. With None, the network is made from its description, which works for sequences of
            known layers of torch and for the networks of this package's tasks.

    Returns:
        The network with zeros for removed weights, in evaluation mode; a module that was passed keeps its mode.

    Raises:
        InputError: the file does not exist, has other contents or a newer version, or is damaged; or the network does
            not fit, or is needed and was not given.

    >>> load_deployed("no-such-file")
    Traceback (most recent call last):
    howsparse.errors.InputError: cannot read no-such-file: No such file or directory; correct the path
    """
    deployed = DeployedNetwork.load(path)
    if network is None:
        return deployed.build()
    if isinstance(network, nn.Module):
        return deployed.into(network)
    made = named_network(network) if isinstance(network, str) else network()
    if not isinstance(made, nn.Module):
        raise InputError(f"the network is a {type(made).__name__}; pass a torch.nn.Module or a function that makes one")
    return deployed.into(made).eval()


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under the names that they have without torch's pruning, in the order of these names.

    Tied names have one tensor.
    """
    raw = model.state_dict(keep_vars=True)
    state: dict[str, Tensor] = {}
    same: dict[tuple[object, ...], Tensor] = {}
    for name, tensor in sorted(raw.items()):
        mask = raw.get(f"{name.removesuffix('_orig')}_mask") if name.endswith("_orig") else None
        if name.endswith("_mask") and f"{name.removesuffix('_mask')}_orig" in raw:
            continue
        _check_tensor(name, tensor)
        where = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else (id(tensor),)
        if where not in same:
            same[where] = tensor.detach() if mask is None else tensor.detach().masked_fill(mask == 0, 0)
        state[name if mask is None else name.removesuffix("_orig")] = same[where]
    if not state:
        raise InputError("the network has no parameters; there is nothing to save")
    return state


def _check_tensor(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise InputError(f"'{name}' of the network's state is a {type(tensor).__name__}; only tensors can be saved")
    if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in _TYPES:
        what = "without values" if tensor.is_meta else f"of {tensor.layout} and {tensor.dtype}"
        raise InputError(f"'{name}' is a tensor {what}, which cannot be saved; save the network before it is converted")


def _own_mask(model: nn.Module, state: Mapping[str, Tensor]) -> Mask:
    """Torch's masks if the network has some; else the entries of prunable weights that are not zero, where some are."""
    masks = torch_masks(model)
    if masks:
        return Mask(masks)
    weights = ((name, state[name]) for name in prunable_weights(model) if name in state)
    found = {name: _not_zero(weight) for name, weight in weights}
    return Mask({name: kept for name, kept in found.items() if not bool(kept.all())})


def _not_zero(tensor: Tensor) -> Tensor:
    """Where any bit of a tensor is set, so that -0.0 stays."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).reshape(flat.numel(), -1).any(dim=1).bool().reshape(tensor.shape)


def _check_mask(mask: Mask, state: Mapping[str, Tensor]) -> None:
    masks: dict[int, Tensor] = {}
    for name, kept in mask.items():
        if name not in state or state[name].shape != kept.shape:
            raise InputError(f"the mask of '{name}' fits no weight of this network; use a mask for this network")
        if not torch.equal(masks.setdefault(id(state[name]), kept), kept):
            raise InputError(f"'{name}' is tied to a weight with another mask; give both the same mask")


def _evidence(given: "Certificate | Measured | Mapping[str, Any] | None") -> dict[str, Any] | None:
    """A certificate, a measurement or a mapping as JSON values."""
    if given is None:
        return None
    if isinstance(given, Certificate):
        found: Mapping[str, Any] = {"kind": "certificate", **given.summary()}
    elif isinstance(given, Measured):
        points = {"dense": asdict(given.dense), "pruned": asdict(given.pruned)}
        about = {"measured": given.sparsity, "order": given.order, "goal": given.goal.describe(given.metric)}
        found = {"kind": "measured", **about, **points}
    else:
        found = given
    return {str(key): _json(value) for key, value in found.items()}


def _json(value: Any) -> Any:
    """The value in JSON; numbers that JSON does not have are null."""
    if isinstance(value, Mapping):
        return {str(key): _json(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_json(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise InputError(f"the evidence has a {type(value).__name__}; give numbers, texts, lists and dicts")


def _unpacked(name: str, stored: Stored, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """One tensor and its mask; what is read is taken out of ``tensors``."""
    shape = tuple(stored.shape)
    if stored.bits is None:
        tensor = tensors.pop(f"whole:{name}")
        if tensor.shape != shape:
            raise ValueError(f"'{name}' has shape {tuple(tensor.shape)}, not {shape}")
        return tensor, torch.ones(shape, dtype=torch.bool)
    values, packed = tensors.pop(f"values:{name}"), tensors.pop(f"positions:{name}")
    if values.ndim != 1 or packed.ndim != 1 or packed.dtype != torch.uint8 or any(size < 0 for size in shape):
        raise ValueError(f"'{name}' is not stored as values and positions")
    positions = unpack_positions(packed, stored.bits, len(values), math.prod(shape))
    kept = unpack_values(torch.ones(len(values), dtype=torch.uint8), positions, shape).bool()
    return unpack_values(values, positions, shape), kept
