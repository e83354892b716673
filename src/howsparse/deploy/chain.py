"""Sequences of layers in which sparse layers follow each other without the cost of modules and transposes."""

from typing import Any

import torch
from torch import Tensor, nn

from howsparse.deploy.kernels import Product, columns_of
from howsparse.deploy.sparse import SparseLinear

__all__ = ["SparseSequential", "fuse_sequences"]

_MOST_SHAPES = 16  # of inputs for which a sequence remembers its steps


class SparseSequential(nn.Sequential):
    """An `nn.Sequential` in which sparse layers that follow each other, with their ReLUs, are one step.

    The step calls kernels directly, keeps the transposed layout that they need from layer to layer, and takes ReLUs in
    place. Names and state dicts are those of the `nn.Sequential`. Modules are called one by one while gradients are
    recorded, under `torch.compile`, and where a sparse layer or its ReLU has a hook. `howsparse.sparsify` makes it.

    >>> from howsparse.deploy.kernels import csr_of
    >>> SparseSequential(SparseLinear(csr_of(-torch.eye(2))), nn.ReLU())(torch.ones(1, 2)).tolist()
    [[0.0, 0.0]]
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__(*modules)
        self.forget()

    def forget(self) -> None:
        """Forget the steps. They are found again at the next call."""
        self._steps: dict[torch.Size, list[Product]] = {}
        self._seen: tuple[nn.Module | None, ...] = ()
        self._layers: list[tuple[SparseLinear, object]] = []
        self._hooks: list[object] = []

    def forward(self, input: Tensor) -> Tensor:
        """The output of the last module."""
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or not isinstance(input, Tensor):
            return self._one_by_one(input)
        if not self._is_as_seen():
            self._look()  # a hook makes it look at each call
        steps = self._steps.get(input.shape)
        if steps is None:
            return self._first(input)
        for step in steps:
            input = step(input)
        return input

    def _one_by_one(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return x

    def _is_as_seen(self) -> bool:
        """Whether the steps are those of the present modules and weights, and no hook waits for their calls."""
        if tuple(self._modules.values()) != self._seen or any(self._hooks):
            return False
        return all(layer._ready is ready for layer, ready in self._layers)

    def _look(self) -> None:
        self.forget()
        self._seen = tuple(self._modules.values())
        self._layers = [(module, module._ready) for module in self if isinstance(module, SparseLinear)]
        inner = [module for module in self if isinstance(module, SparseLinear | nn.ReLU)]
        self._hooks = [hooks for module in inner for hooks in (module._forward_hooks, module._forward_pre_hooks)]

    def _first(self, x: Tensor) -> Tensor:
        """Run the modules, and remember the steps for inputs of this shape."""
        shape, steps, modules = x.shape, list[Product](), list(self)
        while modules:
            step, used = _step(modules, x)
            steps.append(step)
            x = step(x)
            modules = modules[used:]
        if len(self._steps) >= _MOST_SHAPES:
            self._steps = {}
        self._steps[shape] = steps
        return x

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_steps": {}, "_seen": (), "_layers": [], "_hooks": []}


def fuse_sequences(model: nn.Module) -> None:
    """Make each `nn.Sequential` that holds sparse layers a `SparseSequential`, in place."""
    for module in model.modules():
        if type(module) is nn.Sequential and any(isinstance(each, SparseLinear) for each in module):
            module.__class__ = SparseSequential
            assert isinstance(module, SparseSequential)
            module.forget()


def _is_hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _step(modules: list[nn.Module], x: Tensor) -> tuple[Product, int]:
    """What to do next for an input like ``x``, and how many of the modules that is."""
    products: list[tuple[Product, bool]] = []
    used = 0
    while used < len(modules) and (product := _by_columns(modules[used], x)) is not None:
        used += 1
        relu = used < len(modules) and type(modules[used]) is nn.ReLU and not _is_hooked(modules[used])
        products.append((product, relu))
        used += relu
    return (_chained(products), used) if products else (modules[0], 1)


def _by_columns(module: nn.Module, x: Tensor) -> Product | None:
    return module.by_columns(x) if isinstance(module, SparseLinear) and not _is_hooked(module) else None


def _chained(products: list[tuple[Product, bool]]) -> Product:
    """Products one after the other, each with whether a ReLU follows. Examples stay in columns between them."""

    def chained(x: Tensor) -> Tensor:
        x = columns_of(x)
        for product, relu in products:
            x = product(x)
            if relu:
                x.relu_()  # a product's output is new memory
        return x.t()

    return chained
