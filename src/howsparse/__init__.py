"""Compute how sparse a neural network can be pruned before its loss increases."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from howsparse import methods
    from howsparse.deploy import (
        Benched,
        DeployedNetwork,
        bench,
        channel_mask,
        compact,
        export_onnx,
        load_deployed,
        save_deployed,
        sparsify,
    )
    from howsparse.errors import InputError
    from howsparse.limit.audit import Audit, audit
    from howsparse.limit.best import OrderComparison, measure_orders
    from howsparse.limit.certificate import Certificate
    from howsparse.limit.certify import certify
    from howsparse.limit.compute import pruning_limit
    from howsparse.limit.cost import LimitCost, limit_cost
    from howsparse.limit.directional import DirectionalLimit, directional_limit
    from howsparse.limit.goal import Goal
    from howsparse.limit.interaction import Interaction, interaction
    from howsparse.limit.measure import Measured, measure
    from howsparse.limit.options import LimitOptions
    from howsparse.limit.predict import Prediction, predict
    from howsparse.limit.recovery import Recoverable, Recovery, recoverable, recovered_loss
    from howsparse.limit.repaired import Repaired, compare_repairs, measure_repaired
    from howsparse.limit.result import PruningLimit
    from howsparse.problem import Problem, Training
    from howsparse.pruning.masks import Mask, layerwise_mask, magnitude_mask, random_mask
    from howsparse.pruning.network import PrunedNetwork
    from howsparse.pruning.orders import Order, rank
    from howsparse.pruning.patterns import n_of_m_mask
    from howsparse.pruning.prune import prune
    from howsparse.pruning.repair import (
        prune_and_repair,
        repair_batchnorm,
        repair_globally,
        repair_layers,
        repair_path,
        repair_rounds,
        settle_batchnorm,
    )
    from howsparse.risk.batches import SamePasses
    from howsparse.risk.losses import CrossEntropy, cross_entropy
    from howsparse.risk.outcomes import Outcomes, outcomes
    from howsparse.risk.weights import prunable_weights
    from howsparse.training.l1 import attach_l1

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "Benched",
    "Certificate",
    "CrossEntropy",
    "DeployedNetwork",
    "DirectionalLimit",
    "Goal",
    "InputError",
    "Interaction",
    "LimitCost",
    "LimitOptions",
    "Mask",
    "Measured",
    "Order",
    "OrderComparison",
    "Outcomes",
    "Prediction",
    "Problem",
    "PrunedNetwork",
    "PruningLimit",
    "Recoverable",
    "Recovery",
    "Repaired",
    "SamePasses",
    "Training",
    "attach_l1",
    "audit",
    "bench",
    "certify",
    "channel_mask",
    "compact",
    "compare_repairs",
    "cross_entropy",
    "directional_limit",
    "export_onnx",
    "interaction",
    "layerwise_mask",
    "limit_cost",
    "load_deployed",
    "load_task",
    "magnitude_mask",
    "measure",
    "measure_orders",
    "measure_repaired",
    "methods",
    "n_of_m_mask",
    "outcomes",
    "predict",
    "prunable_weights",
    "prune",
    "prune_and_repair",
    "pruning_limit",
    "random_mask",
    "rank",
    "recoverable",
    "recovered_loss",
    "repair_batchnorm",
    "repair_globally",
    "repair_layers",
    "repair_path",
    "repair_rounds",
    "save_deployed",
    "settle_batchnorm",
    "sparsify",
]

_NAMES = {  # the module of each public name
    "deploy": "Benched DeployedNetwork bench channel_mask compact export_onnx load_deployed save_deployed sparsify",
    "errors": "InputError",
    "limit.audit": "Audit audit",
    "limit.best": "OrderComparison measure_orders",
    "limit.certificate": "Certificate",
    "limit.certify": "certify",
    "limit.compute": "pruning_limit",
    "limit.cost": "LimitCost limit_cost",
    "limit.directional": "DirectionalLimit directional_limit",
    "limit.goal": "Goal",
    "limit.interaction": "Interaction interaction",
    "limit.measure": "Measured measure",
    "limit.options": "LimitOptions",
    "limit.predict": "Prediction predict",
    "limit.recovery": "Recoverable Recovery recoverable recovered_loss",
    "limit.repaired": "Repaired compare_repairs measure_repaired",
    "limit.result": "PruningLimit",
    "problem": "Problem Training",
    "pruning.masks": "Mask layerwise_mask magnitude_mask random_mask",
    "pruning.network": "PrunedNetwork",
    "pruning.orders": "Order rank",
    "pruning.patterns": "n_of_m_mask",
    "pruning.prune": "prune",
    "pruning.repair": (
        "prune_and_repair repair_batchnorm repair_globally repair_layers repair_path repair_rounds settle_batchnorm"
    ),
    "risk.batches": "SamePasses",
    "risk.losses": "CrossEntropy cross_entropy",
    "risk.outcomes": "Outcomes outcomes",
    "risk.weights": "prunable_weights",
    "training.l1": "attach_l1",
}
_HOMES = {name: f"howsparse.{module}" for module, names in _NAMES.items() for name in names.split()}

if not TYPE_CHECKING:  # a type checker reads the imports above

    def __getattr__(name: str) -> object:
        """Import what is asked for when it is first asked for, so that `import howsparse` takes no time."""
        if name in _HOMES:
            value = getattr(import_module(_HOMES[name]), name)
        elif find_spec(f"howsparse.{name}") is not None:
            value = import_module(f"howsparse.{name}")
        else:
            raise AttributeError(f"module 'howsparse' has no attribute '{name}'")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


def load_task(name: str, source: str | None = None, **changes: object) -> "Problem":
    """Load a task of this package as a `Problem`, with its data.

    Args:
        name: name of the task, for example "digits".
        source: name of a data set on the Hugging Face hub, or a local folder; by default the recipe's.
        **changes: fields of the recipe to change, for example ``epochs=5``.

    Returns:
        The problem: its network, its training and test images, its loss and its training.

    Raises:
        InputError: the task or field does not exist, or the data cannot be loaded.

    >>> load_task("digits").num_examples
    1437
    """
    from howsparse.tasks import load_task as load  # tasks need optional packages

    return load(name, source, **changes)
