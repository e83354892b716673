"""How sparse can a neural network be pruned before it gets worse? Computed, not swept for."""

from howsparse.errors import InputError
from howsparse.limit.compute import PruningLimit, pruning_limit
from howsparse.limit.measure import Measured, measure
from howsparse.pruning.masks import Mask, layerwise_mask, magnitude_mask, random_mask
from howsparse.pruning.prune import prune
from howsparse.risk.losses import CrossEntropy, cross_entropy
from howsparse.risk.weights import prunable_weights
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
