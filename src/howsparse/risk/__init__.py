"""The empirical risk of a model: batches, losses, weights under study, and products with its curvature."""

from howsparse.risk.curvature import GGN, Hessian, Sample
from howsparse.risk.empirical import EmpiricalRisk
from howsparse.risk.evaluate import evaluate
from howsparse.risk.losses import CrossEntropy, Loss, SplitLoss, cross_entropy
from howsparse.risk.weights import prunable_weights, select_weights

__all__ = [
    "GGN",
    "CrossEntropy",
    "EmpiricalRisk",
    "Hessian",
    "Loss",
    "Sample",
    "SplitLoss",
    "cross_entropy",
    "evaluate",
    "prunable_weights",
    "select_weights",
]
