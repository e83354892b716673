"""What the weights that stay can make good after a mask, with forward passes over a few thousand examples. No training.

- `repair_layers`: least squares of each layer's kept weights against the dense network's outputs.
- `repair_rounds`: an order and that repair in turns, up to a sparsity.
- `repair_batchnorm`: new statistics of BatchNorm's inputs; alone, not after the others.
"""

from howsparse.pruning.repair.batchnorm import repair_batchnorm
from howsparse.pruning.repair.least_squares import Inputs, repair_layers
from howsparse.pruning.repair.rounds import repair_rounds, round_sparsities

__all__ = ["Inputs", "repair_batchnorm", "repair_layers", "repair_rounds", "round_sparsities"]
