"""`save_deployed` and `load_deployed`: a pruned network as one small file, and back."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from howsparse.deploy.file import Header, Layer, Stored, read_deployed, write_deployed, wrong
from howsparse.deploy.fitting import fit, named_network
from howsparse.deploy.layers import build, check_layers, describe_layers, is_standalone, with_tensors
from howsparse.deploy.packing import pack_positions, pack_values, unpack_positions, unpack_values
from howsparse.deploy.taking import check_mask, evidence_of, mask_of, state_of
from howsparse.errors import InputError
from howsparse.files import refuse_to_overwrite
from howsparse.limit.certificate import Certificate
from howsparse.limit.measure import Measured
from howsparse.pruning.masks import Mask

__all__ = ["DeployedNetwork", "load_deployed", "save_deployed"]


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

    >>> from howsparse import magnitude_mask
    >>> model = nn.Linear(10, 10)
    >>> network = DeployedNetwork.of(model, magnitude_mask(model, 0.9))
    >>> network.standalone, network.mask.num_kept
    (True, 10)
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

        Args:
            model: the network.
            mask: weights that stay; by default those that are not zero, or torch's masks.
            network: name of the network, as on the command line.
            evidence: the certificate or the measurement that the network was pruned by.

        Returns:
            The network as its file describes it.

        Raises:
            InputError: the mask does not fit, or the network has something that a file cannot hold.
        """
        state = state_of(model)
        mask = mask_of(model, state) if mask is None else mask
        layers = describe_layers(model, state)
        standalone = is_standalone(model, layers)
        check_mask(mask, state)
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
            evidence_of(evidence),
            layers if standalone else with_tensors(layers, state),
            standalone,
        )

    def save(self, path: str | Path) -> None:
        """Write the file. The same network gives the same bytes.

        Args:
            path: path of the file; an existing file is replaced.
        """
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

        Args:
            path: path of the file.

        Returns:
            The network as the file describes it.

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

        Returns:
            A new network.

        Raises:
            InputError: its class is not made of known layers.
        """
        if not self.standalone:
            named = "" if self.network is None else f", such as '{self.network}'"
            raise InputError(
                f"the file holds a {self.class_name}, which cannot be made from known layers alone;"
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
        network: where to put the network: a module, which is changed in place; a function that makes one; or a name,
            ``package.module:name``, ``hf:FOLDER`` or a task, whose code is run. Its layers get the sizes of the file,
            if compaction made them smaller. With None, the network is made from its description. This works for
            sequences of known layers of torch and for the networks of this package's tasks.

    Returns:
        The network with zeros for removed weights, in evaluation mode; a module that was passed keeps its mode.

    Raises:
        InputError: the file does not exist, has other contents or a newer version, or is damaged; the network does not
            fit; or ``network`` is None, and the description is not enough.

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


def _unpacked(name: str, stored: Stored, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """One tensor and its mask. The stored tensors that are read are removed from ``tensors``."""
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
