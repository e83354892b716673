"""Hessian and Gauss-Newton matrix of an empirical risk, as ``operator @ vector``.

The weights do not change between products. The graph of the first derivative is therefore built once and stored, and
each product is one backward pass through it. The memory limit decides for how many batches graphs are stored. The
graphs of the other batches are built again for each product. Convolutions have derivatives of their own
(`howsparse/risk/convolutions.py`), because torch's are slow.
"""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from howsparse.linalg.operators import Derived, Operator
from howsparse.matmul import fast_matmul
from howsparse.memory import available_memory
from howsparse.parallel import own_count, sum_
from howsparse.risk.batches import batch_length, split_batch
from howsparse.risk.convolutions import Convolutions, suitable
from howsparse.risk.empirical import Caller, EmpiricalRisk
from howsparse.risk.losses import CrossEntropy

__all__ = [
    "GGN",
    "Hessian",
    "Sample",
]

Product = Callable[[list[Tensor]], tuple[Tensor, ...]]

_ALIKE = 1e-2  # relative; of few images, one unit that rounding puts on the other side of its ReLU changes some 1e-3


class _Curvature(Operator):
    """The common part of Hessian and GGN: the sum over batches. A subclass defines the product of one batch."""

    def __init__(self, risk: EmpiricalRisk, memory: int | None = None) -> None:
        self.risk = risk
        self._memory = available_memory(risk.device) // 3 if memory is None else memory
        self._kept: list[tuple[Product, int]] | None = None
        self._products = 0

    @property
    def shape(self) -> tuple[int, int]:
        return self.risk.num_weights, self.risk.num_weights

    @property
    def dtype(self) -> torch.dtype:
        return self.risk.leaves[0].dtype

    @property
    def device(self) -> torch.device:
        return self.risk.device

    @property
    def num_products(self) -> int:
        return self._products

    @property
    def num_kept(self) -> int:
        """Number of this process's batches with stored graphs. The first product decides it."""
        return len(self._keep())

    def _matvec(self, vector: Tensor) -> Tensor:
        self._products += 1
        return self.over_first(len(self.risk.lengths), vector)

    def over_first(self, count: int, vector: Tensor) -> Tensor:
        """The product with ``vector``, ``(n,)``, of the same matrix over the first ``count`` batches only."""
        own = own_count(count)
        kept = self._keep()[:own]
        parts = self.risk.unflatten(vector)
        total = torch.zeros_like(vector)
        with fast_matmul(self.risk.device):
            for product, weight in kept:
                total.add_(self.risk.flatten(product(parts)), alpha=weight)
        if own > len(kept):
            with self.risk.standing_in(twice=True) as call:

                def add(part: Any) -> None:
                    graph = self._graph(call, part, self._convolutions)
                    total.add_(self.risk.flatten(graph(parts)), alpha=self.risk.weight_of(part))

                for batch in islice(self.risk.batches, len(kept), own):
                    self.risk.micro_batches.each(self.risk.on(batch), add)
        return sum_(total).div_(sum(self.risk.weights[:count]))

    def graph_bytes(self) -> float:
        """Bytes of one example's stored graph, without the weights, counted on the first batch."""
        return self._graph_bytes

    @cached_property
    def _graph_bytes(self) -> float:
        batch = self.risk.on(next(iter(self.risk.all_batches)))
        storages: dict[int, int] = {}
        views: set[tuple[int, int, int]] = set()

        def count(tensor: Tensor) -> Tensor:
            """Add the bytes of the tensor itself, not of its storage, because a batch may be a view of all data."""
            storage = tensor.untyped_storage()
            view = storage.data_ptr(), int(tensor.storage_offset()), tensor.numel()
            if view not in views:
                views.add(view)
                used = storages.get(view[0], 0) + tensor.numel() * tensor.element_size()
                storages[view[0]] = min(storage.nbytes(), used)
            return tensor.detach()

        with self.risk.standing_in(twice=True) as call:
            convolutions = self._convolutions
            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                self._graph(call, batch, convolutions)
        for parameter in self.risk.model.parameters():
            storages.pop(parameter.untyped_storage().data_ptr(), None)
        for leaf in self.risk.leaves:
            storages.pop(leaf.untyped_storage().data_ptr(), None)
        return sum(storages.values()) / batch_length(batch)

    @cached_property
    def _convolutions(self) -> Convolutions | None:
        """The first suitable convolutions with which a product over two examples equals torch's; None if none do.

        The choice follows a rule, not measured times, so that the same call gives the same bits again. A network fails
        with them, for example, if it calls ``view`` on images whose channels are last, or if it uses `torch.func`.
        """
        candidates = suitable(self.risk.model, self.device, self.dtype)
        if not candidates:
            return None
        few = split_batch(self.risk.on(next(iter(self.risk.all_batches))), 2)[0]
        with self.risk.standing_in(twice=True) as call:
            expected = self._tried(call, few, None)
            if expected is None:
                return None
            for convolutions in candidates:
                found = self._tried(call, few, convolutions)
                if found is not None and (found - expected).norm() <= _ALIKE * expected.norm():
                    return convolutions
        return None

    def _tried(self, call: Caller, batch: Any, convolutions: Convolutions | None) -> Tensor | None:
        """The product with a fixed vector; None after any error, which a real product raises again."""
        vector = [torch.cos(torch.arange(p.numel(), device=p.device)).to(p).view(p.shape) for p in self.risk.leaves]
        try:
            return self.risk.flatten(self._graph(call, batch, convolutions)(vector))
        except Exception:
            return None

    @abstractmethod
    def _graph(self, call: Caller, batch: Any, convolutions: Convolutions | None) -> Product:
        """Build the graph of one batch; return the function that computes its product with a vector."""

    def _keep(self) -> list[tuple[Product, int]]:
        if self._kept is None:
            self._kept, left = [], float(self._memory)
            if left <= 0:
                return self._kept
            with self.risk.standing_in(twice=True) as call:
                for batch in self.risk.batches:
                    left -= self._graph_bytes * batch_length(batch)
                    if left < 0:
                        break
                    try:
                        graph = self._graph(call, self.risk.on(batch), self._convolutions)
                    except torch.OutOfMemoryError:
                        break  # this batch and the others are computed again in each product
                    self._kept.append((graph, self.risk.weight_of(batch)))
        return self._kept


