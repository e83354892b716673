"""A rough estimate of the curvature of each single weight, which gives units in which all weights are alike.

References:
    Marquardt (1963), An algorithm for least-squares estimation of nonlinear parameters.
    Bekas, Kokiopoulou and Saad (2007), An estimator for the diagonal of a matrix.
    Shazeer and Stern (2018), Adafactor: adaptive learning rates with sublinear memory cost.
"""

import torch
from torch import Tensor

from howsparse.linalg.operators import Derived, Operator
from howsparse.risk.empirical import EmpiricalRisk

__all__ = ["Scaled", "curvature_scales"]

_FLOOR = 1e-2  # of the mean over a tensor, so that no weight moves without bounds


class Scaled(Derived):
    r"""The matrix :math:`S A S` for a diagonal S: the curvature in other units.

    Args:
        operator: the matrix A, ``(n, n)``.
        scale: the diagonal of S, ``(n,)``.

    >>> from howsparse.risk import EmpiricalRisk, Hessian
    >>> whole = Hessian(EmpiricalRisk(torch.nn.Linear(2, 2), [(torch.eye(2), torch.tensor([0, 1]))]))
    >>> scale = torch.tensor([1.0, 2.0, 3.0, 4.0])
    >>> torch.allclose(Scaled(whole, scale) @ torch.eye(4), scale[:, None] * (whole @ torch.eye(4)) * scale)
    True
    """

    def __init__(self, operator: Operator, scale: Tensor) -> None:
        super().__init__(operator)
        self._scale = scale

    @property
    def num_products(self) -> int:
        """Number of products of the matrix A."""
        return self._operator.num_products

    def _matvec(self, vector: Tensor) -> Tensor:
        return self._scale * (self._operator @ (self._scale * vector))


def curvature_scales(risk: EmpiricalRisk, probes: int = 2, seed: int = 0) -> Tensor:
    r"""An estimate of the diagonal of :math:`\frac1N\sum_n J_n'J_n`, with J the Jacobian of the outputs.

    For random signs z of the outputs, the expectation of :math:`(J'z)_i^2` is the sum of the squares of column i of J.
    The estimate from a few probes is noisy. So the estimate for a tensor of two or more dimensions is replaced by the
    matrix of rank one with the same sums over rows and columns, and that for a vector is averaged with its mean.

    Args:
        risk: the empirical risk; its loss must have ``output``.
        probes: number of passes over the batches.
        seed: seed of the signs.

    Returns:
        The diagonal, ``(n,)``, above 0.

    Source: Bekas et al. (2007); the matrix of rank one is that of Shazeer and Stern (2018).

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> risk = EmpiricalRisk(torch.nn.Linear(2, 1, bias=False), [(x, torch.zeros(2, 1))], torch.nn.MSELoss())
    >>> curvature_scales(risk)  # exact, as no example touches both weights: (1, 4) / 2
    tensor([0.5000, 2.0000])
    """
    loss, generator = risk.split_loss(), torch.Generator().manual_seed(seed)
    total = torch.zeros(risk.num_weights, dtype=risk.leaves[0].dtype, device=risk.device)
    with risk.standing_in() as call:
        for _ in range(probes):
            for batch, _share in risk.on_device():
                output = call(loss.output, batch)
                signs = torch.randint(2, output.shape, generator=generator).to(output).mul_(2).sub_(1)
                parts = torch.autograd.grad(output, risk.leaves, signs, materialize_grads=True)
                total.add_(risk.flatten(parts).square_())
    total.div_(probes * sum(risk.weights))
    return risk.flatten([_smooth(part) for part in risk.unflatten(total)])


def _smooth(squares: Tensor) -> Tensor:
    mean = squares.mean()
    if mean == 0:
        return torch.ones_like(squares)
    if squares.ndim < 2:
        return (squares + mean) / 2
    matrix = squares.flatten(1)
    product = matrix.sum(1, keepdim=True) * matrix.sum(0, keepdim=True) / matrix.sum()
    return product.view(squares.shape).clamp(min=_FLOOR * mean)
