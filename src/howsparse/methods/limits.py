"""The limit of a network at a step of a method, computed once and kept in the run's folder."""

import copy
from dataclasses import replace
from pathlib import Path

from torch import nn

from howsparse.identity import architecture
from howsparse.limit.compute import options_for_sample, pruning_limit
from howsparse.limit.result import LIMIT, PruningLimit
from howsparse.methods.run import Run
from howsparse.problem import Problem
from howsparse.pruning.masks import Mask
from howsparse.pruning.prune import prune
from howsparse.store import Store

__all__ = ["limit_of", "network_inputs"]


def limit_of(problem: Problem, model: nn.Module, mask: Mask | None, seed: int, run: Run) -> PruningLimit:
    """Compute the limit of ``model``, or read it from the run's folder.

    Args:
        problem: the problem with the training data and the loss.
        model: the network; it is not changed.
        mask: the weights under study are those that stay under this mask; by default all.
        seed: seed of the probes.
        run: folder and options of limits.

    Returns:
        The limit. Its sparsities are fractions of the weights under study.
    """
    studied = copy.deepcopy(model)
    if mask is not None:
        prune(studied, mask)

    def compute(workspace: Path | None) -> PruningLimit:
        asked, whole = replace(run.limit, seed=seed), problem.study_batches()
        options = options_for_sample(asked, studied, whole, problem.loss, problem.num_examples)
        batches = problem.study_batches(run.examples)
        return pruning_limit(
            studied, batches, loss=problem.loss, options=options, keep=workspace, progress=run.on_limit
        )

    inputs = network_inputs(problem, studied) | {"loss": problem.settings()["loss"]}
    options = {"seed": seed, "examples": run.examples, "limit": run.limit}
    return Store(run.folder).get(LIMIT, inputs, options, compute)


def network_inputs(problem: Problem, model: nn.Module) -> dict[str, object]:
    """The inputs that identify a network and its data in the store: its code, its state, and the problem's data."""
    return {"model": architecture(model), "state": model.state_dict(), "data": problem.data}