class Hessian(_Curvature):
    r"""Hessian of the risk, :math:`H = \nabla^2 L(w)`.

    Args:
        risk: the empirical risk, at its model's weights.
        memory: bytes for stored graphs; by default a third of the free memory.

    The mean of :math:`\tfrac12 (w'x)^2` over examples x has the Hessian :math:`\frac1N X'X`:

    >>> from torch import nn
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> risk = EmpiricalRisk(nn.Linear(2, 1, bias=False), [(x, None)],
    ...                      loss=lambda model, batch: model(batch[0]).square().mean() / 2)
    >>> torch.allclose(Hessian(risk) @ torch.eye(2), x.T @ x / 2)
    True
    """

    def _graph(self, call: Caller, batch: Any, convolutions: Convolutions | None) -> Product:
        leaves = self.risk.leaves
        with convolutions or nullcontext():
            loss = call(self.risk.loss, batch)
        with convolutions.passes.for_graph() if convolutions else nullcontext():
            gradient = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
        # If the loss is linear in a weight, its gradient there has no graph and its curvature is zero. Edges hold the
        # graph without the values of the gradient, which saves memory.
        used = [i for i, g in enumerate(gradient) if g.requires_grad]
        edges = [get_gradient_edge(gradient[i]) for i in used]

        def product(vector: list[Tensor]) -> tuple[Tensor, ...]:
            along = [vector[i] for i in used]
            return torch.autograd.grad(edges, leaves, along, retain_graph=True, materialize_grads=True)

        return product if used else _zero_product


