"""Training: the loop, the l1 term in two forms, learning-rate schedules."""

from howsparse.training.l1 import L1, attach_l1
from howsparse.training.loop import Epoch, fit
from howsparse.training.schedule import learning_rate_factor

__all__ = ["L1", "Epoch", "attach_l1", "fit", "learning_rate_factor"]
