r"""The paper's formulas on spectra and magnitudes: widths, dimensions, the bounds T and U. No model, no autograd.

The formulas read a spectrum as nodes and masses. The nodes are the eigenvalues with equal masses, or the nodes of a
quadrature rule with its masses. A density is the fraction of weights that stay; the paper calls it the pruning ratio.

Most formulas depend on the scale :math:`\mu = 2\epsilon/R^2`, which has the unit of a curvature. In a direction with
less curvature than :math:`\mu`, the loss sublevel set extends at least as far as the radius R, which is the norm of the
removed weights. In a direction with more curvature it does not extend that far.

References:
    Zhang et al. (2024), How sparse can we prune a deep network: a geometric viewpoint ("the paper").
    Larsen et al. (2022), How many degrees of freedom do we need to train deep networks.
    Amelunxen et al. (2014), Living on the edge: phase transitions in convex programs with random data.
"""

from howsparse.geometry.cones import cone_dimension, project_on_cone
from howsparse.geometry.magnitudes import (
    Magnitudes,
    effective_sparsity,
    existence_fixed_point,
    fixed_point,
)
from howsparse.geometry.spectra import (
    FilterFactor,
    absolute_filter,
    clipped_filter,
    curvature_scale,
    effective_dimension,
    existence_density,
    generic_density,
    minimal_density,
    statistical_dimension,
)
from howsparse.geometry.subspaces import (
    subspace_loss,
    subspace_stiffness,
    trust_region_density,
    trust_region_loss,
)
from howsparse.geometry.widths import (
    ellipsoid_width,
    larsen_interval,
    projected_width,
)

__all__ = [
    "FilterFactor",
    "Magnitudes",
    "absolute_filter",
    "clipped_filter",
    "cone_dimension",
    "curvature_scale",
    "effective_dimension",
    "effective_sparsity",
    "ellipsoid_width",
    "existence_density",
    "existence_fixed_point",
    "fixed_point",
    "generic_density",
    "larsen_interval",
    "minimal_density",
    "project_on_cone",
    "projected_width",
    "statistical_dimension",
    "subspace_loss",
    "subspace_stiffness",
    "trust_region_density",
    "trust_region_loss",
]
