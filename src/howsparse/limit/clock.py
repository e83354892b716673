"""The time of one product, measured while a spectrum grows."""

import statistics
import time

from howsparse.linalg import Operator

__all__ = ["Clock"]


class Clock:
    """Measures the time of one product. The first product, which builds graphs, and stored products do not count."""

    def __init__(self, matrix: Operator) -> None:
        self._matrix, self._times = matrix, list[float]()
        self.start()

    def start(self) -> None:
        """Begin a step: products follow."""
        self._began, self._before = time.perf_counter(), self._matrix.num_products

    def stop(self) -> None:
        """End the step."""
        made = self._matrix.num_products - self._before
        if made and self._before:
            self._times.append((time.perf_counter() - self._began) / made)

    @property
    def seconds_per_product(self) -> float | None:
        """The median; None if no product was computed."""
        return statistics.median(self._times) if self._times else None
