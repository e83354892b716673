"""The empirical risk of a model as a function of the weights under study, which form one flat vector."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from howsparse.errors import InputError
from howsparse.matmul import fast_matmul
from howsparse.parallel import OwnBatches, gathered, sum_
from howsparse.risk.batches import batch_length, move, same_content, split_batch
from howsparse.risk.losses import Loss, SplitLoss, as_loss, cross_entropy
from howsparse.risk.modes import attributes_kept, evaluation_mode
from howsparse.risk.weights import select_weights, torch_masks

__all__ = [
    "Caller",
    "EmpiricalRisk",
]

Caller = Callable[[Callable[[nn.Module, Any], Tensor], Any], Tensor]


class EmpiricalRisk:
    r"""Mean loss over all examples, :math:`L(w) = \frac1N \sum_b n_b \ell_b(w)`, in evaluation mode.

    The model is not changed. While a loss is computed, `torch.func.functional_call` replaces its parameters by detached
    leaves. The mode, the buffers and the random state are restored afterwards. Weights that `torch.nn.utils.prune`
    holds at zero are not under study, and flat vectors have no entries for them.

    Args:
        model: any module; its prunable weights, or those in ``weights``, must not be frozen.
        batches: batches that can be read several times; each pass must give the same examples.
        loss: ``loss(model, batch)``, mean over the batch; by default cross-entropy.
        names: names of the weights under study; by default all prunable weights that are not frozen.

    Raises:
        InputError: the model has no prunable weights, all are frozen, or a weight is not finite; there are no batches,
            or they can be read only once; the loss is not a finite scalar, or changes from call to call.

    >>> model = nn.Linear(2, 2)
    >>> risk = EmpiricalRisk(model, [(torch.eye(2), torch.tensor([0, 1]))])
    >>> risk.num_weights, risk.num_examples
    (4, 2)
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss: Loss = cross_entropy,
        names: Iterable[str] | None = None,
    ) -> None:
        self.model, self.loss = model, as_loss(loss)
        self.all_batches, self.batches = batches, OwnBatches(batches)
        self._chosen = _studied(model, names)
        leaves = {id(p): p.detach().requires_grad_() for p in self._chosen.values()}
        self.leaves = list(leaves.values())
        self._applied = _Applied(model)
        self._stand_ins = {name: leaves.get(id(p), p.detach()) for name, p in _places(self._applied)}
        masks = torch_masks(model)
        self._kept = (
            torch.cat([_kept(masks.get(name), p) for name, p in self._chosen.items()])
            if any(name in masks for name in self._chosen)
            else None
        )
        first = self._checked_first_batch()
        with self.standing_in() as call:
            self._check_loss(call, move(first, self.device))
        self._lengths: list[int] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the weights under study, in the order of the flat vector."""
        return list(self._chosen)

    @property
    def num_weights(self) -> int:
        """Number of weights under study, without those that a mask holds at zero."""
        return sum(p.numel() for p in self.leaves) if self._kept is None else int(self._kept.sum())

    @property
    def num_examples(self) -> int:
        """Number of examples in one pass over the batches, of all processes together."""
        return sum(self.lengths)

    @property
    def lengths(self) -> list[int]:
        """Number of examples in each batch, of all processes."""
        if self._lengths is None:
            self._lengths = [batch_length(batch) for batch in self.all_batches]
        return self._lengths

    @property
    def device(self) -> torch.device:
        return self.leaves[0].device

    def flat_weights(self) -> Tensor:
        """The weights under study, ``(n,)``."""
        return self.flatten([p.detach() for p in self.leaves])

    def flatten(self, parts: Iterable[Tensor]) -> Tensor:
        """Join tensors of the weights' shapes to one vector ``(n,)``, without entries that a mask holds at zero."""
        flat = torch.cat([part.reshape(-1) for part in parts])
        return flat if self._kept is None else flat[self._kept]

    def unflatten(self, flat: Tensor) -> list[Tensor]:
        """The inverse of `flatten`. Entries that a mask holds at zero are zero."""
        if self._kept is not None:
            whole = flat.new_zeros(self._kept.numel())
            whole[self._kept] = flat
            flat = whole
        sizes = [p.numel() for p in self.leaves]
        return [part.view(p.shape) for part, p in zip(flat.split(sizes), self.leaves, strict=True)]

    def split_loss(self) -> SplitLoss:
        """The loss as a `SplitLoss`, which the GGN needs.

        Raises:
            InputError: the loss is not a `SplitLoss`.
        """
        if not isinstance(self.loss, SplitLoss):
            raise InputError("curvature='ggn' needs a loss with output(model, batch) and of_output(output, batch)")
        return self.loss

    def on_device(self) -> Iterator[tuple[Any, float]]:
        """This process's batches on the model's device, each with its fraction of all examples."""
        for batch in self.batches:
            yield move(batch, self.device), batch_length(batch) / self.num_examples

    def gradient(self) -> Tensor:
        """Gradient of the risk, ``(n,)``."""
        total = torch.zeros(self.num_weights, device=self.device, dtype=self.leaves[0].dtype)
        with self.standing_in() as call:
            for batch, share in self.on_device():
                parts = torch.autograd.grad(call(self.loss, batch), self.leaves, materialize_grads=True)
                total.add_(self.flatten(parts), alpha=share)
        return sum_(total)

    def batch_losses(self, size: int = 128) -> Tensor:
        """Loss of each piece of ``size`` examples, ``(pieces,)`` float64; pieces with fewer examples are left out."""
        losses: list[float] = []
        lengths: list[float] = []
        with self.standing_in() as call, torch.no_grad():
            for batch in self.batches:
                for piece in split_batch(move(batch, self.device), size):
                    losses.append(float(call(self.loss, piece)))
                    lengths.append(batch_length(piece))
        losses, lengths = (list(itertools.chain(*gathered(values))) for values in (losses, lengths))
        longest = max(lengths)
        return torch.tensor([x for x, n in zip(losses, lengths, strict=True) if n == longest], dtype=torch.float64)

    @contextmanager
    def standing_in(self) -> Iterator[Caller]:
        """Enable evaluation mode, derivatives of every order and `fast_matmul`; restore all settings at the end.

        Yields:
            ``call(function, batch)``, which returns ``function(model, batch)``. `leaves` replace the parameters under
            study, and constants replace all other parameters.
        """
        with ExitStack() as stack:
            devices = [self.device] if self.device.type == "cuda" else []
            stack.enter_context(torch.random.fork_rng(devices=devices))
            stack.enter_context(evaluation_mode(self.model))
            stack.enter_context(fast_matmul(self.device))
            stack.enter_context(attributes_kept(self.model))
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # the fused kernels have no second derivative
            if any(isinstance(module, nn.RNNBase) for module in self.model.modules()):
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            yield lambda function, batch: functional_call(
                self._applied, self._stand_ins, (function, batch), tie_weights=False
            )

    def _checked_first_batch(self) -> Any:
        if iter(self.all_batches) is self.all_batches:
            raise InputError("batches can be read only once; pass a list or a DataLoader, not an iterator or generator")
        first, again = (next(iter(self.all_batches), None) for _ in range(2))
        if first is None:
            raise InputError("batches is empty; pass at least one batch of training data")
        if not same_content(first, again):
            raise InputError(
                "batches differ from pass to pass, as those of a shuffling or augmenting loader do;"
                " pass howsparse.SamePasses(loader), or a loader that does neither"
            )
        return first

    def _check_loss(self, call: Caller, batch: Any) -> None:
        loss = call(self.loss, batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(f"the loss is {what}, not a scalar tensor; return the mean over the batch")
        if not loss.requires_grad:
            raise InputError(
                "the loss does not depend on the weights; compute it from the model's output, without no_grad"
            )
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss on the first batch is {float(loss)}, not finite; use a model that did not diverge"
            )
        loss, again = loss.detach(), call(self.loss, batch).detach()
        if not torch.allclose(loss, again, rtol=1e-4, atol=1e-7):
            raise InputError(
                f"the model's output changes from call to call (loss {float(loss):.6g}, then {float(again):.6g});"
                " switch off dropout or other randomness in evaluation mode"
            )


def _studied(model: nn.Module, names: Iterable[str] | None) -> dict[str, nn.Parameter]:
    chosen = select_weights(model, names)
    frozen = [name for name, p in chosen.items() if not p.requires_grad]
    if names is not None and frozen:
        raise InputError(f"weight '{frozen[0]}' is frozen; set its requires_grad to True, or remove it from the names")
    for name, p in chosen.items():
        if not torch.isfinite(p).all():
            raise InputError(f"weight '{name}' has NaN or infinite entries; load a checkpoint that did not diverge")
    return chosen


def _kept(mask: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.ones(parameter.numel(), dtype=torch.bool, device=parameter.device) if mask is None else mask.flatten()


def _places(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Every place of a parameter in a module, with exactly one name for each place.

    A tied weight has several places. A module that is used twice has two names for the same place.
    `functional_call` with ``tie_weights`` uses both names, and then leaves the replacement in the model (torch 2.13).
    """
    for path, module in model.named_modules():
        yield from module.named_parameters(path, recurse=False, remove_duplicate=False)


class _Applied(nn.Module):
    """A module that applies a function to a model. `functional_call` accepts only a module, not a function."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[nn.Module, Any], Tensor], batch: Any) -> Tensor:
        return function(self.model, batch)
