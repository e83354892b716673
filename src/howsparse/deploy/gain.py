"""What pruning brought on this machine: bytes on disk, memory, latency and throughput, before and after."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from howsparse.deploy.compact import compacted
from howsparse.deploy.sparse import SparseLinear
from howsparse.deploy.sparsify import sparsify
from howsparse.deploy.timing import Latency, bytes_of, latency, of_batch
from howsparse.errors import InputError, first_line
from howsparse.memory import available_memory
from howsparse.risk.losses import Loss
from howsparse.risk.modes import device_of, evaluation_mode

__all__ = ["Form", "Gain", "gain", "inputs_of"]

_BUDGET = 0.1  # seconds that a form is timed at one batch size
_CLEARLY = 0.95  # a smaller ratio of times counts as faster
_LONGEST = 1.0  # seconds that a batch takes at most; for slower networks it has fewer examples
_QUICK = 0.1  # seconds; sparse kernels of networks that take longer for a batch are not tried
_DOUBLES = 5  # copies in float64 that compaction makes, at most

Made = tuple[str, nn.Module] | str  # a form's name and network, or why there is none


@dataclass(frozen=True)
class Form:
    """A pruned network in one form.

    Attributes:
        name: "dense", "compacted", "sparse" or "compacted and sparse".
        num_bytes: memory of its parameters and buffers.
        one: time of a call with one example.
        many: time of a call with a batch.
    """

    name: str
    num_bytes: int
    one: Latency
    many: Latency

    def summary(self) -> dict[str, Any]:
        """The form as JSON values; times in seconds, throughput in examples per second."""
        return {
            "form": self.name,
            "memory": self.num_bytes,
            "latency": self.one.seconds,
            "throughput": self.many.throughput,
        }


@dataclass(frozen=True)
class Gain:
    """What pruning brought, in times and bytes of this machine.

    Attributes:
        forms: the network with its zeros, and the forms that were made of it.
        file_before, file_after: bytes of the weights in full, and of the file that `save_deployed` writes.
        notes: why a form was not made.
        threads: number of threads of these times.
    """

    forms: tuple[Form, ...]
    file_before: int
    file_after: int
    notes: tuple[str, ...]
    threads: int

    @property
    def before(self) -> Form:
        """The network with its zeros, which takes as long as before pruning."""
        return self.forms[0]

    @property
    def after(self) -> Form:
        """The form with the smallest product of times (one example, batch); `before` if none is clearly faster."""
        best = min(self.forms, key=lambda form: form.one.seconds * form.many.seconds)
        faster = any(getattr(best, at).seconds < _CLEARLY * getattr(self.before, at).seconds for at in ("one", "many"))
        return best if faster else self.before

    def summary(self) -> dict[str, Any]:
        """The numbers of ``--json`` and of records; bytes, seconds, and examples per second."""
        before, after = self.before, self.after
        return {
            "form": after.name,
            "file_before": self.file_before,
            "file_after": self.file_after,
            "memory_before": before.num_bytes,
            "memory_after": after.num_bytes,
            "latency_before": before.one.seconds,
            "latency_after": after.one.seconds,
            "throughput_before": before.many.throughput,
            "throughput_after": after.many.throughput,
            "batch": before.many.batch,
            "threads": self.threads,
            "forms": [form.summary() for form in self.forms],
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The gain in words, a line for each part."""
        before, after = self.before, self.after
        disk = f"on disk: {_size(self.file_before)} -> {_size(self.file_after)}"
        if after is before:
            tried = "; ".join((*self.notes, *(_slower(form, before) for form in self.forms[1:])))
            return [f"{disk} by --deploy", f"a mask alone makes nothing faster here: {tried or 'it is run in full'}"]
        memory = f"in memory: {_size(before.num_bytes)} -> {_size(after.num_bytes)}"
        one = f"batch 1: {_time(before.one)} -> {_time(after.one)} ({_times(before.one, after.one)})"
        rates = f"{before.many.throughput:,.0f} -> {after.many.throughput:,.0f} examples/s"
        many = f"batch {before.many.batch}: {rates} ({_times(before.many, after.many)})"
        threads = f"{self.threads} thread" + ("s" if self.threads > 1 else "")
        return [f"{disk} by --deploy; {memory}", f"{after.name}, {threads}: {one}; {many}", *self.notes]


