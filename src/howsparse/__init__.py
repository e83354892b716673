"""How sparse can a neural network be pruned before it gets worse? Computed, not swept for."""

from howsparse.errors import InputError
from howsparse.limit import PruningLimit, pruning_limit
from howsparse.loss import CrossEntropy, cross_entropy
from howsparse.masks import (
    Mask,
    layerwise_mask,
    magnitude_mask,
    prunable_weights,
    prune,
    random_mask,
)
from howsparse.measure import Measured, measure
from howsparse.training.l1 import attach_l1

__version__ = "0.1.0"

__all__ = [
    "CrossEntropy",
    "InputError",
    "Mask",
    "Measured",
    "PruningLimit",
    "attach_l1",
    "cross_entropy",
    "layerwise_mask",
    "magnitude_mask",
    "measure",
    "prunable_weights",
    "prune",
    "pruning_limit",
    "random_mask",
]