class GGN(_Curvature):
    r"""Generalised Gauss-Newton matrix, :math:`G = \frac1N\sum_n J_n'\,\nabla^2\ell(z_n)\,J_n` for Jacobians J.

    It is the Hessian without the terms of the network's second derivative. It has no negative eigenvalue if the loss is
    convex in the output. For cross-entropy its rank is at most examples times (outputs - 1).

    Args:
        risk: the empirical risk, at its model's weights; its loss must have ``output`` and ``of_output``.
        memory: bytes for stored graphs; by default a third of the free memory.

    Raises:
        InputError: the loss is not a `SplitLoss`.

    Source: Schraudolph (2002).

    If the output is linear in the weights, the GGN is equal to the Hessian:

    >>> from torch import nn
    >>> risk = EmpiricalRisk(nn.Linear(2, 2), [(torch.eye(2), torch.tensor([0, 1]))])
    >>> torch.allclose(GGN(risk) @ torch.eye(4), Hessian(risk) @ torch.eye(4), atol=1e-6)
    True
    """

    positive = True

    def __init__(self, risk: EmpiricalRisk, memory: int | None = None) -> None:
        self._loss = risk.split_loss()
        super().__init__(risk, memory)

    @cached_property
    def rank_bound(self) -> int:
        """Largest number of nonzero eigenvalues: examples times outputs; for cross-entropy one output less."""
        batch = self.risk.on(next(iter(self.risk.all_batches)))
        with self.risk.standing_in() as call, torch.no_grad():
            output = call(self._loss.output, batch)
        outputs = output.numel() // batch_length(batch)
        free = outputs - outputs // output.shape[1] if isinstance(self._loss, CrossEntropy) else outputs
        return self.risk.num_examples * free

    def _graph(self, call: Caller, batch: Any, convolutions: Convolutions | None) -> Product:
        leaves = self.risk.leaves
        with convolutions or nullcontext():
            output = call(self._loss.output, batch)
        at = output.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self._loss.of_output(at, batch), at, create_graph=True)
        dual = torch.zeros_like(output, requires_grad=True)
        with convolutions.passes.for_graph(zeros=True) if convolutions else nullcontext():
            pulled = torch.autograd.grad(output, leaves, dual, create_graph=True, materialize_grads=True)
        edges = [get_gradient_edge(part) for part in pulled]

        def product(vector: list[Tensor]) -> tuple[Tensor, ...]:
            (pushed,) = torch.autograd.grad(edges, dual, vector, retain_graph=True)
            (curved,) = torch.autograd.grad(slope, at, pushed, retain_graph=True)
            return torch.autograd.grad(output, leaves, curved, retain_graph=True, materialize_grads=True)

        return product


class Sample(Derived):
    r"""Hessian or GGN over the first batches only, :math:`\sum_{b \le c} n_b A_b / \sum_{b \le c} n_b`.

    It uses the stored graphs of the matrix over all batches.

    Args:
        curvature: Hessian or GGN over all batches.
        count: number of batches c.

    >>> from torch import nn
    >>> first, second = (torch.eye(2), torch.tensor([0, 1])), (torch.ones(3, 2), torch.tensor([0, 1, 1]))
    >>> model, batches = nn.Linear(2, 2), [first, second]
    >>> alone = Hessian(EmpiricalRisk(model, batches[:1]))
    >>> torch.equal(Sample(Hessian(EmpiricalRisk(model, batches)), 1) @ torch.eye(4), alone @ torch.eye(4))
    True
    """

    def __init__(self, curvature: Hessian | GGN, count: int) -> None:
        super().__init__(curvature)
        self._curvature, self._count = curvature, count
        self._products = 0

    @property
    def num_products(self) -> int:
        return self._products

    def _matvec(self, vector: Tensor) -> Tensor:
        self._products += 1
        return self._curvature.over_first(self._count, vector)


def _zero_product(vector: list[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.zeros_like(part) for part in vector)