def gain(model: nn.Module, example: Any, *, file_before: int, file_after: int, batch: int = 32) -> Gain:
    """Time a pruned network in all forms that can be made of it: with its zeros, compacted, and sparse.

    Args:
        model: a network with zeros for the removed weights; it comes back as it was.
        example: its input: a tensor, a tuple of arguments, or a dict of keyword arguments.
        file_before: bytes of the weights in full.
        file_after: bytes of the file that `save_deployed` writes.
        batch: number of examples in a batch, besides one example. Slow networks get a smaller batch.

    Returns:
        Memory and times of each form, and why a form was not made.
    """
    one = of_batch(example, 1)
    seconds = latency(model, one, budget=_BUDGET)
    most = max(1, int(_LONGEST / seconds.seconds))
    many = of_batch(example, min(batch, 1 << (most.bit_length() - 1)))
    forms = [Form("dense", bytes_of(model), seconds, latency(model, many, budget=_BUDGET))]
    notes: list[str] = []
    for make in (_compacted, _sparse):
        made = _tried(make, forms, model, example)
        if isinstance(made, str):
            notes.append(made)
        else:
            name, model = made
            forms.append(_form(name, model, one, many))
    return Gain(tuple(forms), file_before, file_after, tuple(notes), torch.get_num_threads())


def _tried(make: Callable[[Sequence[Form], nn.Module, Any], Made], *given: Any) -> Made:
    """The result of ``make``, or its error as a sentence."""
    try:
        return make(*given)
    except (InputError, ImportError, RuntimeError, TypeError, ValueError) as error:
        return f"not tried further: {first_line(error)}"


def _compacted(forms: Sequence[Form], model: nn.Module, example: Any) -> Made:
    """The network without dead units, or why there is none."""
    needed = _DOUBLES * 8 * sum(parameter.numel() for parameter in model.parameters())
    if needed > available_memory(device_of(model)):
        return f"not compacted: the search for dead units would take {_size(needed)}, which is more than is free"
    found = compacted(model, example)
    if found.weights_after < found.weights_before:
        return "compacted", found.model
    return f"not compacted: {found.reason or 'no unit or channel is dead'}"


def _sparse(forms: Sequence[Form], model: nn.Module, example: Any) -> Made:
    """The network with sparse layers, or why there is none."""
    many = forms[-1].many
    if many.seconds > _QUICK:
        slow = f"sparse layers are not tried, since {many.batch} examples take {many.seconds:.1f} s"
        return f"{slow} (`howsparse bench` tries them)"
    sparse = sparsify(model, example, batches=sorted({1, many.batch}))
    if any(isinstance(module, SparseLinear) for module in sparse.modules()):
        return "sparse" if len(forms) == 1 else "compacted and sparse", sparse
    return "not sparse: dense kernels are the fastest for every layer"


def inputs_of(model: nn.Module, loss: Loss, batch: Any) -> Any:
    """The input that a loss gives to a network for a batch: a tuple of arguments, or a dict of keyword arguments.

    Args:
        model: the network; its forward is not run.
        loss: ``loss(model, batch)``.
        batch: a batch of any form.

    Raises:
        InputError: the loss does not call the network.

    >>> from howsparse import cross_entropy
    >>> inputs_of(nn.Linear(2, 3), cross_entropy, (torch.zeros(1, 2), torch.tensor([0])))
    (tensor([[0., 0.]]),)
    """
    given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def take(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.append((args, kwargs))
        raise _Taken

    handle = model.register_forward_pre_hook(take, with_kwargs=True, prepend=True)
    try:
        with evaluation_mode(model), torch.no_grad():
            loss(model, batch)
    except _Taken:
        pass
    finally:
        handle.remove()
    if not given:
        raise InputError("the loss does not call the network, so its input is not known; pass an example")
    args, kwargs = given[0]
    return dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments) if args and kwargs else kwargs or args


class _Taken(Exception):
    """Ends the call of the loss when the network's input is known, before the network runs."""


def _form(name: str, model: nn.Module, one: Any, many: Any) -> Form:
    return Form(name, bytes_of(model), latency(model, one, budget=_BUDGET), latency(model, many, budget=_BUDGET))


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _time(latency: Latency) -> str:
    return f"{1e3 * latency.seconds:.3g} ms"


def _times(before: Latency, after: Latency) -> str:
    ratio = before.seconds / after.seconds
    if _CLEARLY < ratio < 1 / _CLEARLY:
        return "as fast as before"
    return f"{ratio:.1f} times faster" if ratio >= 1 else f"{1 / ratio:.1f} times slower"


def _slower(form: Form, dense: Form) -> str:
    one, many = form.one.seconds / dense.one.seconds, form.many.seconds / dense.many.seconds
    return f"{form.name} takes {one:.2f} of the time of dense at batch 1 and {many:.2f} at batch {form.many.batch}"
