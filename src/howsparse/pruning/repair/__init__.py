"""Repairs: change the weights that stay after a mask, so that the network computes nearly the same. No training.

- `repair_layers`: least squares of each layer's kept weights against the dense network's outputs.
- `repair_rounds`: an order and `repair_layers` alternately, up to a sparsity.
- `repair_path`: the same through several sparsities, with one network for each.
- `repair_globally`: all kept weights together, by Gauss-Newton steps towards the dense network's outputs.
- `repair_batchnorm`: new statistics of BatchNorm's inputs; alone, not after the others.
- `prune_and_repair`: any of these by its name in `REPAIRS`, with one signature.
"""

from howsparse.pruning.repair.batchnorm import repair_batchnorm
from howsparse.pruning.repair.gauss_newton import repair_globally
from howsparse.pruning.repair.least_squares import Inputs, repair_layers
from howsparse.pruning.repair.objectives import Objective
from howsparse.pruning.repair.registry import REPAIRS, Repair, as_repair, continue_repair, prune_and_repair, start_of
from howsparse.pruning.repair.rounds import repair_path, repair_rounds, round_sparsities

__all__ = [
    "REPAIRS",
    "Inputs",
    "Objective",
    "Repair",
    "as_repair",
    "continue_repair",
    "prune_and_repair",
    "repair_batchnorm",
    "repair_globally",
    "repair_layers",
    "repair_path",
    "repair_rounds",
    "round_sparsities",
    "start_of",
]
