"""No pruning: what the others are measured against."""

from howsparse.methods.stages import Run, Sparsity, Stages
from howsparse.methods.ticket import Ticket
from howsparse.problem import Problem

__all__ = ["dense"]


def dense(problem: Problem, sparsity: Sparsity = 0.0, seed: int = 0, run: Run = Run()) -> Ticket:
    """Train all weights, without l1; ``sparsity`` is not looked at."""
    stages = Stages(problem, seed, run)
    model = problem.initial(seed)
    trained = stages.train("dense", model)
    return stages.ticket(model, trained.mask)
