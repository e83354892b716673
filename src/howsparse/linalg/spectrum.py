"""Spectra from random probes and Lanczos steps, and bounds on integrals over them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy
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

    >>> one = Tridiagonal(np.array([1.0]), np.array([0.0]))  # each eigenvalue that is not zero is 1
    >>> found = Spectrum((one,), size=100, num_zero=75)
    >>> found.gauss().integrate(lambda nodes: nodes)
    0.25
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
        """The spectrum after the first ``steps`` steps of every probe.

        Args:
            steps: number of steps.

        Returns:
            A spectrum of fewer steps.
        """
        return replace(self, tridiagonals=tuple(t.first(steps) for t in self.tridiagonals))

    def gauss(self) -> Rule:
        """The mean of the probes' Gauss rules. Stochastic Lanczos quadrature usually means this rule.

        Returns:
            The rule, with the rows that are zero as mass at 0.
        """
        return self._mean(gauss)

    def lowest(self) -> Rule:
        """The rule with the smallest integral of a filter factor, for every scale: Gauss-Radau with a node at 0.

        Returns:
            The rule, with the rows that are zero as mass at 0.
        """
        return self._mean(lambda tridiagonal: gauss_radau(tridiagonal, 0.0))

    def highest(self, f: Integrand) -> Rule:
        """The rule that gives the largest integral of ``f``, a filter factor at a fixed scale.

        Args:
            f: the filter factor, a function of the nodes.

        Returns:
            The rule, with the rows that are zero as mass at 0.
        """
        return self.gauss() if self.positive else self._mean(lambda tridiagonal: steepest_rule(tridiagonal, f))

    def probe_interval(self, low: float, high: float, confidence: float) -> tuple[float, float]:
        r"""Interval for the mean of f over all eigenvalues, from its means over the probes' measures.

        Let X be the mean of :math:`\int f\,d\nu` over N probes that are uniform on the sphere of n rows, T the mean of
        f over the eigenvalues, and :math:`0 \le f \le 1`. For every n, the probability that X is beyond t, on either
        side of T, is at most :math:`\exp(-\tfrac{Nn}2\,\mathrm{KL}(T, t))`, with the relative entropy
        :math:`\mathrm{KL}(T, t) = T\log\frac Tt + (1-T)\log\frac{1-T}{1-t}`. The proof is in docs/theory.md. The
        variance of one probe is at most :math:`2T(1-T)/n`.

        Args:
            low, high: bounds on X, in [0, 1]; the rows that are zero count.
            confidence: probability with which the interval holds T, in (0, 1).

        Returns:
            Lower and upper end, in [0, 1].

        >>> half = Tridiagonal(np.array([1.0]), np.array([0.0]))
        >>> low, high = Spectrum((half,), size=20_000).probe_interval(0.5, 0.5, 0.99)
        >>> round(low, 4), round(high, 4)
        (0.4837, 0.5163)
        """
        alive = self.size - self.num_zero
        if alive == 0:
            return low, high
        share = alive / self.size
        entropy = 2 * math.log(2 / (1 - confidence)) / (alive * len(self.tridiagonals))
        return share * _least_mean(low / share, entropy), share * (1 - _least_mean(1 - high / share, entropy))

    @property
    def rounding(self) -> float:
        r"""Estimated root mean square by which rounding moves the eigenvalues; 0 if it was not measured.

        Lanczos with the residuals :math:`r_j` is exact for a matrix A + E with
        :math:`\lVert E\rVert_F^2 \le 2\sum_j \lVert r_j\rVert^2`. By the inequality of Hoffman and Wielandt,
        :math:`\lVert E\rVert_F^2` is at least the sum of the squared differences of the eigenvalues of both matrices.
        """
        alive = self.size - self.num_zero
        found = [0.0 if t.residuals is None else float(np.linalg.norm(t.residuals)) for t in self.tridiagonals]
        return math.sqrt(2 / alive) * sum(found) / len(found) if alive else 0.0

    def rounded(self, mean: float, f: Integrand, *, upper: bool) -> float:
        """Bound on the mean of f over all eigenvalues in exact arithmetic, from the mean with rounding.

        Args:
            mean: the mean with rounding, in [0, 1]; the rows that are zero count.
            f: a filter factor at a fixed scale. It moves by at most f(distance), and is concave for positive numbers,
                so its mean moves by at most f(`rounding`).
            upper: True for the upper bound, False for the lower one.

        Returns:
            The bound.
        """
        alive = 1 - self.num_zero / self.size
        moved = alive * float(f(np.array(self.rounding)))
        return min(mean + moved, alive) if upper else max(mean - moved, 0.0)

    def with_zero_share(self, share: float) -> Rule:
        """The paper's correction of the Gauss rule: move the fraction ``share`` of the mass from the nodes near 0 to 0.

        Args:
            share: fraction of eigenvalues that are zero, in [0, 1]; `sample_rows` estimates it.

        Returns:
            The Gauss rule with more mass at 0.

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
    """Yield the spectrum after each Lanczos step of all probes, until no probe can take a further step.

    One product first finds the rows that are exactly zero, for example those of dead units: the product with a Gaussian
    vector is zero in these rows and, with probability 1, in no others. The same product measures the rounding of every
    further step, see `Lanczos`. Probes are uniform on the sphere of the other rows.

    Args:
        operator: the matrix, ``(n, n)``.
        like: a vector with the device and dtype in which to compute.
        probes: number of random vectors.
        seed: seed of the probes; it gives the same probes on every device.
        storage: dtype of the stored Lanczos basis; by default that of ``like``.

    Yields:
        The spectrum after 1, 2, 3, ... steps.

    Source: stochastic Lanczos quadrature, as in Ubaru, Chen and Saad (2017), Fast estimation of tr(f(A)).

    >>> class Diagonal(Operator):
    ...     shape, dtype, device, num_products = (2, 2), torch.float64, torch.device("cpu"), 0
    ...     def _matvec(self, vector): return torch.tensor([0.0, 3.0], dtype=torch.float64) * vector
    >>> *_, last = grow_spectrum(Diagonal(), torch.empty(2, dtype=torch.float64))
    >>> last.num_zero, last.complete, round(last.gauss().integrate(lambda nodes: nodes), 6)
    (1, True, 1.5)
    """
    generator = torch.Generator().manual_seed(seed)
    size = operator.shape[0]
    gaussian = torch.randn(size, generator=generator).to(like)
    product = operator @ gaussian
    nonzero = product != 0
    check = gaussian[nonzero], product[nonzero]
    alive = Block(operator, nonzero)
    num_zero = size - alive.shape[0]
    if num_zero == size:
        yield Spectrum((Tridiagonal(np.zeros(1), np.zeros(1)),), size, num_zero, operator.positive)
        return

    def draw() -> Tensor:
        return torch.randn(size, generator=generator).to(like)[nonzero]

    runs = [Lanczos(alive.__matmul__, draw(), storage, check) for _ in range(probes)]
    going = True
    while going:
        going = sum(run.step() for run in runs) > 0
        yield Spectrum(tuple(run.tridiagonal for run in runs), size, num_zero, operator.positive)


def _least_mean(seen: float, entropy: float) -> float:
    """The smallest T <= ``seen`` in [0, 1] whose relative entropy KL(T, seen) is at most ``entropy``."""

    def excess(mean: float) -> float:
        into = mean * math.log(mean / seen) if mean > 0 else 0.0
        return into + (1 - mean) * math.log((1 - mean) / (1 - seen)) - entropy

    if seen >= 1:
        return 1.0
    if seen <= 0 or -math.log1p(-seen) <= entropy:
        return 0.0
    return float(scipy.optimize.brentq(excess, 0.0, seen, xtol=1e-14, rtol=1e-12))
