"""Other tools' Hessian products and spectral densities, each as one function of a flat vector or of a step count.

A tool that is not installed is None. Each works on its own copy of the model, in evaluation mode and with everything
but the weights under study frozen, so that all tools multiply by the same matrix.
"""

import copy
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from importlib import metadata
from typing import TypeVar
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from howsparse.linalg.lanczos import Lanczos

__all__ = ["INSTALL", "densities", "double_backward", "products", "subject", "version"]

Batches = list[tuple[Tensor, Tensor]]
Product = Callable[[Tensor], Tensor]
Density = Callable[[int], object]
Made = TypeVar("Made")

INSTALL = "make bench-install"
_PACKAGES = {"pyhessian": "PyHessian", "curvlinops": "curvlinops-for-pytorch"}


def version(peer: str) -> str | None:
    """Installed version; None if it is missing."""
    try:
        return metadata.version(_PACKAGES.get(peer, peer))
    except metadata.PackageNotFoundError:
        return None


def subject(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """A copy for tools that change what they are given, with only ``names`` trainable."""
    own, studied = copy.deepcopy(model).eval(), set(names)
    for name, parameter in own.named_parameters():
        parameter.requires_grad_(name in studied)
    return own


def products(model: nn.Module, names: list[str], batches: Batches) -> dict[str, Product | None]:
    """Every tool's ``vector -> Hessian @ vector`` over all of ``batches``, which must be of one length."""
    makers = {"pyhessian": _pyhessian, "curvlinops": _curvlinops, "hessian_eigenthings": _hessian_eigenthings}
    return {peer: _unless_missing(partial(make, subject(model, names), batches)) for peer, make in makers.items()}


def double_backward(model: nn.Module, batches: Batches) -> Product:
    """The product as the authors' code takes it: gradient with its graph, then the gradient of that, each time anew."""
    weights = _trainable(model)

    def product(vector: Tensor) -> Tensor:
        parts, total, count = _split(vector, weights), torch.zeros_like(vector), 0
        for inputs, targets in batches:
            gradient = torch.autograd.grad(cross_entropy(model(inputs), targets), weights, create_graph=True)
            total.add_(_flat(torch.autograd.grad(gradient, weights, parts)), alpha=len(targets))
            count += len(targets)
        return total / count

    return product


def densities(diagonal: Tensor) -> dict[str, Density | None]:
    """Every tool's ``steps -> spectral density`` of a diagonal matrix: all that a density costs beside its products.

    curvlinops' own, in its papyan2020traces module, works on SciPy's operators and is not timed.
    """
    return {
        "howsparse": lambda steps: _own_density(diagonal, steps),
        "pyhessian": _unless_missing(partial(_pyhessian_density, diagonal)),
        "hessian_eigenthings": _unless_missing(partial(_hessian_eigenthings_density, diagonal)),
    }


def _unless_missing(make: Callable[[], Made]) -> Made | None:
    try:
        return make()
    except ImportError:
        return None


def _pyhessian(model: nn.Module, batches: Batches) -> Product:
    from pyhessian import hessian

    # It differentiates with backward(create_graph=True), of which torch warns; it clears the gradients itself.
    warnings.filterwarnings("ignore", message="Using backward")
    tool = hessian(model, cross_entropy, dataloader=batches, cuda=False)
    return lambda vector: _flat(tool.dataloader_hv_product(_split(vector, tool.params))[1])


def _curvlinops(model: nn.Module, batches: Batches) -> Product:
    from curvlinops import HessianLinearOperator

    operator = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), _trainable(model), batches, check_deterministic=False
    )
    return lambda vector: torch.as_tensor(operator @ vector)


def _hessian_eigenthings(model: nn.Module, batches: Batches) -> Product:
    from hessian_eigenthings import HessianOperator, supervised_loss

    # It averages over batches without their lengths: batches must be of one length.
    operator = HessianOperator(model, batches, supervised_loss(cross_entropy))
    return lambda vector: torch.as_tensor(operator.matvec(vector))


def _own_density(diagonal: Tensor, steps: int) -> object:
    run = Lanczos(lambda vector: diagonal * vector, torch.ones_like(diagonal))
    for _ in range(steps):
        run.step()
    return run.tridiagonal


def _pyhessian_density(diagonal: Tensor) -> Density:
    from pyhessian import hessian

    weights = nn.ParameterList([nn.Parameter(torch.zeros_like(diagonal))])
    tool = hessian(weights, cross_entropy, dataloader=[], cuda=False)
    tool.params = list(weights)
    tool.dataloader_hv_product = lambda vector: (0.0, [diagonal * vector[0]])

    def density(steps: int) -> object:
        # It ends in torch.eig, which torch has removed; without a stand-in it fails after all the work is done.
        with mock.patch.object(torch, "eig", _eig), torch.no_grad():
            return tool.density(iter=steps, n_v=1)

    return density


def _eig(matrix: Tensor, eigenvectors: bool) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix)
    return torch.stack([values, torch.zeros_like(values)], dim=1), vectors


def _hessian_eigenthings_density(diagonal: Tensor) -> Density:
    from hessian_eigenthings import LambdaOperator, spectral_density

    operator = LambdaOperator(lambda vector: diagonal * vector, diagonal.numel())
    return lambda steps: spectral_density(operator, num_runs=1, lanczos_steps=steps, seed=0)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _split(vector: Tensor, like: list[nn.Parameter]) -> list[Tensor]:
    parts = vector.split([p.numel() for p in like])
    return [part.view(p.shape) for part, p in zip(parts, like, strict=True)]


def _flat(parts: Iterable[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])
