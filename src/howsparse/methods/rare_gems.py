"""Rare Gems (Gem-Miner): scores are trained to find a subnetwork at initialisation; then its weights are trained."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from howsparse.errors import InputError
from howsparse.methods.stages import Run, Sparsity, Stages
from howsparse.methods.ticket import Ticket, Trained
from howsparse.problem import Problem, Training
from howsparse.pruning.masks import Mask, largest
from howsparse.risk.weights import select_weights
from howsparse.training import Schedule, learning_rate_factors

__all__ = ["Gem", "rare_gems"]

Watch = Callable[[nn.Module, Mask, float], None]


def rare_gems(
    problem: Problem,
    sparsity: Sparsity,
    seed: int = 0,
    run: Run = Run(),
    *,
    l2: float = 1e-5,
    learning_rate: float = 0.1,
    period: int | None = None,
    on_freeze: Watch = lambda model, active, share: None,
) -> Ticket:
    """Search for a subnetwork, then train it. Both take the problem's number of epochs.

    Every weight has a score in [0, 1]; the first scores are uniformly random. The network uses the weights whose
    score rounds to 1. The gradient ignores this rounding. At the end of each period, a freeze makes the active weights
    with the lowest scores inactive for the rest of the search. Each freeze removes the same fraction of the active
    weights, so the network has the target sparsity at the end.

    Args:
        problem: network, data and loss; its l1 term is not used.
        sparsity: fraction to remove, or "limit" or "predicted" of the dense network trained with l1.
        seed: seed of initialisation, scores and batches.
        run: folder and callbacks.
        l2: strength of the squared-norm penalty on scores, at least 0.
        learning_rate: learning rate of the scores; it falls to 0 along half a cosine.
        period: number of epochs between two freezes; by default 5, or all epochs if there are fewer.
        on_freeze: called before each freeze as ``on_freeze(model, active, fraction)``, with the present network, the
            mask of the active weights, and the fraction of them that stays active.

    Returns:
        The pruned and trained network.

    Raises:
        InputError: the period is longer than the training, or the learning rate or l2 is negative.

    Source: Sreenivasan et al. (2022).

    >>> batches = [(torch.randn(64, 8), torch.randint(0, 3, (64,)))]
    >>> problem = Problem(lambda: nn.Linear(8, 3), train=batches, test=batches, epochs=2)
    >>> rare_gems(problem, 0.5, period=1).mask.num_kept
    12
    """
    epochs = problem.epochs
    period = min(5, epochs) if period is None else period
    if not 0 < period <= epochs:
        raise InputError(f"period {period} is outside the problem's {epochs} epochs; give 1 to {epochs}")
    if not (learning_rate >= 0 and l2 >= 0):
        raise InputError(f"learning_rate {learning_rate:g} and l2 {l2:g} must be at least 0; correct them")
    stages = Stages(problem, seed, run)
    target = 1 - stages.target(sparsity)
    gem = Gem(problem.initial(seed), seed)
    search = partial(_search, stages, gem, target, period, learning_rate, l2, on_freeze)
    options = {"target": target, "l2": l2, "learning_rate": learning_rate, "period": period, "epochs": epochs}
    stages.keep("search", gem.model, epochs, {"method": "rare_gems", **options}, search, gem.network)
    model, mask = gem.network(), gem.mask()
    stages.train("fine-tuning", model, mask)
    return stages.ticket(model, mask)


def _search(
    stages: Stages,
    gem: "Gem",
    target: float,
    period: int,
    learning_rate: float,
    l2: float,
    on_freeze: Watch,
    workspace: Path | None,
) -> Trained:
    """Train the scores. After each period the lowest become inactive; the density ``target`` is left at the end."""
    epochs = stages.problem.epochs
    freezes = epochs // period

    def freeze(epoch: int) -> None:
        if epoch % period == 0 and 0 < epoch // period <= freezes:
            density = target ** (epoch // period / freezes)
            active = gem.mask()
            on_freeze(gem.network(), active, density / active.density)
            gem.freeze(density)

    optimizer = torch.optim.SGD(gem.scores(), learning_rate, momentum=momentum(stages.problem), weight_decay=2 * l2)
    optimizer.register_step_post_hook(lambda *_: gem.clip())
    factors = learning_rate_factors(Schedule("cosine"), epochs)
    history = stages.fit(
        "search", gem.model, optimizer, epochs, workspace, factor=factors.__getitem__, before_epoch=freeze
    )
    freeze(epochs)
    return Trained(gem.model.state_dict(), gem.mask(), tuple(history))


def momentum(problem: Problem) -> float:
    """The momentum of the problem's `Training`; 0.9 if the problem has its own training loop."""
    return problem.fit.momentum if isinstance(problem.fit, Training) else 0.9


class Gem:
    """A network whose weights are multiplied by rounded scores.

    Args:
        model: the network; it is changed in place, and its own parameters are not trained.
        seed: seed of the scores.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        # A copy of a parametrized module shares its class, so its parametrization cannot be removed.
        self._plain = copy.deepcopy(model)
        chosen = select_weights(model, None)
        self.model, self._seed = model.requires_grad_(False), seed
        generator = torch.Generator().manual_seed(seed)
        self._scored: dict[str, _Scored] = {}
        for name, weight in chosen.items():
            path, _, leaf = name.rpartition(".")
            scored = _Scored(torch.rand(weight.shape, generator=generator).to(weight.device))
            parametrize.register_parametrization(model.get_submodule(path), leaf, scored)
            self._scored[name] = scored

    def scores(self) -> list[nn.Parameter]:
        """The scores, which the search trains."""
        return [scored.score for scored in self._scored.values()]

    @torch.no_grad()
    def clip(self) -> None:
        """Limit the scores to [0, 1]."""
        for score in self.scores():
            score.clamp_(0.0, 1.0)

    def mask(self) -> Mask:
        """The mask of the active weights."""
        return Mask({name: scored.active.clone() for name, scored in self._scored.items()})

    @torch.no_grad()
    def freeze(self, density: float) -> None:
        """Make the active weights with the lowest scores inactive, down to ``density``; the order of ties is random."""
        flat = torch.cat([s.score.masked_fill(~s.active, -1.0).flatten() for s in self._scored.values()])
        order = torch.randperm(flat.numel(), generator=torch.Generator().manual_seed(self._seed)).to(flat.device)
        kept = torch.empty_like(flat, dtype=torch.bool)
        kept[order] = largest(flat[order], round(density * flat.numel()))
        sizes = [scored.score.numel() for scored in self._scored.values()]
        for part, scored in zip(kept.split(sizes), self._scored.values(), strict=True):
            scored.active.copy_(part.view_as(scored.active))

    def network(self) -> nn.Module:
        """A trainable network without scores. Its weights are those with a score that rounds to 1; others are zero."""
        plain = copy.deepcopy(self._plain)
        with torch.no_grad():
            for name, weight in select_weights(plain, self._scored).items():
                path, _, leaf = name.rpartition(".")
                weight.copy_(getattr(self.model.get_submodule(path), leaf))
        for name, buffer in plain.named_buffers():
            buffer.copy_(self.model.get_buffer(name))
        return plain


class _Scored(nn.Module):
    """The function weight * round(score) for active weights, else 0. The rounding counts as having the derivative 1."""

    active: Tensor

    def __init__(self, score: Tensor) -> None:
        super().__init__()
        self.score = nn.Parameter(score)
        self.register_buffer("active", torch.ones_like(score, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        rounded = self.score + (self.score.round() - self.score).detach()
        return weight * torch.where(self.active, rounded, 0.0)
