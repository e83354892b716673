"""No pruning: what the others are measured against."""

from howsparse.methods.stages import Run, Sparsity, Stages, Ticket
from howsparse.tasks import Task

__all__ = ["dense"]


def dense(task: Task, sparsity: Sparsity = 0.0, seed: int = 0, run: Run = Run()) -> Ticket:
    """Train all weights, without l1; ``sparsity`` is not looked at."""
    stages = Stages(task, seed, run)
    model = task.network(seed)
    mask = stages.train("dense", model)
    return stages.ticket(model, mask)
