"""What Lanczos found out about a spectrum, and how well that fixes the integral of a function over it."""

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
    r"""The eigenvalue distribution of a symmetric matrix, as far as random probes and Lanczos know it.

    Attributes:
        tridiagonals: one per probe.
        size: rows of the matrix.
        num_zero: rows found to be exactly zero; as many eigenvalues are exactly 0, and the probes leave them out.
        positive: no eigenvalue is negative, by construction.
    """

    tridiagonals: tuple[Tridiagonal, ...]
    size: int
    num_zero: int = 0
    positive: bool = False

    @property
    def num_steps(self) -> int:
        """Lanczos steps of each probe."""
        return self.tridiagonals[0].size

    @property
    def complete(self) -> bool:
        """Every probe's Krylov space is exhausted."""
        return all(t.complete for t in self.tridiagonals)

    def first(self, steps: int) -> "Spectrum":
        """As it was after ``steps`` steps of every probe."""
        return replace(self, tridiagonals=tuple(t.first(steps) for t in self.tridiagonals))

    def gauss(self) -> Rule:
        """The Gauss rule, which is what stochastic Lanczos quadrature usually means."""
        return self._mean(gauss)

    def lowest(self) -> Rule:
        """The rule that gives the least integral of a share, whatever its scale: Gauss-Radau with its node at 0."""
        return self._mean(lambda tridiagonal: gauss_radau(tridiagonal, 0.0))

    def highest(self, f: Integrand) -> Rule:
        """The rule that gives the largest integral of ``f``, a share at some scale."""
        return self.gauss() if self.positive else self._mean(lambda tridiagonal: steepest_rule(tridiagonal, f))

    def probe_deviation(self, f: Integrand, rule: Rule) -> float:
        r"""Bound on the standard deviation of an integral that is due to the random probes.

        For a Rademacher probe z and :math:`A = f(H)` of n rows, :math:`\mathrm{Var}(z'Az/n)` is
        :math:`\tfrac{2}{n^2}(\|A\|_F^2 - \sum A_{ii}^2) \le \tfrac2n \bigl(\int f^2 - (\int f)^2\bigr)`, by Cauchy and
        Schwarz on the diagonal. The integrals are the rule's own; 1/n is added for a direction the probes may miss.
        """
        alive = self.size - self.num_zero
        if alive == 0:
            return 0.0
        share = alive / self.size
        mean, square = rule.integrate(f) / share, rule.integrate(lambda x: f(x) ** 2) / share
        variance = max(0.0, square - mean**2) + 1 / alive
        return share * math.sqrt(2 * variance / (alive * len(self.tridiagonals)))

    def with_zero_share(self, share: float) -> Rule:
        """The paper's correction: move the ``share`` of the Gauss rule's mass that is nearest to 0 onto 0.

        Args:
            share: of eigenvalues that are zero, as `sample_rows` estimates it.

        Source: Appendix B, "Hessian matrix sampling".
        """
        if not 0 <= share <= 1:
            raise InputError(f"zero share {share:g} is outside [0, 1]")
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
    """Yield the spectrum after one step of every probe, after two, and so on until all are exhausted.

    One product first finds the rows that are exactly zero (those of dead units): a Gaussian vector's product vanishes
    there and, with probability 1, nowhere else. Probes are Rademacher vectors on the other rows.

    Args:
        operator: the matrix.
        like: a vector of the device and dtype to compute in.
        probes: how many random vectors.
        seed: of the probes; the same on every device.
        storage: dtype to keep the Lanczos basis in; that of ``like`` unless given.
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
