"""The empirical risk of a model as a function of the weights under study, which form one flat vector."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from howsparse.errors import InputError
from howsparse.matmul import fast_matmul
from howsparse.parallel import OwnBatches, gathered, sum_, summed
from howsparse.risk.alone import alone_with
from howsparse.risk.applied import Applied, in_float32, kept_entries, places
from howsparse.risk.batches import batch_length, is_half, move, precise, split_batch
from howsparse.risk.checks import check_loss, checked_first_batch, studied
from howsparse.risk.counting import counted_examples, weight_of
from howsparse.risk.losses import Loss, SplitLoss, as_loss, cross_entropy
from howsparse.risk.micro_batches import MicroBatches
from howsparse.risk.modes import attributes_kept, evaluation_mode
from howsparse.risk.weights import torch_masks

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
        model: any module. Weights of half precision are studied in float32, because products in bfloat16 have only
            two correct digits.
        batches: batches that can be read several times; each pass must give the same examples.
        loss: ``loss(model, batch)``, mean over the batch; by default cross-entropy.
        names: names of the parameters under study, which need not be prunable; by default all prunable weights that are
            not frozen.

    Raises:
        InputError: the model has no prunable weights, all are frozen, or a weight is not finite; there are no batches,
            or they can be read only once; no label counts; the loss is not a finite scalar, or changes from call to
            call.

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
        self.model, self.loss = model, as_loss(loss, model)
        self.all_batches, self.batches = batches, OwnBatches(batches)
        self._chosen = studied(model, names)
        self._leaf_of = {id(p): in_float32(p.detach()).requires_grad_() for p in self._chosen.values()}
        self.leaves = list(self._leaf_of.values())
        self._half = any(is_half(p) for p in model.parameters())
        self._applied = Applied(model)
        self._constants = {
            name: in_float32(t.detach()) for name, t in places(self._applied) if id(t) not in self._leaf_of
        }
        self._leaf_places = [(name, id(t)) for name, t in places(self._applied) if id(t) in self._leaf_of]
        self._kept = kept_entries(self._chosen, torch_masks(model))
        self.micro_batches = MicroBatches()
        first = checked_first_batch(self.all_batches)
        with self.standing_in() as call:
            check_loss(partial(call, self.loss, self.on(first)))
        self._sizes: list[tuple[int, int, int]] | None = None

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
        """Number of examples that count in one pass over the batches, of all processes together."""
        return sum(count for _, _, count in self._read_sizes())

    @property
    def lengths(self) -> list[int]:
        """Number of examples in each batch, of all processes."""
        return [length for length, _, _ in self._read_sizes()]

    @property
    def weights(self) -> list[int]:
        """The weight of each batch in the mean: its predictions if the loss counts them, else its examples."""
        return [weight for _, weight, _ in self._read_sizes()]

    def weight_of(self, batch: Any) -> int:
        """The weight of one batch in the mean.

        Args:
            batch: any batch.

        Returns:
            A number of predictions if the loss counts them, else of examples.
        """
        return weight_of(self.loss, batch)

    @property
    def device(self) -> torch.device:
        return self.leaves[0].device

    def flat_weights(self) -> Tensor:
        """The weights under study, ``(n,)``.

        Returns:
            A copy in one vector.
        """
        return self.flatten([p.detach() for p in self.leaves])

    def flatten(self, parts: Iterable[Tensor]) -> Tensor:
        """Join tensors of the weights' shapes to one vector ``(n,)``, without entries that a mask holds at zero.

        Args:
            parts: one tensor for each weight under study, in the order of `names`.

        Returns:
            The vector, ``(n,)``.
        """
        flat = torch.cat([part.reshape(-1) for part in parts])
        return flat if self._kept is None else flat[self._kept]

    def unflatten(self, flat: Tensor) -> list[Tensor]:
        """The inverse of `flatten`. Entries that a mask holds at zero are zero.

        Args:
            flat: a vector ``(n,)``.

        Returns:
            One tensor for each weight under study, of its shape.
        """
        if self._kept is not None:
            whole = flat.new_zeros(self._kept.numel())
            whole[self._kept] = flat
            flat = whole
        sizes = [p.numel() for p in self.leaves]
        return [part.view(p.shape) for part, p in zip(flat.split(sizes), self.leaves, strict=True)]

    def split_loss(self) -> SplitLoss:
        """The loss as a `SplitLoss`, which the GGN needs.

        Returns:
            The loss itself.

        Raises:
            InputError: the loss is not a `SplitLoss`.
        """
        if not isinstance(self.loss, SplitLoss):
            raise InputError(
                "curvature='ggn' needs a loss in two parts; give a howsparse.risk.SplitLoss, or take the Hessian"
            )
        return self.loss

    def on(self, batch: Any) -> Any:
        """The batch on the model's device; in float32 if the model's weights have half precision.

        Args:
            batch: any batch.

        Returns:
            A batch with the same contents.
        """
        batch = move(batch, self.device)
        return precise(batch) if self._half else batch

    def on_device(self) -> Iterator[tuple[Any, float]]:
        """This process's batches on the model's device, each with its share in the mean; none with share 0.

        Yields:
            A batch and a fraction in (0, 1]; over all processes, the fractions have the sum 1.
        """
        total = sum(self.weights)
        for batch in self.batches:
            weight = self.weight_of(batch)
            if weight:
                yield self.on(batch), weight / total

    def value(self, weights: Tensor | None = None) -> float:
        """The risk, at other weights ``(n,)`` if these are given. The model is not changed.

        Args:
            weights: values of the weights under study, ``(n,)``; by default those of the model.

        Returns:
            The mean loss.
        """
        total = 0.0
        with self.standing_in(weights) as call, torch.no_grad():
            for batch, share in self.on_device():
                total += share * float(call(self.loss, batch))
        return summed([total], self.device)[0]

    def gradient(self) -> Tensor:
        """Gradient of the risk, ``(n,)``.

        Returns:
            The gradient, loss per unit of a weight.
        """
        total = torch.zeros(self.num_weights, device=self.device, dtype=self.leaves[0].dtype)
        with self.standing_in() as call:

            def add(part: Any, of: Any, share: float) -> None:
                mine = share if part is of else share * self.weight_of(part) / self.weight_of(of)
                if mine:
                    slopes = torch.autograd.grad(call(self.loss, part), self.leaves, materialize_grads=True)
                    total.add_(self.flatten(slopes), alpha=mine)

            for batch, share in self.on_device():
                self.micro_batches.each(batch, partial(add, of=batch, share=share))
        return sum_(total)

    def batch_losses(self, size: int = 128) -> Tensor:
        """Loss of each piece of ``size`` examples, ``(pieces,)`` float64; pieces with fewer examples are left out.

        Args:
            size: number of examples in a piece.

        Returns:
            The losses, in the order of the examples.
        """
        losses: list[float] = []
        lengths: list[float] = []
        with self.standing_in() as call, torch.no_grad():
            for batch in self.batches:
                for piece in split_batch(self.on(batch), size):
                    losses.append(float(call(self.loss, piece)))
                    lengths.append(batch_length(piece))
        losses, lengths = (list(itertools.chain(*gathered(values))) for values in (losses, lengths))
        longest = max(lengths)
        return torch.tensor([x for x, n in zip(losses, lengths, strict=True) if n == longest], dtype=torch.float64)

    @contextmanager
    def standing_in(self, weights: Tensor | None = None, *, twice: bool = False) -> Iterator[Caller]:
        """Enable evaluation mode and `fast_matmul`; restore all settings at the end.

        Args:
            weights: values of the weights under study, ``(n,)``, instead of those of the model.
            twice: whether second derivatives are taken. Fused attention has none and is not used then.

        Yields:
            ``call(function, batch)``, which returns ``function(model, batch)``. `leaves` replace the parameters under
            study, and constants replace all other parameters.
        """
        leaves = self.leaves if weights is None else self.unflatten(weights)
        by_id = dict(zip(self._leaf_of, leaves, strict=True))
        stand_ins = self._constants | {name: by_id[key] for name, key in self._leaf_places}
        with ExitStack() as stack:
            devices = [self.device] if self.device.type == "cuda" else []
            stack.enter_context(torch.random.fork_rng(devices=devices))
            stack.enter_context(alone_with(self.model))
            stack.enter_context(evaluation_mode(self.model))
            stack.enter_context(fast_matmul(self.device))
            stack.enter_context(attributes_kept(self.model))
            if twice:
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if any(isinstance(module, nn.RNNBase) for module in self.model.modules()):
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            yield lambda function, batch: functional_call(
                self._applied, stand_ins, (function, batch), tie_weights=False
            )

    def _read_sizes(self) -> list[tuple[int, int, int]]:
        """For each batch: its number of examples, its weight in the mean, and the number of examples that count."""
        if self._sizes is None:
            self._sizes = [
                (batch_length(batch), self.weight_of(batch), counted_examples(self.loss, batch))
                for batch in self.all_batches
            ]
            if not sum(self.weights):
                raise InputError(
                    "every label of the data is -100 (ignored), so there is no loss; pass data with labels"
                )
        return self._sizes
