"""Random small networks for `benchmarks.coverage`: their limit beside the one of the dense float64 matrix."""

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import howsparse
from benchmarks.exact import dense_hessian
from benchmarks.problems import train_images
from howsparse.geometry import Magnitudes, absolute_filter, clipped_filter, fixed_point, minimal_density
from howsparse.limit.options import Curvature, Negative
from howsparse.risk.curvature import GGN
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.tasks import load_task
from howsparse.tasks.networks import kaiming_normal_, mlp

__all__ = ["network_case", "network_spectrum"]


def network_case(seed: int) -> dict[str, Any]:
    """The bracket of a network, with products in float32, and the exact limit from the dense matrix in float64."""
    rng = np.random.default_rng(seed)
    inputs, targets = digits(rng)
    model = trained(inputs, targets, seed, rng)
    curvature: Curvature = "hessian" if rng.random() < 0.75 else "ggn"
    negative: Negative = "unbounded" if curvature == "hessian" and rng.random() < 0.5 else "wall"
    tolerance = float(10 ** rng.uniform(-4, -1))
    probes = int(rng.integers(1, 3))
    limit = howsparse.pruning_limit(
        model,
        list(zip(inputs.split(100), targets.split(100), strict=True)),
        curvature=curvature,
        negative=negative,
        tolerance=tolerance,
        probes=probes,
        max_products=int(rng.integers(40, 160)) * probes,
        seed=seed,
    )
    model.double()
    matrix = dense_hessian(model, inputs, targets) if curvature == "hessian" else dense_ggn(model, inputs, targets)
    eigenvalues = torch.linalg.eigvalsh(matrix).numpy()
    weights = torch.cat([w.detach().flatten() for w in howsparse.prunable_weights(model).values()])
    share = absolute_filter if negative == "wall" else clipped_filter
    exact = 1 - fixed_point(
        lambda scale: minimal_density(eigenvalues, scale, factor=share), Magnitudes(weights.numpy()), tolerance
    )
    low, high = limit.bracket
    return {
        "seed": seed,
        "num_weights": limit.num_weights,
        "curvature": curvature,
        "negative": negative,
        "exact": exact,
        "limit": limit.errors.middle,
        "low": low,
        "high": high,
        "quadrature": limit.errors.quadrature,
        "probe": limit.errors.probe,
        "rounding": limit.errors.rounding,
    }


@functools.cache
def network_spectrum(seed: int, curvature: Curvature) -> tuple[NDArray[Any], NDArray[Any]]:
    """The eigenvalues in float64 of the rows that are not exactly zero, and the weights of these rows."""
    rng = np.random.default_rng(seed)
    inputs, targets = digits(rng)
    model = trained(inputs, targets, seed, rng).double()
    matrix = dense_hessian(model, inputs, targets) if curvature == "hessian" else dense_ggn(model, inputs, targets)
    alive = (matrix != 0).any(dim=1)
    weights = torch.cat([w.detach().flatten() for w in howsparse.prunable_weights(model).values()])
    eigenvalues = torch.linalg.eigvalsh(matrix[alive][:, alive])
    if curvature == "ggn":
        eigenvalues = eigenvalues.clamp(min=0)
    return eigenvalues.numpy(), weights[alive].numpy()


def digits(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    images = train_images(load_task("digits")).first(int(rng.integers(150, 400)))
    return images.normalised(images.pixels), images.labels


def trained(inputs: Tensor, targets: Tensor, seed: int, rng: np.random.Generator) -> nn.Module:
    torch.manual_seed(seed)
    model = mlp(64, int(rng.integers(4, 12)), int(rng.integers(4, 12)), 10)
    kaiming_normal_(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    howsparse.attach_l1(optimizer, howsparse.prunable_weights(model).values(), float(10 ** rng.uniform(-5, -2)))
    for _ in range(int(rng.integers(20, 300))):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model


def dense_ggn(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    operator = GGN(EmpiricalRisk(model, [(inputs.double(), targets)]))
    return operator @ torch.eye(operator.shape[0], dtype=torch.float64)
