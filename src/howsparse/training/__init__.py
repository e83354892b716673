"""Training: the loop, the l1 term in two forms, masks that hold weights at zero, and learning-rate schedules."""

from howsparse.training.l1 import L1, attach_l1
from howsparse.training.loop import Epoch, fit
from howsparse.training.masking import Masking, attach_mask
from howsparse.training.schedule import Schedule, learning_rate_factors

__all__ = ["L1", "Epoch", "Masking", "Schedule", "attach_l1", "attach_mask", "fit", "learning_rate_factors"]
