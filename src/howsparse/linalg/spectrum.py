"""Spectra from random probes and Lanczos steps, and bounds on integrals over them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from howsparse.errors import InputError
from howsparse.linalg.lanczos import Lanczos
from howsparse.linalg.operators import Block, Operator
from howsparse.linalg.quadrature import Integrand, Rule, Tridiagonal, gauss, gauss_radau, steepest_rule

__all__ = ["Spectrum", "grow_spectrum"]


@dataclass(frozen=True)
class Spectrum:
    r"""The distribution of the eigenvalues of a symmetric matrix, estimated by random probes and Lanczos steps.

    Attributes:
        tridiagonals: one tridiagonal matrix for each probe.
        size: number of rows of the matrix.
        num_zero: number of rows that are exactly zero. As many eigenvalues are exactly 0. The probes do not cover them.
        positive: whether the matrix cannot have a negative eigenvalue.
    """

    tridiagonals: tuple[Tridiagonal, ...]
    size: int
    num_zero: int = 0
    positive: bool = False

    @property
    def num_steps(self) -> int:
        """Number of Lanczos steps of each probe."""
        return self.tridiagonals[0].size

    @property
    def complete(self) -> bool:
        """Whether no probe can take a further step."""
        return all(t.complete for t in self.tridiagonals)

    def first(self, steps: int) -> "Spectrum":
        """The spectrum after the first ``steps`` steps of every probe."""
        return replace(self, tridiagonals=tuple(t.first(steps) for t in self.tridiagonals))

    def gauss(self) -> Rule:
        """The mean of the probes' Gauss rules. Stochastic Lanczos quadrature usually means this rule."""
        return self._mean(gauss)

    def lowest(self) -> Rule:
        """The rule with the smallest integral of a filter factor, for every scale: Gauss-Radau with a node at 0."""
        return self._mean(lambda tridiagonal: gauss_radau(tridiagonal, 0.0))

    def highest(self, f: Integrand) -> Rule:
        """The rule that gives the largest integral of ``f``, a filter factor at a fixed scale."""
        return self.gauss() if self.positive else self._mean(lambda tridiagonal: steepest_rule(tridiagonal, f))

    def probe_deviation(self, f: Integrand, rule: Rule) -> float:
        r"""Bound on the standard deviation of the integral of ``f`` over the random choice of the probes.

        For a Rademacher probe z and :math:`A = f(H)` of n rows, :math:`\mathrm{Var}(z'Az/n)` is
        :math:`\tfrac{2}{n^2}(\|A\|_F^2 - \sum A_{ii}^2) \le \tfrac2n \bigl(\int f^2 - (\int f)^2\bigr)`, by the
        Cauchy-Schwarz inequality for the diagonal. The integrals are those of ``rule``. The term 1/n covers one
        direction that the probes may not contain.
        """
        alive = self.size - self.num_zero
        if alive == 0:
            return 0.0
        share = alive / self.size
        mean, square = rule.integrate(f) / share, rule.integrate(lambda x: f(x) ** 2) / share
        variance = max(0.0, square - mean**2) + 1 / alive
        return share * math.sqrt(2 * variance / (alive * len(self.tridiagonals)))

    def with_zero_share(self, share: float) -> Rule:
        """The paper's correction of the Gauss rule: move the fraction ``share`` of the mass from the nodes near 0 to 0.

        Args:
            share: fraction of eigenvalues that are zero, in [0, 1]; `sample_rows` estimates it.

        Raises:
            InputError: the fraction is outside [0, 1].

        Source: Appendix B, "Hessian matrix sampling".
        """
        if not 0 <= share <= 1:
            raise InputError(f"zero share {share:g} is outside [0, 1]; give the fraction of eigenvalues that are zero")
        rule = self.gauss()
        order = np.argsort(np.abs(rule.nodes))
        nodes, masses = rule.nodes[order], rule.masses[order]
        before = np.concatenate([[0.0], np.cumsum(masses)[:-1]])
        moved = np.clip(share - before, 0.0, masses)
        return Rule(np.append(nodes, 0.0), np.append(masses - moved, moved.sum()))

    def _mean(self, rule_of: Callable[[Tridiagonal], Rule]) -> Rule:
        rule = Rule.mean([rule_of(tridiagonal) for tridiagonal in self.tridiagonals])
        share = self.num_zero / self.size
        return Rule(np.append(rule.nodes, 0.0), np.append(rule.masses * (1 - share), share))


def grow_spectrum(
    operator: Operator, like: Tensor, *, probes: int = 1, seed: int = 0, storage: torch.dtype | None = None
) -> Iterator[Spectrum]:
    """Yield the spectrum after each further step of every probe, until no probe can take a further step.

    One product first finds the rows that are exactly zero, for example those of dead units: the product with a Gaussian
    vector is zero in these rows and, with probability 1, in no others. Probes are Rademacher vectors on the other rows.

    Args:
        operator: the matrix, ``(n, n)``.
        like: a vector with the device and dtype in which to compute.
        probes: number of random vectors.
        seed: seed of the probes; it gives the same probes on every device.
        storage: dtype of the stored Lanczos basis; by default that of ``like``.

    Yields:
        The spectrum after 1, 2, 3, ... steps.
    """
    generator = torch.Generator().manual_seed(seed)
    size = operator.shape[0]
    nonzero = (operator @ torch.randn(size, generator=generator).to(like)) != 0
    alive = Block(operator, nonzero)
    num_zero = size - alive.shape[0]
    if num_zero == size:
        yield Spectrum((Tridiagonal(np.zeros(1), np.zeros(1)),), size, num_zero, operator.positive)
        return

    def draw() -> Tensor:
        signs = torch.randint(0, 2, (size,), generator=generator, dtype=torch.int8)
        return signs.mul_(2).sub_(1).to(like)[nonzero]

    runs = [Lanczos(alive.__matmul__, draw(), storage) for _ in range(probes)]
    going = True
    while going:
        going = sum(run.step() for run in runs) > 0
        yield Spectrum(tuple(run.tridiagonal for run in runs), size, num_zero, operator.positive)
