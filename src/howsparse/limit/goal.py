"""`Goal`: what a network must keep when it is pruned."""

from dataclasses import dataclass

from howsparse.errors import InputError

__all__ = ["Goal", "Point", "goal_of"]


@dataclass(frozen=True)
class Point:
    """Mean loss and score of one pruned network.

    Attributes:
        sparsity: fraction of the weights removed.
        loss: mean loss.
        accuracy: mean of the metric, by default the fraction of correct predictions; None if there is no metric.
    """

    sparsity: float
    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Goal:
    """How much worse a pruned network may be than the dense one. Exactly one attribute is not None.

    Attributes:
        max_drop: allowed drop of the metric; for the accuracy, a fraction: 0.01 is one point.
        tolerance: allowed increase of the loss.
        max_rise: allowed increase of the loss as a share of the dense network's loss: 0.05 is 5 %.

    Raises:
        InputError: none or several are given, one is negative or not finite, or ``max_drop`` is 1 or more.

    >>> Goal(max_drop=0.01).keeps(Point(0.0, 0.3, 0.920), Point(0.5, 0.4, 0.912))
    True
    >>> print(Goal(max_drop=0.01))
    the accuracy drops by at most 1 point
    """

    max_drop: float | None = None
    tolerance: float | None = None
    max_rise: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise InputError(
                f"{len(given)} goals are given; give exactly one: max_drop (of the accuracy), tolerance or max_rise"
                " (of the loss)"
            )
        ((name, value),) = given.items()
        if not 0 <= value < float("inf"):
            what = "negative" if value < 0 else "not a finite number"
            raise InputError(f"{name} {value:g} is {what}; give what may be lost as a number of at least 0")
        if name == "max_drop" and value >= 1:
            raise InputError(f"max_drop {value:g} is not below 1; give a fraction: 0.01 allows one point of accuracy")

    def keeps(self, dense: Point, pruned: Point) -> bool:
        """Whether a pruned network meets the goal.

        Args:
            dense: the network before pruning.
            pruned: the network after pruning.

        Returns:
            True if it does.

        Raises:
            InputError: the goal is ``max_drop``, and a point has no metric.
        """
        if self.max_drop is not None:
            if dense.accuracy is None or pruned.accuracy is None:
                raise InputError("these points have no metric; use a goal in loss: tolerance or max_rise")
            return pruned.accuracy >= dense.accuracy - self.max_drop - 1e-12  # 0.9 - 0.01 is not 0.89 to the last bit
        if self.tolerance is not None:
            return pruned.loss <= dense.loss + self.tolerance
        return pruned.loss <= dense.loss * (1 + (self.max_rise or 0.0))

    def describe(self, metric: str | None = "accuracy") -> str:
        """The goal in words, with the name of the metric.

        Args:
            metric: name of the metric; None if there is none.

        Returns:
            A sentence without a full stop.
        """
        if self.max_drop is not None:
            points = 100 * self.max_drop
            return f"the {metric} drops by at most {points:g} {'point' if points == 1 else 'points'}"
        if self.tolerance is not None:
            return f"the loss rises by at most {self.tolerance:.4g}"
        return f"the loss rises by at most {100 * (self.max_rise or 0.0):g} %"

    def __str__(self) -> str:
        return self.describe()


def goal_of(
    max_drop: float | None, tolerance: float | None, max_rise: float | None, *, has_metric: bool = True
) -> Goal:
    """The goal that a caller asked for; by default, the metric drops by at most 0.01, one point of accuracy.

    Args:
        max_drop, tolerance, max_rise: as in `Goal`; at most one is not None.
        has_metric: whether there is a metric.

    Raises:
        InputError: several are given, none is given and there is no metric, or a value is not valid.

    >>> goal_of(None, None, None)
    Goal(max_drop=0.01, tolerance=None, max_rise=None)
    """
    if max_drop is None and tolerance is None and max_rise is None:
        max_drop = 0.01
    if max_drop is not None and not has_metric:
        raise InputError("the loss cannot tell which predictions are correct; give tolerance or max_rise")
    return Goal(max_drop, tolerance, max_rise)
